"""Engines: where they are made, with which settings, and what is put on their dialects.

The driver's calls are recorded by overriding public methods of `sqlalchemy.engine.Dialect` on each engine's own
dialect; listeners of the engine would cost three times as much.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.facts import engine_facts
from verdigris.evidence.recording.keys import KEY
from verdigris.evidence.recording.patches import Patches
from verdigris.evidence.recording.units import EngineState

if TYPE_CHECKING:
    from types import ModuleType

    from verdigris.evidence.recording.recorder import Recorder

_PATCHES = f"{KEY}_patches"  # what was put on a dialect, kept by the dialect
_ALIKE = 20  # databases that are told apart for one line


class EngineWatch:
    """Records engines and lets the other watches onto their dialects."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.states: dict[tuple[Any, ...], EngineState] = {}
        self._dialects: weakref.WeakSet[Any] = weakref.WeakSet()  # an engine that is dropped must not live on in here

    def attach(self, sqlalchemy: ModuleType) -> None:
        """Start recording; the argument is the imported package."""
        from sqlalchemy.engine import Dialect, Engine

        patches = self.recorder.patches
        patches.class_method(Dialect, "engine_created", self._engine_created)
        patches.method(Engine, "dispose", self._engine_dispose)
        patches.later(self._restore)
        self.recorder.pools.attach(sqlalchemy)

    def forget(self) -> None:
        """Keep the engines, drop their figures."""
        for state in self.states.values():
            state.clear()

    def _engine_created(self, original: Any) -> Any:
        def engine_created(cls: type, engine: Any) -> None:
            original(cls, engine)
            try:
                self.created(engine)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("an engine's construction", error)

        return engine_created

    def _engine_dispose(self, original: Any) -> Any:
        def dispose(engine: Any, *args: Any, **kwargs: Any) -> Any:
            state = engine.dialect.__dict__.get(KEY)
            if state is not None:
                state.disposed += 1
            return original(engine, *args, **kwargs)

        return dispose

    def created(self, engine: Any, *, late: bool = False) -> EngineState:
        """Note an engine; one that was made before the recording has no site."""
        spot = None if late else self.recorder.places.here()
        facts = engine_facts(engine)
        key = (spot, *facts.values())
        state = self.states.get(key) or self._alike(spot, facts)
        if state is None:
            state = self.states[key] = EngineState(key, facts, spot)
        state.created += 1
        state.engines = [ref for ref in state.engines if ref() is not None]
        state.engines.append(weakref.ref(engine))
        unit = self.recorder.units.current.get()
        state.created_in_requests += unit is not None and unit.request is not None and not unit.request.ended
        self._instrument(engine.dialect, state)
        return state

    def _alike(self, spot: Any, facts: dict[str, Any]) -> EngineState | None:
        """Return one of many states of a line that differ only in the database, such as a test suite's."""
        settings = {**facts, "url": "", "database": ""}
        alike = [
            state
            for state in self.states.values()
            if state.spot is spot and {**state.facts, "url": "", "database": ""} == settings
        ]
        return alike[0] if len(alike) >= _ALIKE else None

    def _instrument(self, dialect: Any, state: EngineState) -> None:
        if KEY in dialect.__dict__:
            return
        dialect.__dict__[KEY] = state
        dialect.__dict__.setdefault("lane_executed", _unheard)  # a Database's, which may be made of the engine later
        recorder = self.recorder
        patches = dialect.__dict__[_PATCHES] = Patches()
        self._dialects.add(dialect)
        for watch in (recorder.executions, recorder.transactions, recorder.pools):
            for name, make in watch.overrides(state).items():
                patches.method(dialect, name, make)

    def _restore(self) -> None:
        for dialect in list(self._dialects):
            dialect.__dict__.pop(_PATCHES).restore()
            dialect.__dict__.pop(KEY, None)
        self._dialects.clear()


def _unheard(*_: object) -> None:
    """Stand where nobody listens to a `Database.lane`."""
