"""Effects outside the database that wait for the truth: run when COMMIT was answered, dropped when there is nothing."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import TYPE_CHECKING

from sqlalchemy import event

from verdigris._background import background
from verdigris.engine.commit import is_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.orm import Session, SessionTransaction

    Hook = Callable[[], object]

log = logging.getLogger("verdigris")


class AfterCommit:
    """The hooks of one session, each with the savepoint that it was given in (None: the transaction itself)."""

    __slots__ = ("due", "undecided", "waiting")

    def __init__(self, session: Session) -> None:
        self.waiting: list[tuple[Hook, SessionTransaction | None]] = []
        self.due: list[Hook] = []
        self.undecided: list[Hook] = []  # of a transaction that ended otherwise than by an answered COMMIT
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_transaction_end", self._ended)

    def add(self, session: Session, hook: Hook) -> None:
        """Let a hook wait for the transaction in progress, or for the next one if there is none."""
        self.waiting.append((hook, session.get_nested_transaction()))

    def _committed(self, session: Session) -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            self.due += [hook for hook, _ in self.waiting]
            self.waiting = []
            return
        outer = savepoint.parent
        while outer is not None and not outer.nested:
            outer = outer.parent
        self.waiting = [(hook, outer if within is savepoint else within) for hook, within in self.waiting]

    def _ended(self, _session: Session, transaction: SessionTransaction) -> None:
        if transaction.nested:  # one that was released has passed its hooks on
            self.waiting = [(hook, within) for hook, within in self.waiting if within is not transaction]
        elif transaction.parent is None:
            self.undecided = [hook for hook, _ in self.waiting]
            self.waiting = []

    def stored(self) -> None:
        """Make the hooks of a transaction due whose COMMIT seemed to fail: it is known to be stored."""
        self.due, self.undecided = [*self.due, *self.undecided], []

    async def settle(self, error: BaseException | None) -> None:
        """Run what a method has made due; after a cancellation that met COMMIT, without being waited for."""
        if error is not None and is_stored(error):
            self.stored()
            self.start()
        elif self.due:
            await self.run()

    async def run(self) -> None:
        """Run what is due, to its end also if the caller is cancelled meanwhile."""
        if self.due:
            await asyncio.shield(self.start())

    def start(self) -> asyncio.Task[None]:
        """Start what is due in a task of its own."""
        due, self.due = self.due, []
        return background(_run(due))


async def _run(hooks: Sequence[Hook]) -> None:
    for hook in hooks:
        try:
            result = hook()
            if inspect.isawaitable(result):
                await result
        except Exception:  # what is stored stays stored, and the others have their turn
            log.exception("an after_commit hook failed; what it waited for is stored")
