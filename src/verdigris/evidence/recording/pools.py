"""Pools: how long a checkout waits, how long it is held, and who never gives it back."""

from __future__ import annotations

from asyncio import _get_running_loop
from functools import partial
from time import perf_counter_ns
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.failures import failed
from verdigris.evidence.recording.keys import KEY, LOOP
from verdigris.evidence.recording.places import getcurrent, whose
from verdigris.evidence.recording.units import Checkout, EngineState

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

    from verdigris.evidence.recording.recorder import Recorder

_LATE_NS = 1_000_000_000


class PoolWatch:
    """Records checkouts."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder
        self.raw: dict[int, Checkout] = {}  # by driver connection
        self._spent: dict[int, int] = {}  # by greenlet: what of a checkout's time went into connecting and pinging
        self._timeout: type[BaseException] = TimeoutError

    def attach(self, sqlalchemy: ModuleType) -> None:
        """Start recording; the argument is the imported package."""
        from sqlalchemy import event, exc
        from sqlalchemy.pool import Pool

        self._timeout = exc.TimeoutError
        patches = self.recorder.patches
        patches.method(Pool, "connect", self._pool_connect)
        for name, function in (("checkin", self._checkin), ("detach", self._detach), ("invalidate", self._invalidate)):
            event.listen(Pool, name, function)
            patches.later(partial(event.remove, Pool, name, function))

    def overrides(self, state: EngineState) -> dict[str, Callable[[Any], Any]]:
        """Return what goes onto an engine's dialect: what of a checkout's time is no waiting."""
        return {
            "connect": lambda original: self._connect(state, original),
            "do_ping": lambda original: self._ping(state, original),
            "initialize": lambda original: self._initialize(state, original),
        }

    def forget(self) -> None:
        """Drop what is checked out."""
        self.raw.clear()

    def _pool_connect(self, original: Any) -> Any:
        def connect(pool: Any) -> Any:
            me = id(getcurrent())
            self._spent.pop(me, None)
            start = perf_counter_ns()
            try:
                fairy = original(pool)
            except Exception as error:
                try:
                    self._not_connected(pool, error, perf_counter_ns() - start)
                except Exception as trouble:  # noqa: BLE001 - a recorder's error never reaches the application
                    self.recorder.trouble("a failed checkout", trouble)
                raise
            finally:
                spent = self._spent.pop(me, 0)
            try:
                self._checked_out(pool, fairy, max(0, perf_counter_ns() - start - spent))
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a checkout", error)
            return fairy

        return connect

    def _checked_out(self, pool: Any, fairy: Any, waited: int) -> None:
        recorder = self.recorder
        if recorder.begins is not None:
            recorder.begins()
        state: EngineState | None = pool._dialect.__dict__.get(KEY)  # noqa: SLF001 - a pool has no public way to its engine
        unit = recorder.units.unit()
        checkout = Checkout(state, unit, recorder.places.here())
        checkout.pooled = state is not None and state.owns(pool)
        fairy.info[KEY] = checkout
        unit.holding += 1
        if checkout.request is not None:
            checkout.request.checkouts[id(checkout)] = checkout
        elif not unit.listed:
            recorder.units.list(unit)
        checkout.raw = id(fairy.driver_connection)
        self.raw[checkout.raw] = checkout
        loop = _get_running_loop()
        if fairy.info.setdefault(LOOP, id(loop)) != id(loop) and state is not None and state.facts["is_async"]:
            state.crossings[checkout.spot] = state.crossings.get(checkout.spot, 0) + 1
        if state is not None:
            if checkout.pooled:
                with recorder.ledger.lock:
                    state.waits.add(waited)
                    state.in_use += 1
                    state.high_water = max(state.high_water, state.in_use)
                    state.requests_max = max(state.requests_max, recorder.active_requests)
            if recorder.tests is not None:
                recorder.tests.used(state.facts["url"])

    def _not_connected(self, pool: Any, error: Exception, waited: int) -> None:
        state: EngineState | None = pool._dialect.__dict__.get(KEY)  # noqa: SLF001 - as above
        if state is not None and isinstance(error, self._timeout):
            state.timeouts += 1
            state.waits.add(waited)
        failed(self.recorder, self.recorder.units.unit(), error, self.recorder.places.here())

    def _checkin(self, dbapi_connection: Any, record: Any) -> None:
        try:
            checkout = record.info.pop(KEY, None)
            if checkout is not None:
                self._returned(checkout, collected=False)
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a checkin", error)

    def _detach(self, dbapi_connection: Any, record: Any) -> None:
        try:
            checkout = record.info.pop(KEY, None)
            if checkout is not None:
                self._returned(checkout, collected=record.fairy_ref is None)
        except Exception as error:  # noqa: BLE001 - as above
            self.recorder.trouble("a detached connection", error)

    def _invalidate(self, dbapi_connection: Any, record: Any, exception: BaseException | None) -> None:
        checkout = record.info.get(KEY)
        if checkout is not None and checkout.engine is not None:
            checkout.engine.invalidated += 1

    def _returned(self, checkout: Checkout, *, collected: bool) -> None:
        recorder, state, request, unit = self.recorder, checkout.engine, checkout.request, checkout.unit
        now = perf_counter_ns()
        elapsed = now - checkout.since
        self.raw.pop(checkout.raw, None)
        if state is not None and checkout.pooled:
            with recorder.ledger.lock:
                state.in_use -= 1
                state.held.add(elapsed)
                if elapsed > state.holder_ns:
                    state.holder_ns, state.holder = elapsed, checkout.spot
        unit.holding -= 1
        if request is not None:
            request.checkouts.pop(id(checkout), None)
            request.connection_ns += elapsed
            late = request.ended and now - request.ended > _LATE_NS
            if collected or (late and recorder.requests.left(checkout)):
                recorder.leaked(request, checkout)
        if unit.holding <= 0 and unit.sessions <= 0:
            recorder.fold(unit)

    def _connect(self, state: EngineState, original: Any) -> Any:
        def connect(*args: Any, **kwargs: Any) -> Any:
            start = perf_counter_ns()
            try:
                return original(*args, **kwargs)
            finally:
                elapsed = perf_counter_ns() - start
                self._spend(elapsed)
                state.connects += 1
                state.longest_connect = max(state.longest_connect, elapsed)

        return connect

    def _ping(self, state: EngineState, original: Any) -> Any:
        def do_ping(dbapi_connection: Any) -> Any:
            start = perf_counter_ns()
            try:
                return original(dbapi_connection)
            finally:
                state.pings += 1
                self._spend(perf_counter_ns() - start)

        return do_ping

    def _initialize(self, state: EngineState, original: Any) -> Any:
        def initialize(connection: Any) -> Any:
            start = perf_counter_ns()
            state.muted.add(me := whose())  # the dialect's own questions are not the application's
            try:
                return original(connection)
            finally:
                state.muted.discard(me)
                self._spend(perf_counter_ns() - start)

        return initialize

    def _spend(self, elapsed: int) -> None:
        me = id(getcurrent())
        self._spent[me] = self._spent.get(me, 0) + elapsed
