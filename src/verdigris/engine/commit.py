"""COMMIT, told as it was: run to its answer although the caller is cancelled, and what each answer means."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from verdigris.errors import CommitRefusedError, OutcomeUnknownError, classify

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator

# A server that answers COMMIT with one of these did not say what became of the transaction.
UNANSWERED = ("08", "57P01", "57P02", "40003")
_MET_COMMIT = "__verdigris_met_commit__"


class ToItsEnd:
    """Await a coroutine of asyncpg to its end; a cancellation that arrives meanwhile is kept, for the caller to raise.

    What `shield(create_task(...))` does at ten times the cost. It follows the protocol by which asyncio awaits futures
    that are not its own (`asyncio.isfuture`): this object stands in for the driver's future, which wakes the task, and
    answers to `cancel()` that it will be so.
    """

    __slots__ = ("_asyncio_future_blocking", "add_done_callback", "cancelled", "coroutine", "done", "get_loop")

    def __init__(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.coroutine = coroutine
        self.cancelled: asyncio.CancelledError | None = None

    def __await__(self) -> Generator[Any, Any, Any]:
        resume = self.coroutine.send
        try:
            while True:
                future = resume(None)
                future._asyncio_future_blocking = False  # noqa: SLF001 - the protocol: set by one that yields itself
                self._asyncio_future_blocking = True
                self.add_done_callback, self.get_loop, self.done = (
                    future.add_done_callback,
                    future.get_loop,
                    future.done,  # anyio asks before it cancels again
                )
                yield self
        except StopIteration as done:
            return done.value

    def cancel(self, msg: Any = None) -> bool:
        """Keep a cancellation of the task that waits; it takes it as delivered."""
        self.cancelled = asyncio.CancelledError() if msg is None else asyncio.CancelledError(msg)
        return True


def outcome(failure: Exception | None) -> str:
    """Say in words what became of a transaction whose COMMIT failed so, or did not."""
    if failure is None:
        return "the work is stored"
    return "its outcome is unknown" if isinstance(failure, OutcomeUnknownError) else "nothing was stored"


def marked(cancelled: asyncio.CancelledError, failure: Exception | None) -> asyncio.CancelledError:
    """Note on a cancellation what became of the COMMIT that it met."""
    cancelled.add_note(f"It came while COMMIT was under way: {outcome(failure)}.")
    cancelled.__cause__ = failure
    setattr(cancelled, _MET_COMMIT, True)
    return cancelled


def is_stored(error: BaseException) -> bool:
    """Tell whether a cancellation came after the COMMIT that it met had been answered: the work is stored."""
    return getattr(error, _MET_COMMIT, False) is True and error.__cause__ is None


def is_unknown(error: BaseException) -> bool:
    """Tell whether a cancellation met a COMMIT that got no answer."""
    return getattr(error, _MET_COMMIT, False) is True and isinstance(error.__cause__, OutcomeUnknownError)


def outcome_unknown(error: Exception) -> OutcomeUnknownError:
    """Return the error for a COMMIT that got no answer, because of another."""
    unknown = OutcomeUnknownError(
        "COMMIT was sent and no answer came back: the work may be stored, or not.",
        why="Repeating it blindly could do it twice.",
        do=[
            "Let the server be asked what became of it (one more round trip a unit):",
            "  await db.transaction(work, resolve=True)",
            "or make the work idempotent and say so:",
            "  await db.transaction(work, idempotent=True)",
        ],
        page="errors/retry-transient",
    )
    unknown.__cause__ = error
    return unknown


def refused(failed: BaseException | None) -> CommitRefusedError:
    """Return the error for a COMMIT that was answered with ROLLBACK, after the error that aborted the transaction."""
    fault = classify(failed) if failed is not None else None
    earlier = f"an earlier error ({fault.sqlstate} {fault.name})" if fault and fault.sqlstate else "an earlier error"
    error = CommitRefusedError(
        "PostgreSQL answered COMMIT with ROLLBACK: nothing of this transaction was stored.",
        why=f"In it {earlier} was caught and not raised again; after it PostgreSQL takes nothing more.",
        do=[
            "Let the error out of the transaction, or catch it around a savepoint:",
            "  async with session.begin_nested(): ...",
        ],
        page="errors/rollback-then-raise",
    )
    error.__cause__ = failed
    return error
