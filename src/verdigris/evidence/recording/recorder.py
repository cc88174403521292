"""The recorder: attached class-wide, it watches every engine, session and request of this process."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from verdigris.evidence.failure import EvidenceError
from verdigris.evidence.recording.copies import CopyWatch
from verdigris.evidence.recording.engines import EngineWatch
from verdigris.evidence.recording.executions import ExecutionWatch
from verdigris.evidence.recording.factories import FactoryWatch
from verdigris.evidence.recording.ledger import Ledger
from verdigris.evidence.recording.loads import LoadWatch
from verdigris.evidence.recording.patches import Arrivals, Patches
from verdigris.evidence.recording.places import Places, Spot
from verdigris.evidence.recording.pools import PoolWatch
from verdigris.evidence.recording.requests import RequestWatch
from verdigris.evidence.recording.sessions import SessionWatch
from verdigris.evidence.recording.suites import TestRun
from verdigris.evidence.recording.transactions import TransactionWatch
from verdigris.evidence.recording.units import Checkout, Failure, RequestState, Text, Unit, Units, task_is_done

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verdigris.evidence.recording.artefact import Recording

_active: Recorder | None = None


class Recorder:
    """Watches this process from `start` to `stop`; `artefact` tells what it has seen, at any time.

    The application is what lies under `root`. An error of the recorder itself is counted and told in the artefact; it
    never reaches the application.
    """

    def __init__(self, root: Path | str) -> None:
        self.root = Path(root).resolve()
        self.places = Places(self.root)
        self.units = Units()
        self.ledger = Ledger()
        self.patches = Patches()
        self.texts: dict[str, Text] = {}
        self.plans: dict[Text, str] = {}  # the first node of each EXPLAIN's answer
        self.tests: TestRun | None = None
        self.active_requests = 0
        self.begins: Callable[[], None] | None = None  # told once, when there is something to record
        self.troubles: dict[tuple[str, str], int] = {}
        self.executions = ExecutionWatch(self)
        self.transactions = TransactionWatch(self)
        self.pools = PoolWatch(self)
        self.engines = EngineWatch(self)
        self.factories = FactoryWatch(self)
        self.loads = LoadWatch(self)
        self.sessions = SessionWatch(self)
        self.requests = RequestWatch(self)
        self.copies = CopyWatch(self)
        self.started = datetime.now(UTC)
        self.clock = perf_counter()
        self.units.crowded = self._fold_ended
        self._arrivals = Arrivals(
            {
                "sqlalchemy": self.engines.attach,
                "sqlalchemy.orm": self.sessions.attach,
                "sqlalchemy.ext.asyncio": self.sessions.attach_async,
                "starlette.applications": self.requests.attach,
                "asyncpg": self.copies.attach,
            }
        )

    def start(self) -> None:
        """Attach to what is imported and to what will be; one recorder at a time."""
        global _active  # noqa: PLW0603 - classes are patched once per process
        if _active is not None:
            raise EvidenceError(
                "This process is being recorded already.",
                why="Statements are recorded by overriding methods of classes, which two recorders cannot both do.",
                do=("Use the recording that runs:   recording.active()",),
            )
        _active = self
        self._arrivals.start()

    def stop(self) -> None:
        """Detach; what was seen stays."""
        global _active  # noqa: PLW0603 - as above
        self._arrivals.stop()
        self.patches.restore()
        if _active is self:
            _active = None

    def artefact(self) -> Recording:
        """Return what was seen so far."""
        from verdigris.evidence.recording.build import build

        return build(self)

    def testing(self) -> TestRun:
        """Say that this process runs tests."""
        if self.tests is None:
            self.tests = TestRun()
            self.units.of_test = partial(self.tests.runs, self.places)
        return self.tests

    def forget(self) -> None:
        """Start anew, attached as it is: in a forked child, which inherits what its parent saw."""
        self.ledger = Ledger()
        self.units.alone.clear()
        self.troubles.clear()
        self.active_requests = 0
        self.engines.forget()
        self.pools.forget()
        self.factories.forget()
        self.sessions.forget()
        self.requests.suspects.clear()
        if self.tests is not None:
            self.tests = TestRun()
            self.units.of_test = partial(self.tests.runs, self.places)

    # For the watches

    def spot(self, unit: Unit) -> Spot | None:
        """Return the application's spot, or where the application waits for the task that it started."""
        spot = self.places.here()
        if spot is None and unit.parent is not None:
            return self.places.waiting(unit.parent())
        return spot

    def fold(self, unit: Unit) -> None:
        """Add the work of a unit to the totals when its last session closes, unless its request will."""
        request = unit.request
        if request is None:
            self.ledger.unit(unit)
            self.units.alone.discard(unit)
            unit.listed = False
        elif request.goes_on and not request.ended:
            self.requests.name(request)
            self.ledger.part(unit, request)

    def _fold_ended(self) -> None:
        """Fold the units of tasks that ended while a session or connection of another task's stays open."""
        for unit in list(self.units.alone):
            if not unit.threaded and task_is_done(unit):
                self.fold(unit)

    def leaked(self, request: RequestState, checkout: Checkout) -> None:
        """Count a connection that nobody returned before its request was over."""
        self.requests.suspects = [(owner, other) for owner, other in self.requests.suspects if other is not checkout]
        if request.ended:
            self.ledger.leak(request.label, checkout.spot)
        else:
            request.left.append(checkout.spot)

    def escaped(self, request: RequestState) -> None:
        """Count an exception of the database layer that came out of the application and was not the driver's."""
        error = request.escaped
        if error is None or hasattr(error, "orig") or type(error).__name__ == "TimeoutError":
            return
        if type(error).__module__.partition(".")[0] in {"sqlalchemy", "verdigris"}:
            with self.ledger.lock:
                self.ledger.failure(Failure(type(error).__name__, None, None), request.label, request.status)

    def trouble(self, where: str, error: BaseException) -> None:
        """Count an error of the recorder itself."""
        key = (where, f"{type(error).__name__}: {error}"[:300])
        if key in self.troubles or len(self.troubles) < 50:
            self.troubles[key] = self.troubles.get(key, 0) + 1
        if "VERDIGRIS_RECORDING_DEBUG" in os.environ:
            raise error


def active() -> Recorder | None:
    """Return the recorder of this process, if one is at work."""
    return _active


@contextmanager
def record(root: Path | str) -> Iterator[Recorder]:
    """Record this process within the block; `recorder.artefact()` may be asked inside and after it."""
    recorder = Recorder(root)
    recorder.start()
    try:
        yield recorder
    finally:
        recorder.stop()
