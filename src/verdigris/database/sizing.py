"""The arithmetic of the pool: what one worker may hold, given the server's own limit."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

DEFAULT_SIZE, DEFAULT_OVERFLOW = 5, 5  # until the server was asked
_MOST = 20  # of one worker: more connections than this make PostgreSQL slower, not faster

_LIMITS = text(
    "SELECT current_setting('max_connections')::int, current_setting('superuser_reserved_connections')::int"
    " + coalesce(current_setting('reserved_connections', true), '0')::int,"
    " (SELECT rolconnlimit FROM pg_roles WHERE rolname = current_user),"
    " (SELECT datconnlimit FROM pg_database WHERE datname = current_database())"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How many connections the server gives this role and database; `usable` is what is left after the reserve."""

    max_connections: int
    reserved: int
    role: int = -1
    database: int = -1

    @property
    def usable(self) -> int:
        own = [limit for limit in (self.role, self.database) if limit >= 0]
        return min([self.max_connections - self.reserved, *own])


@dataclass(frozen=True, slots=True)
class Size:
    """A pool's size for each of `workers` processes, and whether all of them fit at once."""

    size: int
    overflow: int
    workers: int
    limits: Limits
    chosen: bool  # by the user, not computed

    @property
    def total(self) -> float:
        """All connections that the processes may open together; infinite where overflow has no limit."""
        return inf if self.overflow < 0 else self.workers * (self.size + self.overflow)

    @property
    def fits(self) -> bool:
        return self.total <= self.limits.usable

    def __str__(self) -> str:
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        overflow = "any number of" if self.overflow < 0 else str(self.overflow)
        usable = (
            f"{self.limits.usable} usable connections ({self.limits.max_connections} - {self.limits.reserved} reserved)"
        )
        left = self.limits.usable - self.total
        if self.chosen:
            how = "as configured"
        elif left >= self.total:
            how = "half of them left to rolling deploys and other clients"
        else:
            how = f"{max(left, 0):g} of them left to rolling deploys and other clients, which need half"
        return f"{workers} x ({self.size} + {overflow} overflow) = {self.total:g} of the server's {usable}, {how}"


def computed(limits: Limits, workers: int, size: int | None, overflow: int | None) -> Size:
    """Return the pool's size: what the user chose, else a worker's share of half the usable connections.

    Half, because in a rolling deploy the old and the new processes run at the same time. An overflow that the user
    chose is a part of the share.
    """
    if size is not None:
        return Size(size, DEFAULT_OVERFLOW if overflow is None else overflow, workers, limits, chosen=True)
    share = max(1, min(_MOST, limits.usable // (2 * workers)))
    if overflow is None:
        overflow = share // 3
    return Size(max(1, share - max(0, overflow)), overflow, workers, limits, chosen=False)


async def limits_of(connection: AsyncConnection) -> Limits:
    """Ask the server for its limits."""
    row = (await connection.execute(_LIMITS)).one()
    return Limits(*row)
