"""Calls of an async session's methods that nobody awaits."""

from __future__ import annotations

from tests.evidence.trees import tree

from verdigris.evidence.source.transactions.unawaited import unawaited

HEAD = "from sqlalchemy.ext.asyncio import AsyncSession\n"


def test_only_methods_of_async_sessions_must_be_awaited(tmp_path):
    body = """
from sqlalchemy.orm import Session

async def clear(session: AsyncSession, sync: Session, queue: list[int]) -> None:
    session.commit()
    sync.commit()
    queue.clear()
    session.add(object())
    session.sync_session.flush()
"""
    source = tree(tmp_path, {"app.py": HEAD + body})

    assert [each.method for each in unawaited(source)] == ["commit"]
