"""SQLAlchemy ORM, with pool_pre_ping"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reads.peers import sqlalchemy_recipe

if TYPE_CHECKING:
    from fastapi import FastAPI


def app(url: str) -> FastAPI:
    return sqlalchemy_recipe.app(url, pool_pre_ping=True)
