"""Synchronous database work on the event loop: what counts, and what runs elsewhere."""

from __future__ import annotations

import pytest
from tests.evidence.trees import tree

APP = """
import asyncio
from contextlib import asynccontextmanager
from celery import shared_task
from fastapi import Depends, FastAPI
from fastapi.concurrency import run_in_threadpool
from sqlalchemy import Engine, create_engine, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session, sessionmaker

engine = create_engine("postgresql+psycopg2://h/d")
SessionLocal = sessionmaker(engine)
AsyncLocal = async_sessionmaker(create_async_engine("postgresql+asyncpg://h/d"))
app = FastAPI()

def get_db():
    with SessionLocal() as session:
        yield session

def count(session: Session) -> int:
    return session.execute(text("select 1")).scalar_one()

def open_and_count() -> int:
    with SessionLocal() as session:
        return count(session)
"""


@pytest.mark.parametrize(
    "body",
    [
        '@app.get("/")\nasync def f(db: Session = Depends(get_db)):\n    return db.execute(text("select 1")).scalar()',
        '@app.get("/")\nasync def f(db: Session = Depends(get_db)):\n    return count(db)',
        '@app.get("/")\nasync def f():\n    return open_and_count()',
        "async def f():\n    with SessionLocal() as db:\n        db.commit()",
        "async def f():\n    with engine.connect() as connection:\n        connection.execute(text('select 1'))",
        "class A:\n    s = SessionLocal()\n    async def f(self):\n        self.s.scalar(1)",
    ],
)
def test_an_async_function_that_waits_for_a_synchronous_driver_is_found(tmp_path, body):
    source = tree(tmp_path, {"app.py": f"{APP}\n{body}\n"})

    assert [use.variant for use in source.blocking_uses] == ["sync-in-async"]


@pytest.mark.parametrize(
    "body",
    [
        '@app.get("/")\ndef f(db: Session = Depends(get_db)):\n    return count(db)',
        "async def f():\n    return await asyncio.to_thread(open_and_count)",
        "async def f():\n    return await run_in_threadpool(lambda: open_and_count())",
        "async def f():\n    async with AsyncLocal() as session:\n        return await session.run_sync(count)",
        "async def f(session: AsyncSession):\n    await session.execute(text('select 1'))\n    await session.commit()",
        "async def f(session: Session):\n    await session.execute(text('select 1'))",
        "async def f(e: Engine):\n    async with e.begin() as s:\n        await s.execute(text('select 1'))",
        "@asynccontextmanager\nasync def lifespan(app):\n    open_and_count()\n    yield\nFastAPI(lifespan=lifespan)",
        "@shared_task\nasync def f():\n    open_and_count()",
        "async def f(cache):\n    cache.get('a', 'b')\n    cache.execute('x')",
        "async def f():\n    def inner():\n        return open_and_count()\n    return await asyncio.to_thread(inner)",
    ],
)
def test_what_runs_in_a_thread_at_the_start_or_in_a_worker_is_silent(tmp_path, body):
    source = tree(tmp_path, {"app.py": f"{APP}\n{body}\n"})

    assert source.blocking_uses == []


def test_a_factory_of_asynchronous_sessions_by_class_is_none_of_it(tmp_path):
    source = tree(
        tmp_path,
        {
            "app.py": """
            from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
            from sqlalchemy.orm import sessionmaker
            Local = sessionmaker(create_async_engine("postgresql+asyncpg://h/d"), class_=AsyncSession)
            async def f():
                async with Local() as session:
                    await session.commit()
            """
        },
    )

    assert source.blocking_uses == []
