"""From the shape of an answer to the SQL expression that prints it: texts joined by ||, relationships as sub-selects.

Every expression built here is NULL exactly where the value is None. What Pydantic would refuse prints REFUSED.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Text, and_, case, cast, exists, func, inspect, literal_column, select
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import RelationshipDirection, aliased
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.sql.util import ClauseAdapter

from verdigris.loading.json.nodes import (
    Constant,
    End,
    Many,
    Node,
    Object,
    One,
    Part,
    Subclass,
    Value,
    Variant,
    nullable,
)
from verdigris.loading.json.schema import InPython
from verdigris.loading.json.sources import AliasRow, EntityRow, RootColumns, Row
from verdigris.loading.json.types import REFUSED, Unsupported, encode
from verdigris.loading.json.types.values import word

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement, Select
    from sqlalchemy.orm import Mapper, RelationshipProperty
    from sqlalchemy.orm.util import LoaderCriteriaOption
    from sqlalchemy.sql.compiler import SQLCompiler

_ONE: ColumnElement[int] = literal_column("1")
COMMA: ColumnElement[str] = literal_column("','", Text)
_NULL: ColumnElement[str] = literal_column("'null'", Text)
_NOTHING: ColumnElement[str] = literal_column("''", Text)


class chain(FunctionElement[str]):  # noqa: N801 - reads as a function
    """Texts joined by `||`, flat however many they are; NULL if one of them is."""

    name = "chain"
    type = Text()
    inherit_cache = True


@compiles(chain)
def _chain(element: chain, compiler: SQLCompiler, **options: Any) -> str:
    return f"({' || '.join(compiler.process(part, **options) for part in element.clauses)})"


def in_order(item: ColumnElement[Any], order: Sequence[ColumnElement[Any]]) -> ColumnElement[str]:
    """Return the aggregate that joins items by commas."""
    return func.string_agg(item, aggregate_order_by(COMMA, *order) if order else COMMA)


def listed(items: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the list around items that are joined already, NULL if there are none."""
    return chain(word("["), func.coalesce(items, _NOTHING), word("]"))


class Builder:
    """Builds the expression of one answer."""

    def __init__(self, criteria: Sequence[LoaderCriteriaOption] = ()) -> None:
        self._criteria = criteria

    def text(self, node: Node, row: Row) -> ColumnElement[Any]:
        """Return the expression that prints a node, NULL where it is None."""
        match node:
            case Constant(text):
                return word(text)
            case Value():
                return _value(node, row)
            case Object():
                return self._object(node, row)
            case One():
                return self._one(node, _of_entity(row))
            case Many():
                return self._many(node, _of_entity(row))
            case End(prop):
                return self._end(prop, _of_entity(row))
            case Variant():
                return self._variant(node, row)
            case Subclass():
                return self._subclass(node, _of_entity(row))
            case Part():
                return self._part(node, row)

    def row(self, node: Node, row: Row, *, may_be_none: bool) -> ColumnElement[Any]:
        """Return the expression of one row, which is NULL only where None is asked for instead of `null`."""
        if isinstance(node, Object) or may_be_none:
            return self.text(node, row)
        found = self._never_null(node, row)
        text = _as_text(word(found) if isinstance(found, str) else found)
        return func.coalesce(text, REFUSED, type_=Text())

    def _object(self, node: Object, row: Row) -> ColumnElement[Any]:
        parts = list(self._sparse_members(node, row) if node.sparse else self._members(node, row))
        if node.sparse:
            inside = func.substr(chain(*(list(merged(parts)) or [_NOTHING])), 2)  # a model may have nothing left
            return func.coalesce(chain(word("{"), inside, word("}")), REFUSED, type_=Text())
        return func.coalesce(chain(*merged(["{", *parts, "}"])), REFUSED, type_=Text())

    def _members(self, node: Object, row: Row) -> Iterator[str | ColumnElement[Any]]:
        comma = ""
        for member in node.members:
            if not member.shown:
                yield self._hidden(member.node, row)
                continue
            yield f"{comma}{key_text(member.key)}:"
            comma = ","
            yield self._never_null(member.node, row)

    def _sparse_members(self, node: Object, row: Row) -> Iterator[str | ColumnElement[Any]]:
        """Yield members that each bring their own comma, those that are None as nothing."""
        yield ""
        for member in node.members:
            label = f",{key_text(member.key)}:"
            if not member.shown:
                yield self._hidden(member.node, row)
            elif nullable(member.node):
                yield func.coalesce(chain(word(label), self.text(member.node, row)), _NOTHING)
            else:
                yield label
                yield self._never_null(member.node, row)

    def _hidden(self, node: Node, row: Row) -> ColumnElement[Any]:
        """Return nothing for what Pydantic takes, NULL for what it refuses: then the object is refused."""
        text = self._never_null(node, row)
        found = func.strpos(word(text) if isinstance(text, str) else _as_text(text), REFUSED)
        return case((found == literal_column("0"), _NOTHING))

    def _never_null(self, node: Node, row: Row) -> str | ColumnElement[Any]:
        if isinstance(node, Constant):
            return node.text
        text = self.text(node, row)
        return func.coalesce(_as_text(text), _NULL) if nullable(node) else text

    def _one(self, node: One, row: EntityRow) -> ColumnElement[Any]:
        target = _aliased(node.prop.mapper)
        text = self.text(node.node, AliasRow(target))
        if node.missing is not None:  # None of the other side is not the same as no other side
            text = func.coalesce(_as_text(text), _NULL if nullable(node.node) else REFUSED)
        beside = row.beside(node.prop, target)
        if beside is not None:
            found = beside.one(self._from(target, beside.condition), text)
        else:
            statement = self._from(target, row.related(node.prop, target)).with_only_columns(text)
            statement = statement.order_by(*_order(node.prop, target, statement))
            if node.prop.direction is not RelationshipDirection.MANYTOONE:
                statement = statement.limit(_ONE)
            found = row.correlated(statement).scalar_subquery()
        return found if node.missing is None else func.coalesce(found, word(node.missing))

    def _many(self, node: Many, row: EntityRow) -> ColumnElement[Any]:
        target = _aliased(node.prop.mapper)
        text = self._never_null(node.node, AliasRow(target))
        item = _as_text(word(text) if isinstance(text, str) else text)
        if not isinstance(node.node, Object):  # which is never NULL: string_agg() would drop it
            item = func.coalesce(item, REFUSED)
        beside = row.beside(node.prop, target)
        statement = self._from(target, row.related(node.prop, target) if beside is None else beside.condition)
        agg = in_order(item, _order(node.prop, target, statement))
        if beside is not None:
            return listed(beside.many(statement, agg))
        return listed(row.correlated(statement.with_only_columns(agg)).scalar_subquery())

    def _end(self, prop: RelationshipProperty[Any], row: EntityRow) -> ColumnElement[Any]:
        target = _aliased(prop.mapper)
        inside = row.correlated(self._from(target, row.related(prop, target)).with_only_columns(_ONE))
        return case((exists(inside), REFUSED), else_=word("[]") if prop.uselist else None)

    def _variant(self, node: Variant, row: Row) -> ColumnElement[Any]:
        kind = row.column(node.discriminator)
        otherwise = REFUSED if node.otherwise is None else word(node.otherwise.text)
        if not node.cases:
            return otherwise
        cases = [(kind.in_(each.values) if len(each.values) > 1 else kind == each.values[0], each.node)
                 for each in node.cases]  # fmt: skip
        return case(*((when, _as_text(self.text(then, row))) for when, then in cases), else_=otherwise)

    def _subclass(self, node: Subclass, row: EntityRow) -> ColumnElement[Any]:
        target = _aliased(node.mapper)
        own = AliasRow(target)
        keys = [node.mapper.get_property_by_column(column).key for column in node.mapper.primary_key]
        same = and_(*(own.column(key) == row.column(key) for key in keys))
        statement = self._from(target, same).with_only_columns(self.text(node.node, own))
        return row.correlated(statement).scalar_subquery()

    def _part(self, node: Part, row: Row) -> ColumnElement[Any]:
        assert isinstance(row, RootColumns)  # noqa: S101 - the planner puts parts nowhere else
        part = row.part(node.name)
        there = and_(*(key.is_not(None) for key in part.identity()))
        return case((there, _as_text(self.text(node.node, part))))

    def _from(self, target: Any, condition: ColumnElement[bool]) -> Select[Any]:
        """Return a select of one side of a relationship, under the criteria that the application's select() carries."""
        statement = select(_ONE).select_from(target).where(condition)
        mapper, alias = inspect(target).mapper, ClauseAdapter(inspect(target).selectable)
        for option in self._criteria:
            if any(mapper is each for each in option._all_mappers()):  # noqa: SLF001
                criteria = option._resolve_where_criteria(mapper)  # noqa: SLF001 - as eager loaders ask
                statement = statement.where(alias.traverse(criteria))
        return statement


def _of_entity(row: Row) -> EntityRow:
    """Return the row, of a mapped class: the planner puts what a class has or leads to nowhere else."""
    assert not isinstance(row, RootColumns)  # noqa: S101 - said to the type checker
    return row


def _value(node: Value, row: Row) -> ColumnElement[Any]:
    column = row.column(node.name)
    found = encode(column, column.type, node.schema, node.config)
    if isinstance(found, Unsupported):
        raise InPython(found.reason)
    return found.sql


def _aliased(mapper: Mapper[Any]) -> Any:
    return aliased(mapper.class_, flat=True)


def _order(prop: RelationshipProperty[Any], target: Any, statement: Select[Any]) -> list[ColumnElement[Any]]:
    """Return a relationship's order_by on the aliases that a statement selects from."""
    if not prop.order_by:
        return []
    sources = [inspect(target).selectable]
    if prop.secondary is not None:
        sources += [each for each in statement.get_final_froms() if getattr(each, "element", None) is prop.secondary]
    ordered: list[ColumnElement[Any]] = list(prop.order_by)
    for source in sources:
        ordered = [ClauseAdapter(source).traverse(each) for each in ordered]
    return ordered


def _as_text(expression: ColumnElement[Any]) -> ColumnElement[Any]:
    return expression if isinstance(expression.type, Text) else cast(expression, Text)


def merged(parts: Iterable[str | ColumnElement[Any]]) -> Iterator[ColumnElement[Any]]:
    """Yield the parts of a chain, neighbouring constants as one."""
    constant = ""
    for part in parts:
        if isinstance(part, str):
            constant += part
            continue
        if constant:
            yield word(constant)
        constant = ""
        yield part
    if constant:
        yield word(constant)


def key_text(key: str) -> str:
    """Return a member's name as it stands in JSON."""
    from pydantic_core import to_json

    return to_json(key).decode()
