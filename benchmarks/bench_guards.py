"""What all guards together cost a unit of work: a one-row read in a transaction, with and without them.

    python benchmarks/bench_guards.py [ROUNDS]

CPU of this process alone, measured in rounds in which every variant has its batch, one after the other, each round
beginning with another; printed are medians over the rounds of each round's difference and ratio. The variants:

- bare: SQLAlchemy's own engine and session, no ping at all: what the guards are added to
- recipe: the same as the usual recipe has it, with `pool_pre_ping` (three round trips)
- guarded: `Database` without its measuring: tasks, COMMIT, closed sessions, session state, waits, the ping and the pool
- as it comes: `Database` with query times and pool figures too

The budget: the guards cost no more than 5 µs a unit and 3 % of the recipe's read.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from typing import TYPE_CHECKING

from sqlalchemy import text
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from verdigris import Database, embedded

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sqlalchemy.ext.asyncio import AsyncSession

    Session = Callable[[], AsyncSession]

READS = 400
STATEMENT = text("SELECT id, name FROM thing WHERE id = 1")
ONE = {"pool_size": 1, "max_overflow": 0}


def sessions(url: str) -> dict[str, tuple[Session, Callable[[], Awaitable[None]]]]:
    """Return what makes a session of each variant, and what disposes of its engine."""
    bare = create_async_engine(url, **ONE)
    recipe = create_async_engine(url, pool_pre_ping=True, pool_recycle=1800, **ONE)
    guarded = Database(url, time_queries=False, pool_metrics=False, explain_slow=False, **ONE)
    full = Database(url, **ONE)
    return {
        "bare": (async_sessionmaker(bare, expire_on_commit=False), bare.dispose),
        "recipe": (async_sessionmaker(recipe, expire_on_commit=False), recipe.dispose),
        "guarded": (guarded.session, guarded.dispose),
        "as it comes": (full.session, full.dispose),
    }


async def unit(session: Session) -> None:
    async with session() as work:
        (await work.execute(STATEMENT)).one()
        await work.commit()


async def batch(session: Session) -> float:
    """Return the CPU that a unit took, in microseconds."""
    began = time.process_time()
    for _ in range(READS):
        await unit(session)
    return (time.process_time() - began) / READS * 1e6


async def run(url: str, rounds: int) -> None:
    variants = sessions(url)
    async with variants["bare"][0]() as first:
        await first.execute(text("CREATE TABLE thing (id int PRIMARY KEY, name text)"))
        await first.execute(text("INSERT INTO thing VALUES (1, 'one')"))
        await first.commit()
    names = list(variants)
    for name in names:
        await batch(variants[name][0])
    gc.collect()
    gc.disable()  # its pauses fall where they please
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(await batch(variants[name][0]))
        gc.collect()
    report(taken, rounds)
    for _, dispose in variants.values():
        await dispose()


def report(taken: dict[str, list[float]], rounds: int) -> None:
    print(f"CPU of one unit, median of {rounds} rounds of {READS}")
    for name, times in taken.items():
        print(f"  {name:12} {statistics.median(times):7.1f} µs")
    for name in ("guarded", "as it comes"):
        more = [each - bare for each, bare in zip(taken[name], taken["bare"], strict=True)]
        share = [part / recipe * 100 for part, recipe in zip(more, taken["recipe"], strict=True)]
        against = statistics.median(taken[name]) / statistics.median(taken["recipe"])
        added = f"{statistics.median(more):+.1f} µs to bare, {statistics.median(share):+.1f} % of the recipe's read"
        print(f"  {name}: {added}; {against:.2f} of the recipe in all")


if __name__ == "__main__":
    with embedded.server(durable=False) as postgres:
        asyncio.run(run(postgres.url_for("postgres", socket=True), int(sys.argv[1]) if len(sys.argv) > 1 else 40))
