"""Annotations whose names are there for type checkers only: from Python 3.14 on, asking for them may raise."""

import sys
from typing import TYPE_CHECKING

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database
from verdigris.errors import ConfigurationError
from verdigris.fastapi import ReadRouter, install
from verdigris.loading import plan
from verdigris.loading.json.attributes import _is_same_in_sql

if TYPE_CHECKING:
    from nowhere import Answer

LAZY = pytest.mark.skipif(sys.version_info < (3, 14), reason="such a function cannot be made before Python 3.14")


class Parcel(Base):
    __tablename__ = "annotations_parcel"
    __allow_unmapped__ = True

    id: Mapped[int] = mapped_column(primary_key=True)
    note: str


class ParcelOut(BaseModel):
    id: int
    note: str


@LAZY
async def test_an_endpoint_that_says_it_returns_such_a_name_is_served(database_url):
    app, db = FastAPI(), Database(database_url)
    install(app, db)

    @app.get("/", response_model=None)
    async def answer() -> Answer:
        return {"served": True}

    async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/")).json() == {"served": True}


@LAZY
def test_a_read_router_says_what_to_write_for_such_a_name():
    reads = ReadRouter(Database("postgresql://localhost/a"))

    def read(number: int) -> Answer: ...

    with pytest.raises(ConfigurationError, match=r'@reads.get\("/", response_model=Answer\)'):
        reads.get("/")(read)


def test_an_attribute_that_is_only_annotated_is_one_that_a_model_may_read():
    assert plan(Parcel, ParcelOut).opaque == ("note",)


def test_a_hybrid_with_a_small_number_is_a_plain_sum():
    assert _is_same_in_sql(lambda self: self.id * 2 + 1)
    assert not _is_same_in_sql(lambda self: self.id / 2)
