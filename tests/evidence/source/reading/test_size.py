"""Generated files are long: what a check does for one grows with its length, not with its square."""

from __future__ import annotations

import cProfile

import pytest

from verdigris.checker.check import Plan, check

HEAD = """
from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class Base(DeclarativeBase): ...


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    lines: Mapped[list[Line]] = relationship()


engine = create_async_engine("postgresql+asyncpg://localhost/shop")
factory = async_sessionmaker(engine)
app = FastAPI()


async def opened():
    async with factory() as session:
        yield session


@app.get("/")
async def read(session: AsyncSession = Depends(opened)):
    x = 1
"""
END = "    return (await session.scalars(select(Order))).all()\n\n\nx = 1\n"
LINES = ["x = x + 1", "x{n} = {n}", "x{n} = x", "if x: x{n} = 1", "x = f(x, {n})", "x.y{n} = {n}", "x: int = {n}"]


def calls(tmp_path, inside: str, after: str) -> int:
    """Return how many calls a check of an application makes, whose generated lines are these."""
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "app.py").write_text(HEAD + inside + END + after, "utf-8")
    profile = cProfile.Profile()
    profile.runcall(check, Plan(tmp_path, cache=False))
    return sum(entry.callcount for entry in profile.getstats())


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("place", ["function", "module"])
def test_twice_the_lines_are_twice_the_work(tmp_path, line, place):
    def generated(count: int) -> tuple[str, str]:
        lines = [line.replace("{n}", str(number)) for number in range(count)]
        inside = "".join(f"    {each}\n" for each in lines) if place == "function" else ""
        return inside, "" if inside else "\n".join(lines)

    calls(tmp_path, "", "")  # imports the boxes
    none, some, twice = (calls(tmp_path / str(count), *generated(count)) for count in (0, 150, 300))

    assert twice - none < 2.4 * (some - none)
