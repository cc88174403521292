"""Section 5: what PostgreSQL writes of generated rows, for generated models, is what Pydantic makes of loaded ones.

As bytes (`db.json()`) and as objects (`db.fetch()`), row by row, as whole answers and as pages. `make equivalence` runs
it over more than twenty thousand pairs of a model and a row, and prints the shares.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import ValidationError
from pydantic.errors import PydanticUserError
from sqlalchemy import inspect, select
from sqlalchemy.exc import SQLAlchemyError
from tests.library.loading.json.comparing import (
    EXAMPLES,
    LONG,
    REFUSED,
    SEED,
    Tally,
    adapter,
    alike,
    dumped,
    made_of,
    same,
)
from tests.library.loading.json.worlds import Models, World

from verdigris import Database
from verdigris.errors import ConfigurationError
from verdigris.loading.json.api import OBJECTS
from verdigris.loading.json.loaded import loading
from verdigris.loading.json.page import LARGEST
from verdigris.loading.json.planner import Options
from verdigris.loading.json.statement import written

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.ext.asyncio import AsyncSession

    from verdigris.loading.json.read import Found

WORLDS = EXAMPLES if LONG else 2
#: The first of these worlds: a long run may be made in parts, which are those of the whole run of the same seed.
FIRST = int(os.environ.get("VERDIGRIS_FIRST", "0"))
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


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # of defaults that are not of their field's type
async def test_what_postgresql_writes_for_generated_models_is_what_pydantic_writes(database):
    bytes_, objects, started = Tally(), Tally(), time.monotonic()
    differences: list[Any] = []

    for seed in range(SEED + FIRST, SEED + WORLDS):
        differences += await compared(database, bytes_, objects, seed)

    print(f"SEED={SEED}, worlds {FIRST} to {WORLDS - 1}, in {time.monotonic() - started:.0f} s")
    print(f"db.json: {bytes_}\n{bytes_.causes()}\ndb.fetch: {objects}\n{objects.causes()}")
    assert differences == []
    if WORLDS - FIRST > 1:  # one world's models may have little that can be written
        assert bytes_.equal > bytes_.pairs / 3
        assert objects.equal > objects.pairs / 6


async def compared(database: Database, bytes_: Tally, objects: Tally, seed: int) -> list[Any]:
    """Compare all models of one world; return the differences, each with the seed and the number of its model."""
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
                bytes_.reasons["no model: Pydantic refuses its definition"] += 1
                continue
            case = Case(database, session, entity.cls, model, models.random.choice(OPTIONS))
            try:
                found = [*await case.texts(bytes_), *await case.objects(objects)]
            except ConfigurationError as error:
                bytes_.reasons[f"impossible pair: {str(error).splitlines()[0]}"] += 1
                continue
            differences += [(seed, number, *difference) for difference in found]
    world.close()
    return differences


@dataclass(frozen=True)
class Case:
    """One model over all rows of one entity."""

    database: Database
    session: AsyncSession
    entity: Any
    model: Any
    options: Options

    @property
    def statement(self) -> Any:
        return select(self.entity).order_by(inspect(self.entity).mapper.primary_key[0])

    async def texts(self, tally: Tally) -> list[Any]:
        """Compare what `db.json()` reads; return the differences."""
        found, _ = self.database._reads.find(self.statement, list[self.model], self.options)
        how = {"by_alias": self.options.by_alias, "exclude_none": self.options.exclude_none}
        how["exclude_unset"] = self.options.exclude_unset
        wanted = [dumped(adapter(self.model), row, **how) for row in await self.rows(found)]
        if found.compiled is None:
            tally.in_python(found.reason, wanted)
            return []
        printed = await self.printed(found)
        differences = [
            ("row", *each)
            for each in zip(printed, wanted, strict=True)
            if tally.differs(*each, partial(same, *each, **VALUES))
        ]
        for statement in (self.statement, self.statement.limit(LARGEST)) if None not in wanted else ():
            answer = await self.database.json(statement, list[self.model], session=self.session, **how)
            whole = answer.body.decode(), f"[{','.join(wanted)}]"
            differences += [] if same(*whole, **VALUES) else [("whole", *whole)]
        return differences

    async def objects(self, tally: Tally) -> list[Any]:
        """Compare what `db.fetch()` reads; return the differences."""
        found, _ = self.database._reads.find(self.statement, list[self.model], OBJECTS)
        wanted = [made_of(adapter(self.model), row) for row in await self.rows(found)]
        if found.compiled is None:
            tally.in_python(found.reason, wanted)
            return []
        texts = await self.printed(found)
        read = list(self.read_back(texts))
        differences = [
            ("object", text, one, want)
            for text, one, want in zip(texts, read, wanted, strict=True)
            if tally.differs(REFUSED if one is None else text, want, partial(alike, one, want))
        ]
        if None not in wanted:
            whole = await self.database.fetch(self.statement, list[self.model], session=self.session)
            differences += [] if alike(whole, wanted) else [("whole", whole, wanted)]
        return differences

    def read_back(self, texts: list[str]) -> Iterator[Any]:
        """Yield what Pydantic makes of each text, as `db.fetch()` asks it; None where `load()` is asked instead."""
        for text in texts:
            try:
                yield adapter(self.model).validate_json(text, by_alias=False, by_name=True)
            except ValidationError:
                yield None

    async def rows(self, found: Found) -> list[Any]:
        """Return the entities as `load()` loads them for this model."""
        self.session.expunge_all()
        return list((await self.session.scalars(loading(self.statement, found.entity, found.answer))).all())

    async def printed(self, found: Found) -> list[str]:
        """Return the text of each row."""
        connection = await self.session.connection()
        return [text.decode() for text in await connection.scalars(written(self.statement, found.answer, "rows"))]


#: JSON columns keep the database's white space, and the digits of its numbers.
VALUES = {"as_values": True}
