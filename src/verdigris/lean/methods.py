"""Methods of the session that do less than SQLAlchemy's where nobody can tell: no engine, no greenlet, no task.

A session without `lean` has none of these ways: it is one of a `Database(shortcuts=False)`, or of a sandbox.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import PendingRollbackError
from sqlalchemy.ext.asyncio import AsyncSession as _AsyncSession
from sqlalchemy.ext.asyncio import AsyncSessionTransaction as _AsyncTransaction
from sqlalchemy.orm.session import SessionTransactionState

from verdigris.lean import ending
from verdigris.lean.closing import close_at_once, closes_at_once, nothing_to_commit
from verdigris.lean.reads import NOT_RUN
from verdigris.lean.session_listeners import OF_TRANSACTION

if TYPE_CHECKING:
    from types import TracebackType

    from verdigris.session import AsyncSession, Transaction

_ENDED_BY_AN_ERROR = SessionTransactionState.DEACTIVE


async def execute(self: AsyncSession, statement: Any, *params: Any, **options: Any) -> Any:
    """Do what SQLAlchemy's does, and return a result that is buffered as it is there."""
    if self._lean is not None and not (any(params) or any(options.values())):
        result = await self._lean.run(self.sync_session, statement, alone=self._alone)
        if result is not None:
            return result
    return await _AsyncSession.execute(self, statement, *params, **options)


async def scalar(self: AsyncSession, statement: Any, *params: Any, **options: Any) -> Any:
    """Do what SQLAlchemy's does."""
    if self._lean is not None and not (any(params) or any(options.values())):
        value = await self._lean.scalar(self.sync_session, statement, alone=self._alone)
        if value is not NOT_RUN:
            return value
    return await _AsyncSession.scalar(self, statement, *params, **options)


async def get(self: AsyncSession, entity: Any, ident: Any, **options: Any) -> Any:
    """Do what SQLAlchemy's does; what is in the session already, expired or not, is left to it."""
    if self._lean is not None and not options:
        found = await self._lean.get(self.sync_session, entity, ident, alone=self._alone)
        if found is not NOT_RUN:
            return found
    return await _AsyncSession.get(self, entity, ident, **options)


async def commit(self: AsyncSession) -> None:
    """Do what SQLAlchemy's does, and nothing where that is what it would come to."""
    if self._lean is not None:
        if (self._unused and not self._guard.closed) or nothing_to_commit(self.sync_session):
            return
        if self._guard.enabled and await ending.commit_at_once(self.sync_session):
            return
    await _AsyncSession.commit(self)


async def close(self: AsyncSession) -> None:
    """Do what SQLAlchemy's does, without a greenlet where nothing is waited for, or ROLLBACK of a lean transaction."""
    if self._unused:
        return  # when it is built it will know that it is closed
    if self._lean is None:
        await _AsyncSession.close(self)
    elif closes_at_once(self.sync_session):
        close_at_once(self.sync_session)
    elif (held := ending.closes_lean(self.sync_session)) is not None:
        await ending.close(self.sync_session, held)
    else:
        await _AsyncSession.close(self)


async def start(self: Transaction, is_ctxmanager: bool = False) -> Transaction:  # noqa: FBT001, FBT002 - SQLAlchemy's
    """Do what SQLAlchemy's does, which waits for nothing unless it is for a savepoint, or a listener."""
    session = self.session.sync_session
    if self.nested or not self._short or OF_TRANSACTION.any(session):
        await _AsyncTransaction.start(self, is_ctxmanager)
        return self
    self.sync_transaction = self._assign_proxied(session.begin())
    if is_ctxmanager:
        self.sync_transaction.__enter__()
    return self


async def leave(
    self: Transaction, type_: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
) -> None:
    """Do what SQLAlchemy's does, with COMMIT awaited first where that is all to wait for.

    A block whose transaction, or savepoint, was ended by a failed flush that was caught inside stores nothing of what
    it wrote. SQLAlchemy leaves it as if it had; this raises PendingRollbackError, as its `commit()` does, and as
    PostgreSQL refuses RELEASE where another statement failed. Around a savepoint's block the transaction goes on.
    """
    inner, session = self.sync_transaction, self.session.sync_session
    if type_ is None and inner is not None and inner._state is _ENDED_BY_AN_ERROR:
        try:
            inner.commit()  # raises, with the error that ended it
        except PendingRollbackError as error:
            await _AsyncTransaction.__aexit__(self, PendingRollbackError, error, error.__traceback__)
            raise
    alone = self._short and type_ is None and session._transaction is inner and self._guard.enabled
    finish = None if inner is None else partial(inner.__exit__, None, None, None)
    if not (alone and await ending.commit_at_once(session, finish)):
        await _AsyncTransaction.__aexit__(self, type_, value, traceback)
