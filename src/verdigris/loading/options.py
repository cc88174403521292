"""`load`: a plan as SQLAlchemy's loader option."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.orm import Load, joinedload, raiseload, selectin_polymorphic, selectinload, undefer
from sqlalchemy.orm.util import AliasedClass

from verdigris.loading.planner import DEPTH, plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy.orm.strategy_options import _AbstractLoad

    from verdigris.loading.values import Plan, Step

log = logging.getLogger("verdigris.loading")


def load(entity: Any, schema: Any, *, depth: int = DEPTH, for_update: bool = False) -> Load:
    """Return the loader option that loads exactly what `schema` reads from `entity`.

    Collections are loaded by `selectinload`, single relationships by `joinedload` (inner where the foreign key is not
    nullable), deferred columns that are read are undeferred, and every other relationship raises when it is read.
    `schema` is a Pydantic model, or a union or list of them. The option is made once per pair.

    A model that contains itself (a tree) is followed to the end of the data, a query a level. Models that contain each
    other in a longer circle are followed until one has come `depth` times; what lies deeper raises when it is read.
    `for_update=True` is for statements `with_for_update()`: PostgreSQL can't lock the outer side of a join, so nothing
    is joined. `entity` may be an alias (`aliased(Order)`), for a statement that selects it.

    Raises ConfigurationError where no row of `entity` could ever become a `schema`; it names the field.
    """
    return _option(entity, schema, depth, for_update)


@functools.lru_cache(maxsize=4096)
def _option(entity: Any, schema: Any, depth: int, for_update: bool) -> Load:  # noqa: FBT001 - the key of the cache
    made = plan(inspect(entity).mapper.class_ if isinstance(entity, AliasedClass) else entity, schema, depth=depth)
    if made.is_bounded:
        log.info("models that contain each other are followed only so far (depth=%d):\n%s", depth, made)
    return Load(entity).options(*_options(made, joins=not for_update, entity=entity))


def _options(made: Plan, *, joins: bool, recursing: Step | None = None, entity: Any = None) -> Iterator[_AbstractLoad]:
    """Yield the options of one level; `recursing` is the step that led here from the same plan, and repeats itself.

    `entity` is what the level's rows are selected through, if that may be an alias.
    """
    if made.subclasses:
        yield selectin_polymorphic(made.entity, made.subclasses)
    for owner, name in made.undeferred:
        owned = entity is not None and issubclass(made.entity, owner)
        yield undefer(getattr(entity if owned else owner, name))
    for step in made.steps:
        owned = entity is not None and issubclass(made.entity, step.owner)
        attribute = getattr(entity if owned else step.owner, step.name)
        if step is recursing:
            continue
        if step.plan is None:
            yield selectinload(attribute, recursion_depth=-1).options(*_options(made, joins=joins, recursing=step))
        elif step.strategy == "joined" and joins:
            yield joinedload(attribute, innerjoin=step.innerjoin).options(*_options(step.plan, joins=joins))
        else:
            yield selectinload(attribute).options(*_options(step.plan, joins=joins))
    yield raiseload("*", sql_only=True)
