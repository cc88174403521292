"""Factories, sessions and what the ORM loads: who opened them, who was in them, which query should have loaded what."""

from __future__ import annotations

import asyncio
import inspect
import sys
import weakref
from types import ModuleType
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.engines import KEY, ORIGIN
from verdigris.evidence.recording.places import Spot, getcurrent
from verdigris.evidence.recording.units import Lazy, Origin, Unit

if TYPE_CHECKING:
    from verdigris.evidence.recording.recorder import Recorder

_STATEMENTS = ("execute", "scalar", "scalars")
_ASYNC_STATEMENTS = ("execute", "scalar", "scalars", "get", "get_one", "stream", "stream_scalars")
_WATCHED = ("flush", "commit", "rollback", "refresh")
# Execution options under which the ORM passes its own loads through Session.execute. They are private: were they renamed,
# lazy loads would be recorded as repeated statements instead. A do_orm_execute listener would know the same by public
# attributes, and cost 14 to 20 microseconds a statement: SQLAlchemy prepares each one twice when there is a listener.
_LOAD_OPTIONS = "_sa_orm_load_options"
_TOP_LEVEL = "sa_top_level_orm_context"


class FactoryState:
    """A factory: what its sessions are made with."""

    __slots__ = ("created", "created_in_requests", "facts", "key", "maker", "spot")

    def __init__(self, key: tuple[Any, ...], facts: dict[str, Any], spot: Spot | None, maker: Any) -> None:
        self.key = key
        self.facts = facts
        self.spot = spot
        self.maker = weakref.ref(maker)
        self.created = self.created_in_requests = 0


class SessionTotal:
    """Sessions of one site."""

    __slots__ = ("abandoned", "closed", "commits", "created", "identity_max", "reopened", "rollbacks", "used")

    def __init__(self) -> None:
        self.created = self.used = self.closed = self.abandoned = self.reopened = self.identity_max = 0
        self.commits = self.rollbacks = 0


class SessionState:
    """One session."""

    __slots__ = ("begun", "busy", "closed", "greenlet", "key", "operation", "ref", "spot", "total", "unit", "visitors")

    def __init__(self, session: Any, unit: Unit, spot: Spot | None, key: tuple[Any, ...], total: SessionTotal) -> None:
        self.ref = weakref.ref(session)
        self.unit = unit
        self.spot = spot
        self.key = key
        self.total = total
        self.begun = self.closed = False
        self.busy = 0
        self.greenlet: Any = None  # the one that is busy
        self.visitors: set[int] = set()
        self.operation = ""


class SessionWatch:
    """Records factories, sessions, overlaps and loads."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.factories: dict[tuple[Any, ...], FactoryState] = {}
        self.totals: dict[tuple[Any, ...], SessionTotal] = {}
        self.open: dict[int, SessionState] = {}
        self.overlaps: dict[tuple[Any, ...], list[Any]] = {}
        self._serialise: Any = None

    def attach(self, orm: ModuleType) -> None:
        """Start recording; the argument is `sqlalchemy.orm`."""
        from sqlalchemy import event
        from sqlalchemy.orm import Mapper, Session, scoped_session, sessionmaker, strategies

        patches = self.recorder.patches
        patches.method(sessionmaker, "__init__", self._factory_init)
        patches.method(sessionmaker, "__call__", self._factory_call)
        patches.method(scoped_session, "__init__", self._scoped_init)
        patches.method(Session, "__init__", self._session_init)
        patches.method(Session, "close", self._close)
        for name in _WATCHED:
            patches.method(Session, name, lambda original, name=name: self._watched(original, name))
        for name in _STATEMENTS:
            patches.method(Session, name, lambda original, name=name: self._stamping(original, name))
        for name in ("LazyLoader", "DeferredColumnLoader"):
            # No event tells of raise and raise_on_sql; without this method the exception's text at the request's end does.
            owner = getattr(strategies, f"_{name}", None) or getattr(strategies, name, None)
            if owner is not None:
                patches.method(owner, "_invoke_raise_load", self._raise_load)
        for target, name, function, options in (
            (Session, "after_begin", self._after_begin, {}),
            (Session, "after_commit", self._after_commit, {}),
            (Session, "after_rollback", self._after_rollback, {}),
            (Mapper, "load", _load, {"raw": True}),
        ):
            event.listen(target, name, function, **options)
            patches.later(lambda target=target, name=name, function=function: event.remove(target, name, function))

    def attach_async(self, asyncio_package: ModuleType) -> None:
        """Start recording the async classes too; the argument is `sqlalchemy.ext.asyncio`."""
        from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session, async_sessionmaker

        patches = self.recorder.patches
        patches.method(async_sessionmaker, "__init__", self._factory_init)
        patches.method(async_sessionmaker, "__call__", self._factory_call)
        patches.method(async_scoped_session, "__init__", self._scoped_init)
        patches.method(AsyncSession, "__init__", self._async_session_init)
        for owner, names in ((AsyncSession, _ASYNC_STATEMENTS), (AsyncConnection, _STATEMENTS)):
            for name in names:
                patches.method(owner, name, self._marking)

    def forget(self) -> None:
        """Keep the factories, drop what their sessions did."""
        for factory in self.factories.values():
            factory.created = factory.created_in_requests = 0
        for total in self.totals.values():
            total.__init__()  # type: ignore[misc]  # as new, for the sessions that point at it
        self.open.clear()
        self.overlaps.clear()

    # Factories

    def _factory_init(self, original: Any) -> Any:
        def __init__(maker: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(maker, *args, **kwargs)
            try:
                self._made(maker, None)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("a factory's construction", error)

        return __init__

    def _factory_call(self, original: Any) -> Any:
        def __call__(maker: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807 - what it stands in for
            made = original(maker, *args, **kwargs)
            try:
                factory: FactoryState | None = maker.__dict__.get(KEY)
                state: SessionState | None = getattr(made, "sync_session", made).__dict__.get(KEY)
                if factory is not None and state is not None:
                    _, _, kind, *rest = state.key
                    # sessionmaker makes each factory a subclass of its own, of the same name
                    kind = kind.__mro__[1] if kind.__qualname__ == kind.__mro__[1].__qualname__ else kind
                    self._recount(state, (state.spot, factory, kind, *rest))
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a factory's session", error)
            return made

        return __call__

    def _scoped_init(self, original: Any) -> Any:
        def __init__(registry: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(registry, *args, **kwargs)
            try:
                scope = kwargs.get("scopefunc", args[1] if len(args) > 1 else None)
                self._made(registry.session_factory, scope or "thread", registry)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a scoped registry's construction", error)

        return __init__

    def _made(self, maker: Any, scope: Any, registry: Any = None) -> None:
        from verdigris.evidence.recording.facts import factory_facts, name_of

        spot = self.recorder.places.here()
        facts = factory_facts(maker)
        facts["factory_class"] = name_of(type(registry if registry is not None else maker))
        facts["scoped"] = None if scope is None else scope if isinstance(scope, str) else name_of(scope)
        key = (spot, *(str(value) for value in facts.values()))
        state = self.factories.get(key)
        if state is None:
            state = self.factories[key] = FactoryState(key, facts, spot, maker)
        state.created += 1
        unit = self.recorder.units.current.get()
        state.created_in_requests += unit is not None and unit.request is not None and not unit.request.ended
        if scope is None:
            maker.__dict__[KEY] = state

    # Sessions

    def _session_init(self, original: Any) -> Any:
        def __init__(session: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(session, *args, **kwargs)
            try:
                self._opened(session, type(session), is_async=False)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a session's construction", error)

        return __init__

    def _async_session_init(self, original: Any) -> Any:
        def __init__(session: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(session, *args, **kwargs)
            try:
                self._opened(session.sync_session, type(session), is_async=True)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("an async session's construction", error)

        return __init__

    def _opened(self, session: Any, kind: type, *, is_async: bool) -> None:
        state: SessionState | None = session.__dict__.get(KEY)
        spot = state.spot if state is not None else self.recorder.places.here()
        key = (spot, None, kind, is_async, session.expire_on_commit, session.autoflush)
        if state is not None:  # the sync session within an async one: counted as the async one
            self._recount(state, key)
            return
        total = self._total(key)
        total.created += 1
        session.__dict__[KEY] = SessionState(session, self.recorder.units.unit(), spot, key, total)

    def _recount(self, state: SessionState, key: tuple[Any, ...]) -> None:
        state.total.created -= 1
        state.key, state.total = key, self._total(key)
        state.total.created += 1

    def _total(self, key: tuple[Any, ...]) -> SessionTotal:
        total = self.totals.get(key)
        if total is None:
            total = self.totals[key] = SessionTotal()
        return total

    def _after_begin(self, session: Any, transaction: Any, connection: Any) -> None:
        try:
            state: SessionState | None = session.__dict__.get(KEY)
            if state is None or transaction.nested:
                return
            if state.closed:
                state.closed = False
                state.total.reopened += 1
                state.total.closed -= 1
                state.unit = self.recorder.units.unit()
            elif not state.begun:
                state.begun = True
                state.total.used += 1
            else:
                return
            state.unit.sessions += 1
            self.open[id(state)] = state
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a transaction's begin", error)

    def _after_commit(self, session: Any) -> None:
        state: SessionState | None = session.__dict__.get(KEY)
        if state is not None:
            state.total.commits += 1

    def _after_rollback(self, session: Any) -> None:
        state: SessionState | None = session.__dict__.get(KEY)
        if state is not None:
            state.total.rollbacks += 1

    def _close(self, original: Any) -> Any:
        watched = self._watched(original, "close")

        def close(session: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                return watched(session, *args, **kwargs)
            finally:
                state = session.__dict__.get(KEY)
                if state is not None and not state.closed:
                    try:
                        self._closed(session, state)
                    except Exception as error:  # noqa: BLE001 - as above
                        self.recorder.trouble("a session's close", error)

        return close

    def _closed(self, session: Any, state: SessionState) -> None:
        state.closed = True
        state.total.closed += 1
        if self.open.pop(id(state), None) is None:
            return
        unit = state.unit
        unit.sessions -= 1
        if unit.request is None and unit.sessions <= 0 and unit.holding <= 0:
            self.recorder.fold(unit)

    def _watched(self, original: Any, operation: str) -> Any:
        units = self.recorder.units
        measures = operation in {"flush", "close", "commit"}

        def call(session: Any, *args: Any, **kwargs: Any) -> Any:
            state: SessionState | None = session.__dict__.get(KEY)
            if state is None:
                return original(session, *args, **kwargs)
            if state.busy and state.greenlet is getcurrent() is not None:
                return original(session, *args, **kwargs)  # an autoflush, most often
            me = units.unit().owner
            if state.busy:
                return self._within(state, me, operation, original, session, *args, **kwargs)
            state.busy = me
            state.operation = operation
            state.greenlet = getcurrent()
            if measures:
                size = len(session.identity_map)
                if size > state.total.identity_max:
                    state.total.identity_max = size
            try:
                return original(session, *args, **kwargs)
            finally:
                state.busy = 0
                state.greenlet = None

        return call

    def _overlap(self, state: SessionState, operation: str) -> None:
        try:
            recorder = self.recorder
            unit = recorder.units.unit()
            holder = next((task for task in asyncio.all_tasks() if id(task) == state.busy), None)
            there = recorder.places.waiting(holder) or recorder.places.waiting(unit.parent() if unit.parent else None)
            key = (there, recorder.spot(unit), state.operation, operation, state.spot)
            found = self.overlaps.setdefault(key, [0, None])
            found[0] += 1
            found[1] = unit.request if found[1] is None else found[1]
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("an overlap", error)

    # Loads

    def _stamping(self, original: Any, operation: str) -> Any:
        """Record who is in the session, and pass on to the driver's call and to loaded objects which query they are of."""
        recorder = self.recorder
        units, here = recorder.units, recorder.places.here

        def call(session: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
            state: SessionState | None = session.__dict__.get(KEY)
            if state is None:
                return original(session, statement, *args, **kwargs)
            unit = units.unit()
            origin: Origin | None = None
            try:
                options = kwargs.get("execution_options")
                if not options:
                    origin = Origin(unit, here() or recorder.spot(unit))
                    kwargs["execution_options"] = {ORIGIN: origin}
                else:
                    origin = options.get(ORIGIN)
                    if origin is None or _LOAD_OPTIONS in options or _TOP_LEVEL in options:
                        origin = self._origin(session, statement, options, unit)
                        kwargs["execution_options"] = {**options, ORIGIN: origin}
                    elif origin.spot is None:
                        origin.spot = recorder.spot(unit)
                    origin.unit = unit
            except Exception as error:  # noqa: BLE001 - as above
                recorder.trouble("a session's statement", error)
            try:
                if state.busy:
                    return self._within(state, unit.owner, operation, original, session, statement, *args, **kwargs)
                state.busy = unit.owner
                state.operation = operation
                state.greenlet = getcurrent()
                try:
                    return original(session, statement, *args, **kwargs)
                finally:
                    state.busy = 0
                    state.greenlet = None
            finally:
                if origin is not None:
                    origin.unit = None

        return call

    def _within(self, state: SessionState, me: int, operation: str, original: Any, *args: Any, **kwargs: Any) -> Any:
        if state.busy == me or me in state.visitors:
            return original(*args, **kwargs)
        self._overlap(state, operation)
        state.visitors.add(me)
        try:
            return original(*args, **kwargs)
        finally:
            state.visitors.discard(me)

    def _origin(self, session: Any, statement: Any, options: Any, unit: Unit) -> Origin:
        above = options.get(_TOP_LEVEL)
        if above is not None:  # selectinload and its kind, on behalf of a query
            origin: Origin | None = above.execution_options.get(ORIGIN)
            if origin is not None:
                return Origin(unit, origin.spot, within=True)
        load = options.get(_LOAD_OPTIONS)
        if load is not None:
            state = load._lazy_loaded_from  # noqa: SLF001 - see _LOAD_OPTIONS
            if state is not None:
                return self._lazy(session, statement, state, unit)
            state = load._refresh_state  # noqa: SLF001 - as above
            if state is not None:
                return self._column(session, state, load, unit)
        return options.get(ORIGIN) or Origin(unit, self.recorder.spot(unit))

    def _marking(self, original: Any) -> Any:
        """Note who calls a coroutine function; the call runs in a greenlet, from which that is dear to find out."""
        caller = self.recorder.places.caller
        trouble = self.recorder.trouble

        def call(owner: Any, *args: Any, **kwargs: Any) -> Any:
            try:
                options = kwargs.get("execution_options")
                if not options:
                    kwargs["execution_options"] = {ORIGIN: Origin(None, caller())}
                elif ORIGIN not in options:
                    kwargs["execution_options"] = {**options, ORIGIN: Origin(None, caller())}
            except Exception as error:  # noqa: BLE001 - as above
                trouble("an async call", error)
            return original(owner, *args, **kwargs)

        return _as_coroutine_function(call)

    def _lazy(self, session: Any, statement: Any, state: Any, unit: Unit) -> Origin:
        path = statement._compile_options._current_path.path  # noqa: SLF001 - see _LOAD_OPTIONS
        prop = path[1] if len(path) > 1 else None
        key = getattr(prop, "key", "?")
        attribute = f"{state.class_.__name__}.{key}"
        return self._touched(session, state, attribute, "relationship", getattr(prop, "uselist", None), unit)

    def _column(self, session: Any, state: Any, load: Any, unit: Unit) -> Origin:
        session_state: SessionState = session.__dict__[KEY]
        if session_state.operation == "refresh" and session_state.busy == unit.owner:
            return Origin(unit, self.recorder.spot(unit), lazy=True)  # asked for by name
        names = load._only_load_props or ()  # noqa: SLF001 - see _LOAD_OPTIONS
        missing = sorted(name for name in names if name in state.mapper.column_attrs)
        touched = missing[0] if len(missing) == 1 else _touched_name() or "*"
        return self._touched(session, state, f"{state.class_.__name__}.{touched}", "column", None, unit)

    def _touched(  # noqa: PLR0917 - internal
        self, session: Any, state: Any, attribute: str, kind: str, uselist: bool | None, unit: Unit
    ) -> Origin:
        recorder = self.recorder
        spot = recorder.spot(unit)
        origin: Origin | None = getattr(state, ORIGIN, None)
        lazy = unit.lazies.setdefault((attribute, kind, spot, origin.spot if origin else None, self.phase(unit)), Lazy())
        if not unit.listed:
            recorder.units.list(unit)
        lazy.count += 1
        lazy.uselist = uselist
        if origin is not None:
            lazy.origins.add(origin)
        current = getcurrent()
        if current is not None and current.parent is None and session.get_bind(state.mapper).dialect.is_async:
            lazy.would_raise += 1
        return Origin(unit, spot, lazy=True)

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
        frame: Any = sys._getframe(1)  # noqa: SLF001 - the documented way to one's caller
        endpoint = getattr(request.scope.get("endpoint"), "__code__", None)
        while frame is not None:
            code = frame.f_code
            if code is endpoint:
                return "handler"
            if code.co_name == "serialize_response":
                return "serialisation"
            if code.co_name == "solve_dependencies":
                return "dependency"
            if frame.f_back is None and getcurrent() is not None:
                parent = getcurrent().parent
                return _phase_of(parent.gr_frame, endpoint) if parent is not None else "handler"
            frame = frame.f_back
        return "handler"

    def abandoned(self) -> dict[tuple[Any, ...], int]:
        """Count the open sessions that nobody can close any more, or whose request is over."""
        found: dict[tuple[Any, ...], int] = {}
        for state in list(self.open.values()):
            request = state.unit.request
            if state.ref() is None or (request is not None and request.ended):
                found[state.key] = found.get(state.key, 0) + 1
        return found


def _phase_of(frame: Any, endpoint: Any) -> str:
    while frame is not None:
        code = frame.f_code
        if code is endpoint:
            return "handler"
        if code.co_name in {"serialize_response", "solve_dependencies"}:
            return "serialisation" if code.co_name == "serialize_response" else "dependency"
        frame = frame.f_back
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
    function._is_coroutine = getattr(asyncio.coroutines, "_is_coroutine", None)  # noqa: SLF001 - how 3.11 marks them
    return function


def _load(state: Any, context: Any) -> None:
    try:
        origin = context.execution_options[ORIGIN]
    except KeyError:
        return
    origin.objects += 1
    state._verdigris_origin = origin  # noqa: SLF001 - an attribute of ours: the object remembers its query
