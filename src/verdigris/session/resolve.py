"""What became of a COMMIT that got no answer: PostgreSQL knows, if the same server is asked for the transaction."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from verdigris._background import background
from verdigris.engine.commit import is_unknown
from verdigris.errors import OutcomeUnknownError, TransactionLostError, sqlstate_of
from verdigris.errors.classify import FAILURES

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from verdigris.session import AsyncSession

log = logging.getLogger("verdigris")
_PAUSE = 0.05
_PATIENCE = 0.5  # then the backend that still holds the transaction, and has no client any more, is ended
_ABORTED, _FUTURE = "25P02", "22023"

# A standby that was promoted goes on under another timeline, and need not know the transaction. A server that crashed
# keeps its timeline but may give the id to another transaction, if nothing of ours had reached the disk; its statistics
# start anew, at the time of the crash.
_MARK = text("""
    SELECT pg_current_xact_id()::text AS xid,
           (SELECT system_identifier FROM pg_control_system())::text
               || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) AS primary_server,
           (SELECT coalesce(stats_reset::text, '') FROM pg_stat_bgwriter) AS life
""")
_ASK = text("""
    SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE
               (SELECT system_identifier FROM pg_control_system())::text
                   || '/' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) END AS primary_server,
           (SELECT coalesce(stats_reset::text, '') FROM pg_stat_bgwriter) AS life
""")
_STATUS = text("SELECT pg_xact_status(CAST(:xid AS text)::xid8)")
_END = text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_xid = (CAST(:xid AS text)::xid8)::xid"
)


class Mark(NamedTuple):
    """A transaction, as one asks for it later: its id, the server that gave it, and since when that server lives."""

    xid: str
    server: str
    life: str


class Resolver:
    """Asks what became of transactions, for at most so many seconds each."""

    def __init__(self, engine: AsyncEngine, seconds: float) -> None:
        self.engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self.seconds = seconds

    async def mark(self, session: AsyncSession) -> Mark | None:
        """Give the session's transaction an id, in one round trip; None if the transaction has failed already."""
        try:
            return Mark(*(await session.execute(_MARK)).one())
        except DBAPIError as error:
            if sqlstate_of(error) != _ABORTED:
                raise
            return None  # COMMIT says it better

    async def is_stored(self, mark: Mark) -> bool | None:
        """Return whether the transaction is stored; None if nobody can tell within the time."""
        clock = asyncio.get_running_loop().time
        began = clock()
        while (left := began + self.seconds - clock()) > 0:
            try:
                async with asyncio.timeout(left):
                    status = await self._status(mark, end=clock() - began > _PATIENCE)
            except FAILURES:
                status = "unreachable"
            if status not in {"in progress", "unreachable"}:
                return {"committed": True, "aborted": False}.get(status)
            await asyncio.sleep(_PAUSE)
        return None

    async def _status(self, mark: Mark, *, end: bool) -> str:
        async with self.engine.connect() as connection:
            server, life = (await connection.execute(_ASK)).one()
            if server != mark.server:
                return "another server"
            try:
                status = await connection.scalar(_STATUS, {"xid": mark.xid})
            except DBAPIError as error:
                if sqlstate_of(error) != _FUTURE or life == mark.life:
                    raise
                return "aborted"  # lost in the crash, with its id
            if status == "in progress" and end:
                await connection.execute(_END, {"xid": mark.xid})
        if status == "committed" and life != mark.life:
            return "of an earlier life"  # the id may have been given again
        return str(status)


async def commit_or_resolve(session: AsyncSession, resolver: Resolver | None) -> None:
    """Commit a unit of work; where no answer comes, close its session and find out.

    Returns if the work is stored. Raises TransactionLostError if it is known not to be, OutcomeUnknownError if nobody
    can tell, and whatever COMMIT itself says.
    """
    mark = await resolver.mark(session) if resolver is not None else None
    if resolver is None or mark is None:
        await session.commit()
        return
    try:
        await session.commit()
    except OutcomeUnknownError as unknown:
        await session.close()  # asking takes a connection: this unit's own has to be given back
        stored = await _asked(session, resolver, mark)
        if stored is None:
            raise
        if not stored:
            raise _lost() from unknown
    except asyncio.CancelledError as cancelled:
        if is_unknown(cancelled):
            background(_asked(session, resolver, mark))
        raise


async def _asked(session: AsyncSession, resolver: Resolver, mark: Mark) -> bool | None:
    """Ask, say it in the log, and let the hooks of a transaction that is stored run after all."""
    stored = await resolver.is_stored(mark)
    log.warning("COMMIT got no answer; asked later, the server says: %s", _WORDS[stored])
    after = session._guard.after  # noqa: SLF001 - one of ours
    if stored and after is not None:
        after.stored()
        await after.run()
    return stored


_WORDS = {True: "the work is stored", False: "it was rolled back", None: "nothing; the outcome stays unknown"}


def _lost() -> TransactionLostError:
    return TransactionLostError(
        "the connection was lost in COMMIT, and the server says that the transaction was rolled back.",
        why="Nothing was stored.",
        do=["Run the unit again; db.transaction() does so by itself, while its attempts last."],
        page="errors/retry-transient",
    )
