"""A page is what Pydantic makes of its rows and numbers: its names, limits, options and code hold too."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, computed_field, model_validator
from sqlalchemy import select
from tests.library.loading.json.comparing import of_the_orm
from tests.library.loading.json.models import Tag


class TagOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


class Turned(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str
    id: int


class Page(BaseModel):
    items: list[TagOut]
    total: int


class Named(Page):
    items: list[TagOut] = Field(alias='the "rows"')
    total: int = Field(serialization_alias="in\\all %")


class Limited(Page):
    limit: int | None
    note: str | None = None


class Bounded(Page):
    limit: int


class Checked(Page):
    total: int = Field(le=1)


class Silent(Page):
    total: int = Field(exclude=True)


class Hidden(Page):
    items: list[TagOut] = Field(exclude=True)


class Counting(Page):
    @computed_field
    @property
    def pages(self) -> int:
        return self.total // 2


class Filled(Page):
    items: list[TagOut] = Field(min_length=1)


class Validated(Page):
    @model_validator(mode="after")
    def doubled(self):
        self.total *= 2
        return self


PAGES = [Page, Named, Limited, Bounded, Checked, Silent, Hidden, Counting, Filled, Validated]
OPTIONS = [{}, {"exclude_none": True}, {"exclude_unset": True}, {"by_alias": False}]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("limit", [None, 2])
async def test_a_page_is_written_as_pydantic_writes_it(db, page, limit):
    statement = select(Tag).order_by(Tag.id)
    async with db.session() as session:
        tags = (await session.scalars(statement)).all()
    given = {"items": tags[:limit], "total": len(tags), "limit": limit}
    given = {name: value for name, value in given.items() if name in page.model_fields}
    adapter = TypeAdapter(page)

    for options in OPTIONS:
        try:
            value = adapter.validate_python(given, from_attributes=True, by_name=True)
        except ValidationError:
            with pytest.raises(ValidationError):
                await db.json(statement.limit(limit), page, **options)
            continue
        body = (await db.json(statement.limit(limit), page, **options)).body
        assert body == adapter.dump_json(value, **{"by_alias": True, **options})
        assert await db.fetch(statement.limit(limit), page) == value


async def test_unions_that_differ_in_their_order_are_two_types(db):
    statement = select(Tag).where(Tag.id == 1)

    for type_ in (list[TagOut | Turned], list[Turned | TagOut], list[TagOut | Turned]):
        assert (await db.json(statement, type_)).body == await of_the_orm(db, statement, type_)
