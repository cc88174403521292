"""Except clauses: which of a database's errors they catch, and how they end."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.names import Assigned, External, Names
from verdigris.evidence.source.reading.nodes import inside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verdigris.evidence.source.reading.modules import Module, Scope

ANY = frozenset({"Exception", "BaseException"})
_PACKAGES = {"sqlalchemy", "asyncpg", "psycopg", "sqlmodel", "verdigris"}
_EXITS = {"exit", "_exit", "abort", "fail"}


@dataclass(frozen=True, slots=True)
class Caught:
    """The names an except clause catches: `all` for a bare one and Exception, `database` for errors of a database."""

    all: bool
    database: tuple[External, ...]
    others: tuple[str, ...]

    @property
    def leaves(self) -> tuple[str, ...]:
        """The last names of the database's errors."""
        return tuple(error.leaf for error in self.database)

    def __bool__(self) -> bool:
        """Tell whether an error of a database comes in here."""
        return self.all or bool(self.database)


def caught(handler: ast.ExceptHandler, scope: Scope, names: Names) -> Caught:
    """Read what an except clause catches."""
    return Caught(all=True, database=(), others=()) if handler.type is None else named(handler.type, scope, names)


def named(node: ast.expr, scope: Scope, names: Names) -> Caught:
    """Read an expression that names classes of errors: one, a tuple, or a variable that holds one."""
    everything, database, others = False, [], []
    for each in _each(node, scope, names):
        meaning = names.resolve(each, scope)
        if isinstance(meaning, External) and meaning.package in _PACKAGES:
            database.append(meaning)
        elif meaning is None and isinstance(each, ast.Name) and each.id in ANY:
            everything = True
        else:
            others.append(ast.unparse(each))
    return Caught(everything, tuple(database), tuple(others))


def _each(node: ast.expr, scope: Scope, names: Names, depth: int = 0) -> Iterator[ast.expr]:
    if isinstance(node, (ast.Tuple, ast.List)):
        for element in node.elts:
            yield from _each(element, scope, names, depth + 1)
    elif isinstance(node, ast.Name):
        meaning = names.resolve(node, scope)
        made = meaning.value if isinstance(meaning, Assigned) else None
        if isinstance(made, (ast.Tuple, ast.List)) and depth < 3:
            yield from _each(made, scope, names, depth + 1)
        else:
            yield node
    else:
        yield node


def catching_first(attempt: ast.Try, scope: Scope, names: Names) -> Iterator[tuple[ast.ExceptHandler, Caught]]:
    """Yield the clauses that a database's error may come into: those behind a clause for everything get none."""
    for handler in attempt.handlers:
        what = caught(handler, scope, names)
        if what:
            yield handler, what
        if what.all or "SQLAlchemyError" in what.leaves:
            return


def raises(statements: list[ast.stmt]) -> bool:
    """Tell whether statements raise, or end the program, on every way through them."""
    for statement in statements:
        if isinstance(statement, (ast.Return, ast.Continue, ast.Break)):
            return False
        if _always_raises(statement):
            return True
    return False


def _always_raises(statement: ast.stmt) -> bool:
    match statement:
        case ast.Raise():
            return True
        case ast.If(body=body, orelse=orelse):
            return raises(body) and raises(orelse)
        case ast.With(body=body) | ast.AsyncWith(body=body):
            return raises(body)
        case ast.Try(body=body, finalbody=final):
            return raises(final) or raises(body)
        case ast.Expr(value=ast.Await(value=ast.Call() as call) | (ast.Call() as call)):
            leaf = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            return leaf in _EXITS or leaf.startswith(("raise_", "_raise", "reraise"))
        case _:
            return False


def own(statements: list[ast.stmt]) -> Iterator[ast.AST]:
    """Yield the nodes of statements without those of functions and classes inside."""
    return inside(statements)


def afterwards(
    module: Module, start: ast.stmt, end: ast.stmt | None, until: Callable[[ast.AST], bool]
) -> Iterator[ast.stmt]:
    """Yield the statements that may run after one, in order, as long as nothing leaves the function.

    `end` is what the statement (or its except clause) ends with, where that leaves a loop or the function; `until`
    tells the blocks behind whose end nothing counts any more.
    """
    node: ast.AST = start
    way: ast.stmt | None = end
    while True:
        parent = module.parents.get(node)
        if parent is None or isinstance(way, (ast.Return, ast.Raise)):
            return
        block = _block(parent, node)
        if way is None and block is not None:
            rest = block[block.index(node) + 1 :]  # type: ignore[arg-type]  # a statement is found in its own block
            if isinstance(parent, ast.Try) and block is parent.body:
                rest = [*rest, *parent.orelse]
            for statement in rest:
                yield statement
                if isinstance(statement, (ast.Return, ast.Raise, ast.Continue, ast.Break)):
                    way = statement
                    break
        if isinstance(parent, (ast.Try, ast.TryStar)) and block is not parent.finalbody:
            yield from parent.finalbody
        if isinstance(parent, (ast.For, ast.AsyncFor, ast.While)) and not isinstance(way, (ast.Return, ast.Raise)):
            if not isinstance(way, ast.Break):
                yield from parent.body
            way = None
        if until(parent) or isinstance(parent, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.Module)):
            return
        node = parent


def _block(parent: ast.AST, node: ast.AST) -> list[ast.stmt] | None:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(parent, name, None)
        if isinstance(block, list) and node in block:
            return block
    return None
