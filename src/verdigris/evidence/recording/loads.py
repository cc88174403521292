"""Loads: each query knows its line, each object its query, so a lazy load names the query that should have done it.

`Session.execute` and its siblings are given an execution option that the driver's call and the `load` event read. A
`do_orm_execute` listener would do by public attributes what is done here by three private names (`LOAD_OPTIONS`,
`TOP_LEVEL`, a statement's current path), and cost 14 to 20 microseconds a statement: SQLAlchemy prepares each
statement twice when there is one. Were the names gone, lazy loads would be recorded as repeated statements.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.keys import KEY, ORIGIN
from verdigris.evidence.recording.places import getcurrent
from verdigris.evidence.recording.units import Lazy, LazyOrigin, LoaderOrigin, Origin

if TYPE_CHECKING:
    from types import ModuleType

    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.sessions import SessionState
    from verdigris.evidence.recording.units import Unit

STATEMENTS = ("execute", "scalar", "scalars")
_ASYNC_STATEMENTS = (*STATEMENTS, "get", "get_one", "stream", "stream_scalars")
LOAD_OPTIONS = "_sa_orm_load_options"
TOP_LEVEL = "sa_top_level_orm_context"
_BY_NAME = frozenset({"refresh", "get", "get_one"})  # methods that ask for an object, expired or not
_PHASES = {"serialize_response": "serialisation", "solve_dependencies": "dependency"}  # by FastAPI's functions


class LoadWatch:
    """Records lazy loads, and what raise and raise_on_sql refuse."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def attach(self, orm: ModuleType) -> None:
        """Start recording; the argument is `sqlalchemy.orm`."""
        from sqlalchemy import event

        patches, strategies = self.recorder.patches, orm.strategies
        for name in ("LazyLoader", "DeferredColumnLoader"):
            # No event tells of raise and raise_on_sql; without this method an exception's text at a request's end does.
            owner = getattr(strategies, f"_{name}", None) or getattr(strategies, name, None)
            if owner is not None:
                patches.method(owner, "_invoke_raise_load", self._raise_load)
        event.listen(orm.Mapper, "load", _load, raw=True)
        patches.later(lambda: event.remove(orm.Mapper, "load", _load))

    def attach_async(self, asyncio_package: ModuleType) -> None:
        """Start recording the async classes too; the argument is `sqlalchemy.ext.asyncio`."""
        for owner, names in (
            (asyncio_package.AsyncSession, _ASYNC_STATEMENTS),
            (asyncio_package.AsyncConnection, STATEMENTS),
        ):
            for name in names:
                self.recorder.patches.method(owner, name, self._marking)

    def origin(self, session: Any, statement: Any, options: Any) -> Origin:
        """Return what sent a statement that comes with execution options: the application, or the ORM itself."""
        unit = self.recorder.units.unit()
        above = options.get(TOP_LEVEL)
        if above is not None:  # selectinload and its kind, on behalf of a query
            origin: Origin | None = above.execution_options.get(ORIGIN)
            if origin is not None:
                return LoaderOrigin(origin.spot)
        load = options.get(LOAD_OPTIONS)
        if load is not None:
            state = load._lazy_loaded_from  # noqa: SLF001 - see the module's text
            if state is not None:
                return self._lazy(session, statement, state, unit)
            state = load._refresh_state  # noqa: SLF001 - as above
            if state is not None:
                return self._column(session, statement, state, load, unit)
        noted: Origin | None = options.get(ORIGIN)
        if noted is None:
            return Origin(self.recorder.spot(unit))
        if noted.spot is None:
            noted.spot = self.recorder.spot(unit)
        return noted

    def _marking(self, original: Any) -> Any:
        """Note who calls a coroutine function; the call runs in a greenlet, from which that is dear to find out."""
        caller = self.recorder.places.caller
        trouble = self.recorder.trouble

        def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                options = kwargs.get("execution_options")
                if not options:
                    kwargs["execution_options"] = {ORIGIN: Origin(caller(sys._getframe(1)))}  # noqa: SLF001 - see the module's text
                elif ORIGIN not in options:
                    kwargs["execution_options"] = {**options, ORIGIN: Origin(caller(sys._getframe(1)))}  # noqa: SLF001 - as above
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                trouble("an async call", error)
            return original(owner, *args, **kwargs)

        return _as_coroutine_function(call)

    def _lazy(self, session: Any, statement: Any, state: Any, unit: Unit) -> Origin:
        path = statement._compile_options._current_path.path  # noqa: SLF001 - as above
        prop = path[1] if len(path) > 1 else None
        key = getattr(prop, "key", "?")
        attribute = f"{state.class_.__name__}.{key}"
        return self._touched(
            session, state, unit, attribute, kind="relationship", uselist=getattr(prop, "uselist", None)
        )

    def _column(self, session: Any, statement: Any, state: Any, load: Any, unit: Unit) -> Origin:
        noted: SessionState = session.__dict__[KEY]
        by_name = noted.operation in _BY_NAME and noted.busy is getcurrent()
        if load._is_user_refresh or by_name:  # noqa: SLF001 - as above
            kind = LazyOrigin if noted.operation == "refresh" else Origin
            return kind(self.recorder.spot(unit))
        names = statement._compile_options._only_load_props or ()  # noqa: SLF001 - as above
        missing = sorted(name for name in names if name in state.mapper.column_attrs)
        touched = missing[0] if len(missing) == 1 else _touched_name() or "*"
        return self._touched(session, state, unit, f"{state.class_.__name__}.{touched}", kind="column")

    def _touched(
        self, session: Any, state: Any, unit: Unit, attribute: str, *, kind: str, uselist: bool | None = None
    ) -> Origin:
        recorder = self.recorder
        spot = recorder.spot(unit)
        origin: Origin | None = getattr(state, ORIGIN, None)
        lazy = unit.lazies.setdefault(
            (attribute, kind, spot, origin.spot if origin else None, self.phase(unit)), Lazy()
        )
        if not unit.listed:
            recorder.units.list(unit)
        lazy.count += 1
        lazy.uselist = uselist
        if origin is not None:
            lazy.origins.add(origin)
        current = getcurrent()
        if current is not None and current.parent is None and session.get_bind(state.mapper).dialect.is_async:
            lazy.would_raise += 1
        return LazyOrigin(spot)

    def _raise_load(self, original: Any) -> Any:
        def _invoke_raise_load(strategy: Any, state: Any, passive: Any, lazy: Any) -> Any:
            try:
                unit = self.recorder.units.unit()
                origin: Origin | None = getattr(state, ORIGIN, None)
                key = (
                    f"{state.class_.__name__}.{strategy.key}",
                    str(lazy),
                    self.recorder.spot(unit),
                    origin.spot if origin else None,
                    self.phase(unit),
                )
                unit.raised[key] = unit.raised.get(key, 0) + 1
                if not unit.listed:
                    self.recorder.units.list(unit)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a raise_on_sql", error)
            return original(strategy, state, passive, lazy)

        return _invoke_raise_load

    def phase(self, unit: Unit) -> str:
        """Say in which part of a request an attribute was touched; walks the stack, so only for what is rare."""
        request = unit.request
        if request is None:
            return "task"
        if request.answered:
            return "after-response"
        endpoint = getattr(request.scope.get("endpoint"), "__code__", None)
        for frame in self.recorder.places.stack():
            code = frame.f_code
            if code is endpoint:
                return "handler"
            if code.co_name in _PHASES:
                return _PHASES[code.co_name]
        return "handler"


def _touched_name() -> str | None:
    """Find the attribute whose descriptor is on the stack: of several expired ones, the one that was read."""
    frame: Any = sys._getframe(1)  # noqa: SLF001 - as above
    while frame is not None:
        if frame.f_code.co_name == "__get__" and "sqlalchemy" in frame.f_code.co_filename:
            return str(getattr(frame.f_locals.get("self"), "key", "")) or None
        frame = frame.f_back
    return None


def _as_coroutine_function(function: Any) -> Any:
    """Let `iscoroutinefunction` say of a function that returns a coroutine what it says of one declared async."""
    mark = getattr(inspect, "markcoroutinefunction", None)  # Python 3.12
    if mark is not None:
        return mark(function)
    function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # noqa: SLF001 - as above
    return function


def _load(state: Any, context: Any) -> None:
    try:
        origin = context.execution_options[ORIGIN]
    except KeyError:
        return
    origin.objects += 1
    state._verdigris_origin = origin  # noqa: SLF001 - as above
