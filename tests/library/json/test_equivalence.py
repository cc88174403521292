"""Section 5: what PostgreSQL writes of generated rows, for generated models, is what `load()` and Pydantic write.

`make equivalence` runs it over some ten thousand pairs of a model and a row, and prints the shares.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from pydantic.errors import PydanticUserError
from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession
from tests.library.json.comparing import EXAMPLES, LONG, REFUSED, SEED, Tally, adapter, dumped, same
from tests.library.json.worlds import Models, World

from verdigris import Database
from verdigris.errors import ConfigurationError
from verdigris.loading.json.loaded import loading
from verdigris.loading.json.planner import Options
from verdigris.loading.json.statement import written

WORLDS = EXAMPLES if LONG else 3
MODELS = 12
ROWS = 40 if LONG else 12
OPTIONS = (
    Options(),
    Options(),
    Options(by_alias=False),
    Options(exclude_none=True),
    Options(exclude_unset=True),
    Options(exclude_none=True, exclude_unset=True, by_alias=False),
)


@pytest.fixture
async def database(database_url):
    database = Database(database_url, idle_in_transaction_timeout=None, transaction_timeout=None)
    yield database
    await database.dispose()


async def test_what_postgresql_writes_for_generated_models_is_what_pydantic_writes(database):
    first = SEED
    tally, started = Tally(), time.monotonic()
    differences: list[Any] = []

    for seed in range(first, first + WORLDS):
        differences += await compared(database, tally, seed)

    print(f"VERDIGRIS_SEED={first}, {WORLDS} worlds: {tally} in {time.monotonic() - started:.0f} s")
    for reason, count in tally.reasons.most_common():
        print(f"  {count:6} {reason}")
    assert differences == []
    assert tally.equal > tally.pairs / 3


async def compared(database, tally, seed):
    """Compare all models of one world; return the differences, each with the seed."""
    world = World(seed, f"w{seed}")
    differences = []
    async with database.session() as session:
        connection = await session.connection()
        await connection.run_sync(world.registry.metadata.create_all)
        session.add_all(world.rows(ROWS))
        await session.flush()
        session.expunge_all()
        for number in range(MODELS):
            models = Models(world, seed * 1000 + number)
            entity = models.random.choice(world.entities)
            try:
                model = models.model(entity)
                adapter(model)
            except (PydanticUserError, SQLAlchemyError, TypeError, NameError):
                tally.reasons["no model: Pydantic refuses its definition"] += 1
                continue
            options = models.random.choice(OPTIONS)
            found = await rows(database, session, tally, (entity.cls, model, options))
            differences += [(seed, number, *difference) for difference in found]
    world.close()
    return differences


async def rows(database, session: AsyncSession, tally: Tally, case: tuple[Any, Any, Options]) -> list[Any]:
    """Compare one model over all rows of its entity; return the differences."""
    entity, model, options = case
    statement = select(entity).order_by(inspect(entity).mapper.primary_key[0])
    try:
        found, _ = database._reads.find(statement, list[model], options)
    except ConfigurationError as error:
        tally.reasons[f"impossible pair: {str(error).splitlines()[0]}"] += 1
        return []
    tally.pairs += ROWS
    if found.compiled is None:
        tally.fallback += ROWS
        tally.reasons[found.reason.split(": ", 1)[-1]] += ROWS
        return []
    connection = await session.connection()
    texts = await connection.scalars(written(statement, found.answer, "rows"))
    printed = [text.decode() for text in texts]
    session.expunge_all()
    how = {"by_alias": options.by_alias, "exclude_none": options.exclude_none}
    how["exclude_unset"] = options.exclude_unset
    loaded = (await session.scalars(loading(statement, found.entity, found.answer))).all()
    wanted = [dumped(adapter(model), row, **how) for row in loaded]
    return [each for each in zip(printed, wanted, strict=True) if differs(tally, *each)]


def differs(tally: Tally, got: str, want: str | None) -> bool:
    """Count a pair; return whether it is a difference."""
    if REFUSED in got:
        tally.refused += want is None
        tally.fallback += want is not None
        tally.reasons["a value that only Python writes"] += want is not None
        return False
    equal = same(got, want, as_values=True)  # JSON columns keep the database's white space
    tally.equal += equal
    return not equal
