"""What the library promises by construction: data for the checker, each promise with its opt-out and its proof.

A box never holds because a name comes from `verdigris`. It holds because one of these guarantees covers the subject
and the code does not use the opt-out; the named test runs the guarantee against a real server.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Guarantee:
    """One promise: `symbol` called without the opt-out behaves as if `option` were `value`."""

    symbol: str
    option: str
    value: Any
    boxes: tuple[str, ...]
    promise: str
    opt_out: str
    proved_by: str

    @property
    def reason(self) -> str:
        """The sentence a proof quotes."""
        return f"{self.symbol} {self.promise}"


GUARANTEES: tuple[Guarantee, ...] = (
    Guarantee(
        "verdigris.Database",
        "pool_pre_ping",
        True,
        ("engine/pre-ping",),
        "validates a connection before handing it out",
        "pool_pre_ping=False",
        "tests/library/test_engine.py",
    ),
    Guarantee(
        "verdigris.Database.from_engine",
        "pool_pre_ping",
        True,
        ("engine/pre-ping",),
        "turns pre-ping on for the engine it is given",
        "another poolclass on the engine",
        "tests/library/test_engine.py::test_a_teams_own_engine_gets_the_guards_and_keeps_its_settings",
    ),
    Guarantee(
        "verdigris.Database",
        "driver",
        "postgresql+asyncpg",
        ("engine/async-driver",),
        "reads postgres:// and postgresql:// as postgresql+asyncpg:// and refuses every other driver",
        "none: another driver is refused at construction",
        "tests/library/test_engine.py::test_every_spelling_of_postgresql_becomes_asyncpg",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_size",
        "half of the server, shared by the workers",
        ("engine/pool-size",),
        "sizes its pool at start, by the number of workers, to half of what the server gives",
        "pool_size=N",
        "tests/library/test_engine.py::test_the_pool_is_a_workers_share_of_half_the_connections",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_timeout",
        3.0,
        ("engine/pool-size",),
        "lets a request wait 3 s for a connection, then answers 503",
        "pool_timeout=SECONDS",
        "tests/library/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database",
        "pool_recycle",
        1800,
        ("engine/recycle",),
        "replaces each connection after half an hour, jittered",
        "pool_recycle=-1",
        "tests/library/test_engine.py::test_connections_do_not_expire_in_one_moment",
    ),
    Guarantee(
        "verdigris.Database",
        "session",
        "async_sessionmaker",
        ("session/async-sessionmaker",),
        "has one async_sessionmaker as its attribute session",
        "a factory of your own on db.engine",
        "tests/library/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.Database",
        "expire_on_commit",
        False,
        ("session/expire-on-commit",),
        "keeps objects readable after commit",
        "expire_on_commit=True",
        "tests/library/test_session.py::test_attributes_stay_readable_after_commit",
    ),
    Guarantee(
        "verdigris.Database",
        "autoflush",
        True,
        ("session/autoflush",),
        "flushes before each query, as SQLAlchemy does",
        "autoflush=False",
        "tests/library/test_engine.py::test_the_engine_is_built_as_the_checklist_asks",
    ),
    Guarantee(
        "verdigris.load",
        "collections",
        "selectin",
        ("loading/selectin-collections",),
        "loads every collection by selectinload",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
    Guarantee(
        "verdigris.load",
        "singles",
        "joined",
        ("loading/joined-single",),
        "joins single objects, by an outer join where there may be none",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
    Guarantee(
        "verdigris.load",
        "needed",
        "loaded",
        ("loading/all-loaded",),
        "loads every relationship that the response model reads",
        "a loader option of your own for the same relationship",
        "tests/library/test_loading.py",
    ),
)


def guaranteed(symbol: str, option: str) -> Guarantee | None:
    """Find the promise about an option of a symbol of the library."""
    for guarantee in GUARANTEES:
        if guarantee.symbol == symbol and guarantee.option == option:
            return guarantee
    return None
