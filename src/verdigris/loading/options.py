"""`load`: a plan as SQLAlchemy's loader option."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect
from sqlalchemy.orm import Load, joinedload, load_only, raiseload, selectin_polymorphic, selectinload, undefer
from sqlalchemy.orm.util import AliasedClass

from verdigris.lean.shapes import keep
from verdigris.loading.planner import DEPTH, plan

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from sqlalchemy.orm import Mapper
    from sqlalchemy.orm.strategy_options import _AbstractLoad

    from verdigris.loading.values import Plan, Step

_RAISING = frozenset({"raise", "raise_on_sql", "write_only"})
log = logging.getLogger("verdigris.loading")


def load(
    entity: type[Any] | AliasedClass[Any],
    schema: Any,
    *,
    depth: int = DEPTH,
    for_update: bool = False,
    narrow: bool = False,
) -> Load:
    """Return the loader option that loads exactly what `schema` reads from `entity`.

    Collections are loaded by `selectinload`, single relationships by `joinedload` (inner where the foreign key is not
    nullable), deferred columns that are read are undeferred, and every other relationship raises when it is read.
    `schema` is a Pydantic model, or a union or list of them. The option is made once per pair.

    A model that contains itself (a tree) is followed to the end of the data, a query a level. Models that contain each
    other in a longer circle, and a tree inside of a tree by the same relationship, are followed until one has come
    `depth` times; what lies deeper raises when it is read.
    `for_update=True` is for statements `with_for_update()`: PostgreSQL can't lock the outer side of a join, so nothing
    is joined. `entity` may be an alias (`aliased(Order)`), for a statement that selects it.

    Whole rows are loaded; `narrow=True` loads only the columns that are read, and any other raises when it is read. It
    is for answers of wide rows: what a handler or a service reads beside them is not in the plan. Where columns can't
    be told (a validator that sees the whole object, subclasses' own columns), the row stays whole.

    Raises ConfigurationError where no row of `entity` could ever become a `schema`; it names the field.
    """
    return _option(entity, schema, depth, for_update, narrow)  # type: ignore[arg-type]  # an alias is hashable


@functools.lru_cache(maxsize=4096)
def _option(entity: Any, schema: Any, depth: int, for_update: bool, narrow: bool) -> Load:  # noqa: FBT001 - a key
    made = plan(inspect(entity).mapper.class_ if isinstance(entity, AliasedClass) else entity, schema, depth=depth)
    if made.is_bounded:
        log.info("models that contain each other are followed only so far (depth=%d):\n%s", depth, made)
    return keep(Load(entity).options(*_Options(joins=not for_update, narrow=narrow).of(made, entity)))


@dataclass(frozen=True, slots=True)
class _Options:
    """How a plan becomes options."""

    joins: bool
    narrow: bool

    def of(self, made: Plan, entity: Any, recursing: Step | None = None) -> Iterator[_AbstractLoad]:
        """Yield the options of one level; `entity` is what its rows are selected through, a class or an alias.

        `recursing` is the step that led here from the same plan, and repeats itself.
        """
        subclasses = [each for each in made.subclasses if inspect(each) not in _selected(entity)]
        if subclasses:
            yield selectin_polymorphic(entity, subclasses)
        if self.narrow and not made.subclasses and not made.opaque:
            yield load_only(*(getattr(entity, name) for name in _needed(made)), raiseload=True)
        else:
            for owner, name in made.undeferred:
                yield undefer(getattr(_through(made, entity, owner), name))
        for step in made.steps:
            if step is not recursing:
                yield self._of_step(made, step, getattr(_through(made, entity, step.owner), step.name))
        if not _raises_anyway(made):
            yield raiseload("*", sql_only=True)

    def _of_step(self, made: Plan, step: Step, attribute: Any) -> _AbstractLoad:
        if step.plan is None:
            return selectinload(attribute, recursion_depth=-1).options(*self.of(made, made.entity, recursing=step))
        inside = self.of(step.plan, step.plan.entity)
        if step.strategy == "joined" and self.joins:
            return joinedload(attribute, innerjoin=step.innerjoin).options(*inside)
        return selectinload(attribute).options(*inside)


def _selected(entity: Any) -> Container[Mapper[Any]]:
    """Return the mappers whose columns `with_polymorphic()` selects with an alias: no second statement is due."""
    return inspect(entity).with_polymorphic_mappers if isinstance(entity, AliasedClass) else ()


def _through(made: Plan, entity: Any, owner: type) -> Any:
    """Return what an attribute is named on: a subclass for its own, else what the rows are selected through."""
    if issubclass(made.entity, owner):
        return entity
    return getattr(entity, owner.__name__, owner) if isinstance(entity, AliasedClass) else owner  # with_polymorphic()


def _raises_anyway(made: Plan) -> bool:
    """Whether the mapping itself makes every other relationship raise; the option would cost each object a callable."""
    loaded = {step.name for step in made.steps}
    mapper: Mapper[Any] = inspect(made.entity)
    others = [prop for each in mapper.self_and_descendants for prop in each.relationships if prop.key not in loaded]
    return all(prop.lazy in _RAISING for prop in others)


def _needed(made: Plan) -> Iterator[str]:
    """Yield the columns of a narrowed row: those read, and those that SQLAlchemy needs to know and to join it."""
    mapper: Mapper[Any] = inspect(made.entity)
    needed: list[Any] = [*mapper.primary_key, mapper.polymorphic_on, mapper.version_id_col]
    for step in made.steps:
        needed += mapper.relationships[step.name].local_columns
    names = dict.fromkeys(name for _, name in made.columns)
    names.update(dict.fromkeys(mapper.get_property_by_column(column).key for column in needed if column is not None))
    yield from names
