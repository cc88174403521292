"""Session factories and scoped registries: where they are made, and what their sessions are made with."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.facts import factory_facts, name_of
from verdigris.evidence.recording.keys import KEY

if TYPE_CHECKING:
    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.sessions import SessionState


class FactoryState:
    """A factory: what its sessions are made with."""

    __slots__ = ("created", "created_in_requests", "facts", "key", "maker", "spot")

    def __init__(self, key: tuple[Any, ...], facts: dict[str, Any], spot: Spot | None, maker: Any) -> None:
        self.key = key
        self.facts = facts
        self.spot = spot
        self.maker = weakref.ref(maker)
        self.created = self.created_in_requests = 0


class FactoryWatch:
    """Records factories."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.states: dict[tuple[Any, ...], FactoryState] = {}

    def attach(self, *factories: type, scoped: type) -> None:
        """Start recording factory classes and a class of scoped registries."""
        patches = self.recorder.patches
        for factory in factories:
            patches.method(factory, "__init__", self._factory_init)
            patches.method(factory, "__call__", self._factory_call)
        patches.method(scoped, "__init__", self._scoped_init)

    def forget(self) -> None:
        """Keep the factories, drop their figures."""
        for state in self.states.values():
            state.created = state.created_in_requests = 0

    def _factory_init(self, original: Any) -> Any:
        def __init__(maker: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(maker, *args, **kwargs)
            try:
                self._made(maker, None)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("a factory's construction", error)

        return __init__

    def _factory_call(self, original: Any) -> Any:
        def __call__(maker: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - as above
            made = original(maker, *args, **kwargs)
            try:
                factory: FactoryState | None = maker.__dict__.get(KEY)
                state: SessionState | None = getattr(made, "sync_session", made).__dict__.get(KEY)
                if factory is not None and state is not None:
                    _, _, kind, *rest = state.key
                    # sessionmaker makes each factory a subclass of its own, of the same name
                    kind = kind.__mro__[1] if kind.__qualname__ == kind.__mro__[1].__qualname__ else kind
                    self.recorder.sessions.recount(state, (state.spot, factory, kind, *rest))
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a factory's session", error)
            return made

        return __call__

    def _scoped_init(self, original: Any) -> Any:
        def __init__(registry: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - as above
            original(registry, *args, **kwargs)
            try:
                scope = kwargs.get("scopefunc", args[1] if len(args) > 1 else None)
                self._made(registry.session_factory, scope or "thread", registry)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a scoped registry's construction", error)

        return __init__

    def _made(self, maker: Any, scope: Any, registry: Any = None) -> None:
        spot = self.recorder.places.here()
        facts = factory_facts(maker)
        facts["factory_class"] = name_of(type(registry if registry is not None else maker))
        facts["scoped"] = None if scope is None else scope if isinstance(scope, str) else name_of(scope)
        key = (spot, *(str(value) for value in facts.values()))
        state = self.states.get(key)
        if state is None:
            state = self.states[key] = FactoryState(key, facts, spot, maker)
        state.created += 1
        unit = self.recorder.units.current.get()
        state.created_in_requests += unit is not None and unit.request is not None and not unit.request.ended
        if scope is None:
            maker.__dict__[KEY] = state
