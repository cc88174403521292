"""SQLAlchemy ORM, the recipe, collector at 50,000"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from reads.peers import sqlalchemy_recipe

if TYPE_CHECKING:
    from fastapi import FastAPI


def app(url: str) -> FastAPI:
    gc.set_threshold(50_000, *gc.get_threshold()[1:])  # as verdigris's install() has it
    return sqlalchemy_recipe.app(url)
