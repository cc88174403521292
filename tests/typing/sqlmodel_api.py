"""How `exec()` is typed for statements of SQLModel, as its own session's is: mypy and pyright read this file."""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, assert_type

from fastapi import Depends
from sqlalchemy import CursorResult
from sqlmodel import Field, SQLModel, col, select, update
from sqlmodel.ext.asyncio.session import AsyncSession as TheirSession

from verdigris import AsyncSession, Database


class Hero(SQLModel, table=True):
    id: int | None = Field(default=None, primary_key=True)
    name: str


db = Database("postgresql://app@db/shop")
SessionDep = Annotated[TheirSession, Depends(db.request_session, scope="function")]


async def sessions() -> None:
    async with db.session() as session:
        assert_type((await session.exec(select(Hero))).all(), Sequence[Hero])
        assert_type((await session.exec(select(Hero.name).where(col(Hero.id) == 1))).first(), str | None)
        assert_type((await session.exec(select(Hero, Hero.name))).one(), tuple[Hero, str])
        assert_type(await session.exec(update(Hero).values(name="x")), CursorResult[Any])
    async with db.read() as reading:
        assert_type((await reading.exec(select(Hero))).first(), Hero | None)


async def heroes(session: SessionDep) -> Sequence[Hero]:
    return (await session.exec(select(Hero))).all()


async def get_session() -> AsyncIterator[AsyncSession]:
    async with db.session() as session:
        yield session
