"""The shop's one database: its pool, its sessions, and the dependency that gives one to a request."""

from typing import Annotated

from fastapi import Depends
from sqlalchemy.ext.asyncio import AsyncSession
from verdigris import Database

db = Database(statement_timeout=10.0, slow_query=0.25)

SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]
