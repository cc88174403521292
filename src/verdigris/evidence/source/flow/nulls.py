"""Foreign keys that are NULL for certain, by the statement that gave their rows: they lead nowhere, without a query."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.values import Attr
from verdigris.evidence.values import Missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.shapes import Shape
    from verdigris.evidence.source.flow.values import Statement, Value
    from verdigris.evidence.source.models.mapped import Column

_DEFAULTS = ("default", "insert_default", "default_factory", "server_default")
_KEEPING = {"options", "execution_options", "prefix_with", "on_conflict_do_nothing"}


class Nulls:
    """Statements of one tree, and the columns that they leave NULL."""

    def __init__(self, source: Source) -> None:
        """Read models from an index."""
        self.source = source

    def method(self, statement: Statement, name: str, call: Call) -> Statement:
        """Return an INSERT with more said of it; what may set columns unseen leaves open which it sets."""
        if name in _KEEPING:
            return statement
        named = _named(call.node) if name == "values" else None
        given = None if named is None or statement.given is None else statement.given | named
        shapes = tuple(
            shape and replace(shape, unset=shape.unset - given if given else frozenset()) for shape in statement.shapes
        )
        return replace(statement, given=given, shapes=shapes)

    def asked_for(self, statement: Statement, call: Call, attribute: Callable[[ast.expr], Value]) -> Statement:
        """Return a SELECT whose WHERE asks for rows in which a column is NULL."""
        asked = [attribute(node) for node in map(_is_null, call.node.args) if node is not None]
        shapes = []
        for shape in statement.shapes:
            named = {each.name for each in asked if isinstance(each, Attr) and shape and each.model == shape.model}
            shapes.append(replace(shape, unset=shape.unset | named) if shape is not None and named else shape)
        return replace(statement, shapes=tuple(shapes))

    def left_out(self, shape: Shape | None, given: frozenset[str] | None) -> Shape | None:
        """Say of a returned row which columns are NULL for certain."""
        if shape is None or not given or shape.model not in self.source.relations.models:
            return shape
        columns = self.source.relations.models[shape.model].columns
        left = (column for column in columns if not given & {column.name, column.column_name})
        return replace(shape, unset=frozenset(column.name for column in left if _has_no_default(column)))


def _named(call: ast.Call) -> frozenset[str] | None:
    """Return the columns that `values(...)` names: by keywords, or by a dictionary that is written out."""
    found = {keyword.arg for keyword in call.keywords}
    for given in call.args:
        if not isinstance(given, ast.Dict):
            return None
        for key in given.keys:
            match key:
                case ast.Constant(value=str() as name) | ast.Attribute(attr=name):
                    found.add(name)
                case _:
                    return None
    return None if None in found else frozenset(name for name in found if name is not None)


def _is_null(condition: ast.expr) -> ast.expr | None:
    match condition:
        case ast.Call(func=ast.Attribute(value=column, attr="is_"), args=[ast.Constant(value=None)]):
            return column
        case ast.Compare(left=column, ops=[ast.Eq()], comparators=[ast.Constant(value=None)]):
            return column
        case _:
            return None


def _has_no_default(column: Column) -> bool:
    return all(column.option(name) == Missing() for name in _DEFAULTS)
