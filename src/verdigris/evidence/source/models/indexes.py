"""The indexes that a mapped class declares: on columns, in `__table_args__`, by unique constraints and primary keys."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.models.mapped import Column, Index
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.names import External
    from verdigris.evidence.values import Value


def indexes(scope: Scope, lineage: list[Scope | External], table: Value, columns: dict[str, Column]) -> Iterator[Index]:
    """Yield the indexes of a mapped class: what its table can look up by, whatever declares it."""
    name = str(table.value) if isinstance(table, Known) else scope.name
    keyed = []
    for column in columns.values():
        for option in ("index", "unique", "primary_key"):
            worth = column.option(option)
            if isinstance(worth, Known) and worth.value:
                if option == "primary_key":
                    keyed.append(column.name)
                else:
                    yield Index(name, (column.name,), column.place)
    if keyed:
        yield Index(name, tuple(keyed), scope.place)
    for owner in (owner for owner in lineage if isinstance(owner, Scope)):
        for call, where in _table_arguments(owner):
            found = _index_columns(call)
            if found:
                yield Index(name, found, where.module.place(call), condition(call))


def _table_arguments(scope: Scope) -> Iterator[tuple[ast.Call, Scope]]:
    """Yield the Index, UniqueConstraint and PrimaryKeyConstraint calls of `__table_args__`, declared_attr or not."""
    written = (binding.value for binding in scope.bindings.get("__table_args__", ()))
    roots: list[tuple[ast.AST, Scope]] = [(value, scope) for value in written if value is not None]
    method = scope.member("__table_args__")
    if method is not None:
        roots += [(node, method) for node in method.nodes() if isinstance(node, ast.Return)]
    for root, where in roots:
        for node in ast.walk(root):
            if isinstance(node, ast.Call) and leaf_within(node.func) in {
                "Index",
                "UniqueConstraint",
                "PrimaryKeyConstraint",
            }:
                yield node, where


def _index_columns(call: ast.Call) -> tuple[str, ...]:
    """Read an index's columns: strings, attributes, `.desc()` and the like; the first string of Index is its name."""
    arguments = call.args[1:] if leaf_within(call.func) == "Index" else call.args
    return tuple(name for name in map(column_named, arguments) if name)


def condition(call: ast.Call) -> str | None:
    """Return which rows a partial index holds, as it is written; None for one that holds all."""
    for keyword in call.keywords:
        if keyword.arg in {"postgresql_where", "sqlite_where"}:
            written = keyword.value
            text = written.args[0] if isinstance(written, ast.Call) and written.args else written
            told = text.value if isinstance(text, ast.Constant) else None
            return told if isinstance(told, str) else ast.unparse(written)
    return None


def column_named(node: ast.expr) -> str:
    """Return the column an expression in an index names, or an empty text for an expression of several."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Attribute(value=base, attr="desc" | "asc" | "nulls_last" | "nulls_first")):
            return column_named(base)
        case ast.Call(func=func, args=[first, *_]) if leaf_within(func) in {"desc", "asc", "text"}:
            return column_named(first)
        case _:
            return ""
