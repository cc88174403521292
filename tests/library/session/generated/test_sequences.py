"""A Database's session does what SQLAlchemy's does: generated sequences of operations, run on both, seen after each.

`make sequences` runs a thousand; `SEED=... FIRST=n COUNT=1` repeats the one that a failure names.
"""

import os
from contextlib import asynccontextmanager
from random import Random

import asyncpg
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from tests.library.session.generated.sequences import sequence
from tests.library.session.generated.sides import Base, OurSide, Side

from verdigris import Database

SEED = int(os.environ.get("VERDIGRIS_SEED") or 1)
FIRST = int(os.environ.get("VERDIGRIS_FIRST") or 0)
COUNT = int(os.environ.get("VERDIGRIS_EXAMPLES") or 40)
LENGTH = 30
REFUSED = "CommitRefusedError"


@asynccontextmanager
async def two_schemas(url):
    """Give a Database on one schema and a plain engine on an equal one, each with a connection beside it."""
    raw = url.replace("+asyncpg", "")
    settings = {"lock_timeout": "20ms"}
    beside = [
        await asyncpg.connect(raw, server_settings={**settings, "search_path": name}) for name in ("public", "plain")
    ]
    await beside[0].execute("CREATE SCHEMA plain")
    plain = create_async_engine(url, connect_args={"server_settings": {"search_path": "plain"}})
    db = Database(url, pool_size=2)
    for engine in (db.engine, plain):
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
    try:
        yield db, plain, beside
    finally:
        await db.dispose()
        await plain.dispose()
        for connection in beside:
            await connection.close()


async def compared(db, plain, beside, number):
    """Run one sequence on both sides; raise AssertionError for the first step that differs."""
    random = Random(f"{SEED} {number}")
    options = {"expire_on_commit": random.random() < 0.5, "close_resets_only": random.random() < 0.5}
    steps = sequence(random, LENGTH)
    for connection in beside:
        await connection.execute("TRUNCATE trees, leaves")
    ours = OurSide(lambda: db.session(**options), beside[0])
    theirs = Side(lambda: AsyncSession(plain, **options), beside[1])
    try:
        for place, step in enumerate(steps):
            outcomes = [await side.run(step) for side in (ours, theirs)]
            if (
                ours.refused and outcomes[0] != outcomes[1]
            ):  # documented: with SQLAlchemy it ends well, and stores nothing
                return [*(step.name for step in steps[:place]), REFUSED]
            states = [await side.seen() for side in (ours, theirs)]
            if outcomes[0] != outcomes[1] or states[0] != states[1]:
                before = "\n  ".join(map(str, steps[: place + 1]))
                assert (outcomes[0], states[0]) == (outcomes[1], states[1]), f"SEED={SEED} FIRST={number}:\n  {before}"
    finally:
        for side in (ours, theirs):
            await side.end()
    return [step.name for step in steps]


async def test_generated_sequences_end_alike_on_both(database_url):
    drawn = set()
    async with two_schemas(database_url) as sides:
        for number in range(FIRST, FIRST + COUNT):
            drawn.update(await compared(*sides, number))

    assert len(drawn) > 30 or COUNT < 10
