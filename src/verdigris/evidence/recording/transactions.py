"""Transactions: what was begun, committed, rolled back, and committed after an error had already undone it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.failures import failed
from verdigris.evidence.recording.keys import KEY

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.recording.recorder import Recorder
    from verdigris.evidence.recording.units import Checkout, EngineState


class TransactionWatch:
    """Records the ends of transactions."""

    def __init__(self, recorder: Recorder) -> None:
        self.recorder = recorder

    def overrides(self, state: EngineState) -> dict[str, Callable[[Any], Any]]:
        """Return what goes onto an engine's dialect."""
        return {
            "do_begin": self._begin,
            "do_commit": self._commit,
            "do_rollback": self._rollback,
            "do_rollback_to_savepoint": self._rollback_to_savepoint,
            "do_release_savepoint": self._release_savepoint,
        }

    def _begin(self, original: Any) -> Any:
        def do_begin(connection: Any) -> Any:
            checkout = checkout_of(connection)
            if checkout is not None:
                checkout.begun, checkout.wrote, checkout.failure, checkout.pending = True, False, None, None
                if checkout.request is not None:
                    checkout.request.transactions += 1
            return original(connection)

        return do_begin

    def _commit(self, original: Any) -> Any:
        def do_commit(connection: Any) -> Any:
            checkout = checkout_of(connection)
            try:
                result = original(connection)
            except Exception as error:
                try:
                    self._commit_failed(checkout, error)
                except Exception as trouble:  # noqa: BLE001 - a recorder's error never reaches the application
                    self.recorder.trouble("a failed commit", trouble)
                raise
            try:
                if checkout is not None:
                    self._committed(checkout)
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a commit", error)
            return result

        return do_commit

    def _committed(self, checkout: Checkout) -> None:
        checkout.begun = False
        if checkout.failure is not None:
            checkout.failure.swallowed += 1
        elif checkout.unit.failures:
            for failure in checkout.unit.failures:
                failure.repeated = failure.repeated or int(not failure.swallowed)
        if checkout.request is not None and checkout.wrote:
            checkout.request.writing += 1
        if checkout.pending and self.recorder.tests is not None and checkout.failure is None:
            url = checkout.engine.facts["url"] if checkout.engine is not None else ""
            self.recorder.tests.committed(url, checkout.pending)
        checkout.pending = None
        checkout.failure = None

    def _commit_failed(self, checkout: Checkout | None, error: Exception) -> None:
        unit = self.recorder.units.unit()
        failed(self.recorder, unit, error, self.recorder.places.here())
        if checkout is not None:
            checkout.begun = False
            if checkout.answered and checkout.request is not None:
                checkout.request.lost += 1

    def _rollback(self, original: Any) -> Any:
        def do_rollback(connection: Any) -> Any:
            checkout = checkout_of(connection)
            if checkout is not None:
                checkout.begun, checkout.failure, checkout.pending = False, None, None
            return original(connection)

        return do_rollback

    def _rollback_to_savepoint(self, original: Any) -> Any:
        def do_rollback_to_savepoint(connection: Any, name: str) -> Any:
            try:
                checkout = checkout_of(connection.connection)
                if checkout is not None:
                    checkout.failure, checkout.pending = None, None
                    checkout.wrote = checkout.wrote and self.recorder.tests is None
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a savepoint", error)
            return original(connection, name)

        return do_rollback_to_savepoint

    def _release_savepoint(self, original: Any) -> Any:
        def do_release_savepoint(connection: Any, name: str) -> Any:
            result = original(connection, name)
            try:
                checkout = checkout_of(connection.connection) if self.recorder.tests is not None else None
                if checkout is not None:  # in a test's outer transaction, savepoints are the code's transactions
                    checkout.wrote = False
            except Exception as error:  # noqa: BLE001 - as above
                self.recorder.trouble("a savepoint", error)
            return result

        return do_release_savepoint


def checkout_of(connection: Any) -> Checkout | None:
    """Return what is noted of a connection's checkout."""
    try:
        found: Checkout | None = connection.info.get(KEY)
    except Exception:  # noqa: BLE001 - as above
        return None
    return found
