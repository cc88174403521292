"""Reads of expired objects and dropped changes: what is found, and what must stay silent."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

APP = """
from typing import Annotated
from fastapi import APIRouter, Depends
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

engine = create_async_engine("postgresql+asyncpg://h/d")
Session = async_sessionmaker(engine{options})
router = APIRouter()

class Base(DeclarativeBase): ...

class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    def label(self) -> str:
        return "user"

async def get_session():
    async with Session() as session:
        yield session

SessionDep = Annotated[AsyncSession, Depends(get_session)]

async def get_user(session: SessionDep) -> User:
    return await session.get_one(User, 1)

async def get_user_of_another_session() -> User:
    async with Session() as session:
        return await session.get_one(User, 1)

async def save(session: AsyncSession, user: User, auto_commit: bool = True) -> None:
    session.add(user)
    await session.flush()
    if not auto_commit:
        return
    await session.commit()

async def save_and_refresh(session: AsyncSession, user: User) -> None:
    await session.commit()
    await session.refresh(user)

class Users:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def rename(self, user: User, name: str) -> None:
        user.name = name
        await self.session.commit()
"""


def found(tmp_path, body, options=""):
    source = tree(tmp_path, {"app.py": APP.replace("{options}", options) + body})
    return [(read.variant, f"{read.name}.{read.attribute}".rstrip(".")) for read in source.expiry.found]


@pytest.mark.parametrize(
    "body",
    [
        # loaded, then committed
        """
async def f(session: SessionDep):
    user = await session.get(User, 1)
    await session.commit()
    return user.name
""",
        """
async def f(session: SessionDep):
    result = await session.execute(select(User).where(User.id == 1))
    user = result.scalar_one()
    await session.commit()
    print(f"{user.name}")
""",
        """
async def f(session: SessionDep):
    user = (await session.scalars(select(User))).first()
    if user is None:
        return None
    await session.commit()
    return {"name": user.name}
""",
        # made here
        """
async def f(session: SessionDep):
    user = User(name="a")
    session.add(user)
    await session.commit()
    return user.name
""",
        # injected beside the session
        """
async def f(session: SessionDep, user: Annotated[User, Depends(get_user)]):
    await session.commit()
    return user.name
""",
        # through helpers
        """
async def f(session: SessionDep, user: Annotated[User, Depends(get_user)]):
    await save(session, user)
    return user.name
""",
        """
async def f(session: SessionDep, user: Annotated[User, Depends(get_user)]):
    await Users(session).rename(user, "b")
    return user.name
""",
        # blocks that commit at their end
        """
async def f():
    async with Session() as session:
        async with session.begin():
            user = await session.get_one(User, 1)
        return user.name
""",
        """
async def f():
    async with Session.begin() as session:
        user = await session.get_one(User, 1)
    return user.name
""",
        # the second round of a loop
        """
async def f(session: SessionDep):
    for user in (await session.scalars(select(User))).all():
        user.name = "x"
        await session.commit()
async def g(session: SessionDep):
    users = (await session.scalars(select(User))).all()
    for user in users:
        print(user.name)
        await session.commit()
""",
        # one branch is enough
        """
async def f(session: SessionDep, really: bool):
    user = await session.get_one(User, 1)
    if really:
        await session.commit()
    return user.name
""",
        # a route hands it to the response model
        """
@router.get("/")
async def f(session: SessionDep) -> User:
    user = await session.get_one(User, 1)
    await session.commit()
    return user
""",
        # all elements of a collection
        """
async def f(session: SessionDep):
    users = (await session.execute(select(User))).scalars().all()
    await session.commit()
    return [user.name for user in users]
""",
    ],
)
def test_a_read_of_an_expired_object_is_found_once(tmp_path, body):
    assert len(found(tmp_path, body)) == 1


@pytest.mark.parametrize(
    "body",
    [
        """
async def refreshed(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    await session.refresh(user)
    return user.name
""",
        """
async def read_before(session: SessionDep):
    user = await session.get_one(User, 1)
    name = user.name
    await session.commit()
    return name
""",
        """
async def loaded_again(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    user = await session.get_one(User, 1)
    return user.name
""",
        """
async def loaded_again_under_another_name(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    again = await session.get_one(User, 1)
    return user.name
""",
        """
async def no_column(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    return user.label()
""",
        """
async def deleted(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.delete(user)
    await session.commit()
    return user.name
""",
        """
async def another_session(session: SessionDep, user: Annotated[User, Depends(get_user_of_another_session)]):
    await session.commit()
    return user.name
""",
        """
async def of_whom_nothing_is_known(session: SessionDep, user: User):
    await session.commit()
    return user.name
""",
        """
async def not_told_to_commit(session: SessionDep, user: Annotated[User, Depends(get_user)]):
    await save(session, user, auto_commit=False)
    return user.name
""",
        """
async def refreshed_by_the_helper(session: SessionDep, user: Annotated[User, Depends(get_user)]):
    await save_and_refresh(session, user)
    return user.name
""",
        """
async def set_since(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    user.name = "b"
    return user.name
""",
        """
async def one_condition_for_both(session: SessionDep, really: bool):
    user = await session.get_one(User, 1)
    if really:
        await session.commit()
    if really:
        await session.refresh(user)
    return user.name
""",
        """
async def the_other_branch(session: SessionDep, really: bool):
    user = await session.get_one(User, 1)
    if really:
        await session.commit()
        return None
    return user.name
""",
        """
async def in_a_function_of_its_own(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    return lambda: user.name
""",
        """
async def a_row(session: SessionDep):
    row = (await session.execute(select(User.id, User.name))).first()
    await session.commit()
    return row.name
""",
        """
async def expunged(session: SessionDep):
    user = await session.get_one(User, 1)
    session.expunge(user)
    await session.commit()
    return user.name
""",
    ],
)
def test_what_can_be_read_is_silent(tmp_path, body):
    assert found(tmp_path, body) == []


def test_nothing_expires_where_the_factory_says_so(tmp_path):
    body = """
async def f(session: SessionDep):
    user = await session.get_one(User, 1)
    await session.commit()
    return user.name
"""

    assert found(tmp_path, body, ", expire_on_commit=False") == []


def test_a_rollback_expires_what_was_loaded_whatever_the_factory_says(tmp_path):
    body = """
async def f(session: SessionDep):
    user = await session.get_one(User, 1)
    try:
        await session.commit()
    except ValueError:
        await session.rollback()
        print(user.name)
        raise
"""

    assert found(tmp_path, body, ", expire_on_commit=False") == [("read-after-rollback", "user.name")]


def test_a_rollback_leaves_what_was_never_stored(tmp_path):
    body = """
async def f(session: SessionDep):
    user = User(name="a")
    session.add(user)
    try:
        await session.commit()
    except ValueError:
        await session.rollback()
        print(user.name)
        raise
"""

    assert found(tmp_path, body, ", expire_on_commit=False") == []


@pytest.mark.parametrize(
    "again",
    [
        "await session.refresh(user)",
        "await session.execute(select(User).execution_options(populate_existing=True))",
    ],
)
def test_a_change_is_dropped_by_what_loads_it_again(tmp_path, again):
    body = f"""
async def f(session: SessionDep):
    user = await session.get_one(User, 1)
    user.name = "b"
    {again}
    await session.commit()
"""

    assert found(tmp_path / "off", body, ", expire_on_commit=False, autoflush=False") == [("dropped-change", "user")]
    assert found(tmp_path / "on", body, ", expire_on_commit=False") == []


@pytest.mark.parametrize("kept", ["await session.flush()", "await session.commit()"])
def test_a_change_that_was_flushed_is_not_dropped(tmp_path, kept):
    body = f"""
async def f(session: SessionDep):
    user = await session.get_one(User, 1)
    user.name = "b"
    {kept}
    await session.refresh(user)
"""

    assert found(tmp_path, body, ", expire_on_commit=False, autoflush=False") == []


def test_a_change_that_was_committed_under_another_name_of_the_session_is_not_dropped(tmp_path):
    body = """
async def f(session: SessionDep, users: Users):
    user = User(name="a")
    users.session.add(user)
    user.name = "b"
    await session.commit()
    await session.refresh(user)
"""

    assert found(tmp_path, body, ", expire_on_commit=False, autoflush=False") == []
