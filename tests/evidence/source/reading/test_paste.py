"""What a finding says to paste: everything that stood there stays, and nothing is given twice."""

from __future__ import annotations

import ast

import pytest
from tests.evidence.trees import tree

from verdigris.checklist.registry import boxes
from verdigris.evidence import Evidence
from verdigris.evidence.source.reading.paste import assigned, call_with, dictionary_with

HEAD = "from sqlalchemy.ext.asyncio import create_async_engine\nfrom sqlalchemy.pool import NullPool\n"


def expression(text):
    return ast.parse(text, mode="eval").body


def fixes(folder, files, name):
    source = tree(folder, files)
    return [finding.fix for finding in boxes()[name][1].conclude(Evidence(source)).findings]


@pytest.mark.parametrize(
    ("call", "spread", "pasted"),
    [
        ("make(url, echo=True)", [], "make(url, echo=True, size=3)"),
        ("make(url, size=5, echo=True)", [], "make(url, size=3, echo=True)"),
        ("make(url, **more)", [], "make(url, **more, size=3)"),
        ("make(url, **more)", ["size"], "make(url, **{**more, 'size': 3})"),
        ("make(url, size=5, **more)", ["size"], "make(url, size=3, **more)"),
        ("make()", [], "make(size=3)"),
    ],
)
def test_a_keyword_is_set_in_its_place_and_never_given_twice(call, spread, pasted):
    assert call_with(expression(call), {"size": "3"}, spread) == pasted


@pytest.mark.parametrize(
    ("given", "pasted"),
    [
        ("{'ssl': context, 'timeout': 30}", "{'ssl': context, 'timeout': 5}"),
        ("dict(ssl=context)", "{'ssl': context, 'timeout': 5}"),
        ("dict(base, ssl=context)", "{**dict(base, ssl=context), 'timeout': 5}"),
        ("{**base}", "{**base, 'timeout': 5}"),
        ("CONNECT", "{**CONNECT, 'timeout': 5}"),
        ("a if b else c", "{**(a if b else c), 'timeout': 5}"),
    ],
)
def test_a_key_is_set_and_what_else_a_dictionary_holds_stays(given, pasted):
    assert dictionary_with(expression(given), {"timeout": "5"}) == pasted


def test_an_assignment_keeps_its_annotation():
    [statement] = ast.parse("user: Mapped['User'] = relationship()").body

    assert assigned(statement, "user", "made()") == "user: Mapped['User'] = made()"


@pytest.mark.parametrize(
    ("url", "arguments", "pasted"),
    [
        (
            "postgresql+asyncpg://h/shop",
            "connect_args={'server_settings': {'jit': 'off'}, 'command_timeout': 9}, poolclass=NullPool",
            "connect_args={'server_settings': {'jit': 'off'}, 'command_timeout': 9, 'timeout': 5}, poolclass=NullPool)",
        ),
        ("postgresql+asyncpg://h/shop", "connect_args=load()", None),
        ("postgresql+asyncpg://h/shop", "echo=True", "echo=True, connect_args={'timeout': 5, 'command_timeout': 60})"),
        (
            "postgresql+psycopg://h/shop",
            "echo=True",
            "echo=True, connect_args={'connect_timeout': 5, 'options': '-c statement_timeout=60000'})",
        ),
        (
            "mysql+aiomysql://h/shop",
            "echo=True",
            "echo=True, connect_args={'connect_timeout': 5, 'init_command': 'SET SESSION max_execution_time = 60000'})",
        ),
    ],
)
def test_limits_are_added_in_the_words_of_the_driver_to_what_it_is_told_already(url, arguments, pasted, tmp_path):
    code = f"{HEAD}engine = create_async_engine({url!r}, {arguments})\n"

    found = fixes(tmp_path, {"app.py": code}, "errors/connection-errors")

    assert [fix.partition("', ")[2] if fix else fix for fix in found] == ([pasted] if pasted else [])


def test_a_wrapper_that_takes_no_options_is_edited_and_not_its_caller(tmp_path):
    code = """
from sqlalchemy.ext.asyncio import create_async_engine

def connect(url):
    return create_async_engine(url, pool_size=5)

engine = connect("postgresql+asyncpg://h/shop")
"""

    [fix] = fixes(tmp_path, {"app.py": code}, "engine/pre-ping")

    assert fix == "create_async_engine(url, pool_size=5, pool_pre_ping=True)"


def test_a_pool_that_a_way_without_a_pool_does_not_size_is_no_default_pool(tmp_path):
    code = """
import os
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

URL = os.environ["DATABASE_URL"]
IN_A_FILE = URL.startswith("sqlite")

def pool(in_a_file):
    if in_a_file:
        return {}
    return {"pool_size": 20, "max_overflow": 5}

engine = create_async_engine(URL, poolclass=NullPool if IN_A_FILE else AsyncAdaptedQueuePool, **pool(IN_A_FILE))
"""

    assert fixes(tmp_path, {"app.py": code}, "engine/pool-size") == []


MODELS = """
import uuid
from sqlalchemy import Column, ForeignKey, Integer, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

class Base(DeclarativeBase): ...

class User(Base):
    __tablename__ = "user"
    id: Mapped[int] = mapped_column(primary_key=True)

class Post(Base):
    __tablename__ = "post"
    id: Mapped[int] = mapped_column(primary_key=True)
    {attribute}

async def touch(session: AsyncSession): ...
"""


@pytest.mark.parametrize(
    ("attribute", "box", "pasted"),
    [
        (
            "user: Mapped['User'] = relationship(back_populates='posts')",
            "models/lazy-raise",
            "user: Mapped['User'] = relationship(back_populates='posts', lazy=\"raise_on_sql\")",
        ),
        (
            "user: Mapped['User'] = relationship(lazy='select', back_populates='posts')",
            "models/lazy-raise",
            "user: Mapped['User'] = relationship(lazy=\"raise_on_sql\", back_populates='posts')",
        ),
        (
            "user_id: Mapped[int] = mapped_column(ForeignKey('user.id'))",
            "performance/indexed",
            "user_id: Mapped[int] = mapped_column(ForeignKey('user.id'), index=True)",
        ),
        (
            "user_id = Column(Integer, ForeignKey('user.id'), nullable=False)",
            "performance/indexed",
            "user_id = Column(Integer, ForeignKey('user.id'), nullable=False, index=True)",
        ),
    ],
)
def test_an_attribute_keeps_its_annotation_and_what_makes_it(attribute, box, pasted, tmp_path):
    found = fixes(tmp_path, {"models.py": MODELS.replace("{attribute}", attribute)}, box)

    assert pasted in found


SQLMODEL = """
from sqlalchemy import Column, ForeignKey, Integer
from sqlmodel import Field, Relationship, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

class User(SQLModel, table=True):
    id: int = Field(primary_key=True)

class Post(SQLModel, table=True):
    id: int = Field(primary_key=True)
    user_id: int = Field(default=None, sa_column=Column(Integer, ForeignKey("user.id")))
    user: "User" = Relationship(
        back_populates="posts", sa_relationship_kwargs={"foreign_keys": "[Post.user_id]", "lazy": "noload"}
    )

async def touch(session: AsyncSession): ...
"""


def test_sqlmodel_keeps_the_keywords_that_it_hands_on(tmp_path):
    [relationship] = fixes(tmp_path, {"models.py": SQLMODEL}, "models/lazy-raise")
    [column] = fixes(tmp_path, {"models.py": SQLMODEL}, "performance/indexed")

    assert relationship == (
        "user: 'User' = Relationship(back_populates='posts', "
        "sa_relationship_kwargs={'foreign_keys': '[Post.user_id]', 'lazy': 'raise_on_sql'})"
    )
    assert column == (
        "user_id: int = Field(default=None, sa_column=Column(Integer, ForeignKey('user.id'), index=True))"
    )
