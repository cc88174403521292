"""Sessions: who opened them, whether they were closed, and who was inside one that another task was inside of."""

from __future__ import annotations

import asyncio
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.keys import KEY, ORIGIN
from verdigris.evidence.recording.loads import LOAD_OPTIONS, STATEMENTS, TOP_LEVEL
from verdigris.evidence.recording.places import awaited, getcurrent
from verdigris.evidence.recording.units import Origin

if TYPE_CHECKING:
    from types import ModuleType

    from verdigris.evidence.recording.places import Spot
    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.units import Unit

_WATCHED = ("flush", "commit", "rollback", "refresh", "get", "get_one")
_MEASURED = frozenset({"flush", "close", "commit"})


class SessionTotal:
    """Sessions of one site."""

    __slots__ = ("abandoned", "closed", "commits", "created", "identity_max", "reopened", "rollbacks", "used")

    def __init__(self) -> None:
        self.created = self.used = self.closed = self.abandoned = self.reopened = self.identity_max = 0
        self.commits = self.rollbacks = 0


class SessionState:
    """One session."""

    __slots__ = ("begun", "busy", "closed", "key", "operation", "ref", "single", "spot", "total", "unit", "visitors")

    def __init__(self, session: Any, unit: Unit, spot: Spot | None, key: tuple[Any, ...], total: SessionTotal) -> None:
        self.ref = weakref.ref(session)
        self.unit = unit
        self.spot = spot
        self.key = key
        self.total = total
        self.begun = self.closed = False
        self.single = False  # whether it lives for one transaction, with which `async with factory.begin()` ends
        self.busy: Any = None  # the greenlet that is in the session; a thread without one is its main one
        self.visitors: set[Any] = set()
        self.operation = ""


class SessionWatch:
    """Records sessions."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.totals: dict[tuple[Any, ...], SessionTotal] = {}
        self.open: dict[int, SessionState] = {}
        self.overlaps: dict[tuple[Any, ...], list[Any]] = {}

    def attach(self, orm: ModuleType) -> None:
        """Start recording; the argument is `sqlalchemy.orm`."""
        from sqlalchemy import event

        recorder, session = self.recorder, orm.Session
        recorder.factories.attach(orm.sessionmaker, scoped=orm.scoped_session)
        recorder.loads.attach(orm)
        patches = recorder.patches
        patches.method(session, "__init__", self._session_init)
        patches.method(session, "close", self._close)
        for name in _WATCHED:
            patches.method(session, name, partial(self._watched, operation=name))
        for name in STATEMENTS:
            patches.method(session, name, partial(self._stamping, operation=name))
        for name in ("after_begin", "after_commit", "after_rollback", "after_transaction_end"):
            function = getattr(self, f"_{name}")
            event.listen(session, name, function)
            patches.later(partial(event.remove, session, name, function))

    def attach_async(self, asyncio_package: ModuleType) -> None:
        """Start recording the async classes too; the argument is `sqlalchemy.ext.asyncio`."""
        recorder, package = self.recorder, asyncio_package
        recorder.factories.attach(package.async_sessionmaker, scoped=package.async_scoped_session)
        recorder.loads.attach_async(package)
        recorder.patches.method(package.AsyncSession, "__init__", self._async_session_init)
        recorder.patches.method(package.async_sessionmaker, "begin", self._factory_begin)

    def forget(self) -> None:
        """Drop what the sessions did."""
        for total in self.totals.values():
            total.__init__()  # type: ignore[misc]  # as new, for the sessions that point at it
        self.open.clear()
        self.overlaps.clear()

    def _session_init(self, original: Any) -> Any:
        def __init__(session: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - what it stands in for
            original(session, *args, **kwargs)
            try:
                self._opened(session, type(session), is_async=False)
            except Exception as error:  # noqa: BLE001 - a recorder's error never reaches the application
                self.recorder.trouble("a session's construction", error)

        return __init__

    def _async_session_init(self, original: Any) -> Any:
        def __init__(session: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - as above
            original(session, *args, **kwargs)
            try:
                self._opened(session.sync_session, type(session), is_async=True)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("an async session's construction", error)

        return __init__

    def _factory_begin(self, original: Any) -> Any:
        def begin(maker: Any) -> Any:
            block = original(maker)
            try:
                state: SessionState | None = block.async_session.sync_session.__dict__.get(KEY)
                if state is not None:
                    state.single = True
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a factory's begin", error)
            return block

        return begin

    def _opened(self, session: Any, kind: type, *, is_async: bool) -> None:
        state: SessionState | None = session.__dict__.get(KEY)
        spot = state.spot if state is not None else self.recorder.places.here()
        key = (spot, None, kind, is_async, session.expire_on_commit, session.autoflush)
        if state is not None:  # the sync session within an async one: counted as the async one
            self.recount(state, key)
            return
        total = self._total(key)
        total.created += 1
        session.__dict__[KEY] = SessionState(session, self.recorder.units.unit(), spot, key, total)

    def recount(self, state: SessionState, key: tuple[Any, ...]) -> None:
        """Count a session among others than those it was first counted with."""
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

    def _after_transaction_end(self, session: Any, transaction: Any) -> None:
        """End a session of `factory.begin()` with its transaction: where COMMIT fails, SQLAlchemy does not close it."""
        state: SessionState | None = session.__dict__.get(KEY)
        if state is None or not state.single or state.closed or transaction.parent is not None:
            return
        try:
            self._closed(session, state)
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a transaction's end", error)

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
        if unit.sessions <= 0 and unit.holding <= 0:
            self.recorder.fold(unit)

    def _watched(self, original: Any, operation: str) -> Any:
        measures = operation in _MEASURED

        def call(session: Any, *args: Any, **kwargs: Any) -> Any:
            state: SessionState | None = session.__dict__.get(KEY)
            if state is None:
                return original(session, *args, **kwargs)
            current = getcurrent()
            if state.busy is not None:
                if state.busy is current:  # an autoflush, most often
                    return original(session, *args, **kwargs)
                return self._within(state, current, operation, original, session, *args, **kwargs)
            state.busy = current
            state.operation = operation
            if measures:
                state.total.identity_max = max(state.total.identity_max, len(session.identity_map))
            try:
                return original(session, *args, **kwargs)
            finally:
                state.busy = None

        return call

    def _stamping(self, original: Any, operation: str) -> Any:
        """Record who is in the session, and tell the driver's call and the loaded objects which query they are of."""
        recorder = self.recorder
        here, loads = recorder.places.here, recorder.loads

        def call(session: Any, statement: Any, *args: Any, **kwargs: Any) -> Any:
            state: SessionState | None = session.__dict__.get(KEY)
            if state is None:
                return original(session, statement, *args, **kwargs)
            try:
                options = kwargs.get("execution_options")
                if not options:
                    kwargs["execution_options"] = {ORIGIN: Origin(here() or recorder.spot(recorder.units.unit()))}
                else:
                    origin = options.get(ORIGIN)
                    if origin is None or origin.spot is None or LOAD_OPTIONS in options or TOP_LEVEL in options:
                        kwargs["execution_options"] = {**options, ORIGIN: loads.origin(session, statement, options)}
            except Exception as error:  # noqa: BLE001 - as above
                recorder.trouble("a session's statement", error)
            current = getcurrent()
            if state.busy is not None:
                return self._within(state, current, operation, original, session, statement, *args, **kwargs)
            state.busy = current
            state.operation = operation
            try:
                return original(session, statement, *args, **kwargs)
            finally:
                state.busy = None

        return call

    def _within(self, state: SessionState, me: Any, operation: str, original: Any, *args: Any, **kwargs: Any) -> Any:
        """Go on in a session that somebody is in: this very greenlet (an autoflush, most often), or another's task."""
        if state.busy is me or me in state.visitors or _is_same_task(state.busy, me):
            return original(*args, **kwargs)
        self._overlap(state, operation)
        state.visitors.add(me)
        try:
            return original(*args, **kwargs)
        finally:
            state.visitors.discard(me)

    def _overlap(self, state: SessionState, operation: str) -> None:
        try:
            recorder = self.recorder
            unit = recorder.units.unit()
            waiting = recorder.places.waiting
            there = waiting(_task_of(state.busy)) or waiting(unit.parent() if unit.parent else None)
            key = (there, recorder.spot(unit), state.operation, operation, state.spot)
            found = self.overlaps.setdefault(key, [0, None])
            found[0] += 1
            found[1] = unit.request if found[1] is None else found[1]
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("an overlap", error)

    def abandoned(self) -> dict[tuple[Any, ...], int]:
        """Count the open sessions that nobody can close any more, or whose request is over."""
        found: dict[tuple[Any, ...], int] = {}
        for state in list(self.open.values()):
            request = state.unit.request
            if state.ref() is None or (request is not None and request.ended):
                found[state.key] = found.get(state.key, 0) + 1
        return found


def _is_same_task(one: Any, other: Any) -> bool:
    """Tell whether two greenlets work for one task: SQLAlchemy's share its context."""
    try:
        return one.gr_context is not None and one.gr_context is other.gr_context
    except Exception:  # noqa: BLE001 - another thread's greenlet does not say
        return False


def _task_of(greenlet: Any) -> asyncio.Task[Any] | None:
    """Return the task that waits for a greenlet of SQLAlchemy's: the one in whose coroutine it is a local."""
    for task in asyncio.all_tasks():
        if any(greenlet is value for frame in awaited(task) for value in frame.f_locals.values()):
            return task
    return None
