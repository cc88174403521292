"""Columns that statements filter, join and order by, and the indexes that serve them."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.models.indexes import column_named, condition
from verdigris.evidence.source.models.mapped import Column, Index, Model
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.values import Known, Missing, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call


_CREATE_INDEX = re.compile(
    r"create\s+(?:unique\s+)?index\s+(?:concurrently\s+)?(?:if\s+not\s+exists\s+)?\S+\s+on\s+\"?([\w.]+)\"?\s*(?:using\s+\w+\s*)?\(\s*\"?(\w+)",
    re.IGNORECASE,
)
_ROWS = re.compile(r"\bwhere\b(.*)", re.IGNORECASE | re.DOTALL)


_NAMED = 3  # gaps of one kind are named at so many places
_WHERE = re.compile(r"\b(select|update|delete)\b.*\bwhere\b", re.IGNORECASE | re.DOTALL)
_OPERATORS = {"between", "contains", "endswith", "ilike", "in_", "is_", "is_not", "like", "not_in", "startswith"}


@dataclass(frozen=True, slots=True)
class Sought(Subject):
    """A column by which rows are found: a foreign key, or one that statements filter by (`uses`)."""

    key: str
    place: Place
    model: Model
    column: Column
    foreign_key: bool
    uses: tuple[Place, ...]

    @property
    def table(self) -> str:
        """The table's name, as far as it is known."""
        return str(self.model.table.value) if isinstance(self.model.table, Known) else self.model.name

    @property
    def index_form(self) -> str:
        """The column with an index, to paste."""
        return self.column.index_form


class Filters:
    """Sought columns and known indexes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def sought(self) -> list[Sought]:
        """Every foreign key, then every other column that application code filters by."""
        found: dict[tuple[object, ...], Sought] = {}
        for model in self.source.models.every:
            for column in model.columns:
                foreign = not isinstance(column.foreign_key, Missing)
                places = self.filtered.get((model.key, column.name), [])
                if foreign or places:
                    sought = Sought(
                        f"{model.name}.{column.name}", column.place, model, column, foreign, tuple(sorted(places))
                    )
                    served = self.served(model, column) is not None
                    # a mixin's column is one cause, however many tables it is mixed into
                    found.setdefault((column.place, served) if column.mixin else (sought.key,), sought)
        return list(found.values())

    @cached_property
    def filtered(self) -> dict[tuple[str, str], list[Place]]:
        """Where statements compare a column in a where clause: by (model key, attribute)."""
        found: dict[tuple[str, str], list[Place]] = {}
        for call in self._clauses:
            for model, name in self._compared(call):
                found.setdefault((model.key, name), []).append(call.place)
        return found

    @cached_property
    def _clauses(self) -> list[Call]:
        named = self.source.calls.named("where", "filter", "filter_by")
        return [call for call in named if call.module.role is Role.APPLICATION]

    @cached_property
    def gaps(self) -> list[str]:
        """Reasons why columns may be compared unseen: named at run time, gathered elsewhere, or written in SQL."""
        found = [(place, "conditions that are gathered elsewhere are not followed") for place in self._gathered()]
        for call in self.source.calls.named("getattr"):
            by_name = len(call.node.args) > 1 and not isinstance(call.node.args[1], ast.Constant)
            owner = self.source.names.resolve(call.node.args[0], call.scope) if by_name else None
            if isinstance(owner, Scope) and self.source.models.of(owner) is not None and self._is_condition(call):
                found.append((call.place, "which column is compared shows at run time only"))
        for call, _ in self.source.calls.outside({"sqlalchemy", "sqlmodel"}, "text"):
            sql = self.source.evaluator.value(Argument(call.node.args[0], call.scope)) if call.node.args else Missing()
            told = sql.value if isinstance(sql, Known) else " ".join(_constants(call.node))
            if call.module.role is Role.APPLICATION and isinstance(told, str) and _WHERE.search(told):
                found.append((call.place, "the where clause of a text is not read"))
        return [f"{place}: {gap}" for place, gap in sorted(found)[:_NAMED]]

    def _gathered(self) -> Iterator[Place]:
        for call in self._clauses:
            for node in call.node.args:
                if isinstance(node, ast.Starred) and self._listed(node.value, call.scope) is None:
                    yield call.place

    def _is_condition(self, call: Call) -> bool:
        """Tell whether what a call gives becomes part of a condition."""
        if call.module.role is not Role.APPLICATION:
            return False
        around = call.module.parents.get(call.node)
        if isinstance(around, ast.Attribute):  # getattr(Order, name).in_(...)
            return around.attr in _OPERATORS
        return isinstance(around, ast.Compare)

    def _compared(self, call: Call) -> Iterator[tuple[Model, str]]:
        """Yield the columns that a where clause alone relies on: none if another of them is indexed already."""
        pairs = [pair for argument in call.node.args for pair in self._equalities(argument, call.scope)]
        known = [(model, column) for model, name in pairs if (column := model.column(name)) is not None]
        if any(self.served(*each) is not None or self.promised(*each) is not None for each in known):
            return
        if any(self._serves_together(model, [other for owner, other in known if owner is model]) for model, _ in known):
            return
        yield from pairs

    def _serves_together(self, model: Model, columns: list[Column]) -> bool:
        """Tell whether a partial index begins with one of these columns and holds rows by what is in another."""
        partial = [index for index in self._of(model) if index.where is not None]
        names = {name for column in columns for name in (column.name, column.column_name)}
        return any(
            index.columns[0] in names and any(index.concerns(name) for name in names - {index.columns[0]})
            for index in partial
        )

    def _equalities(self, node: ast.expr, scope: Scope) -> Iterator[tuple[Model, str]]:
        match node:
            case ast.Compare(left=left, ops=[ast.Eq()]):
                yield from self._column(left, scope)
            case ast.Call(func=ast.Attribute(value=base, attr="in_" | "any_")):
                yield from self._column(base, scope)
            case ast.Starred(value=value):
                for each in self._listed(value, scope) or ():
                    yield from self._equalities(each, scope)
            case _:
                return

    def _listed(self, node: ast.expr, scope: Scope) -> list[ast.expr] | None:
        """Return the conditions of a list that the function makes and adds to; None if they come from outside."""
        if not isinstance(node, ast.Name) or scope.lookup(node.id) is None:
            return None
        found: list[ast.expr] = []
        made = False
        for each in scope.nodes():
            match each:
                case (
                    ast.Assign(targets=[ast.Name(id=name)], value=value)
                    | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
                ) if name == node.id:
                    if not isinstance(value, (ast.List, ast.Tuple)):
                        return None
                    made = True
                    found += value.elts
                case ast.AugAssign(target=ast.Name(id=name), value=ast.List() | ast.Tuple() as value) if (
                    name == node.id
                ):
                    found += value.elts
                case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="append"), args=[item]) if (
                    name == node.id
                ):
                    found.append(item)
                case ast.Call(
                    func=ast.Attribute(value=ast.Name(id=name), attr="extend"), args=[ast.List() | ast.Tuple() as items]
                ) if name == node.id:
                    found += items.elts
                case ast.Call(args=arguments) if any(
                    isinstance(given, ast.Name) and given.id == node.id for given in arguments
                ):
                    return None  # another function may add to it
        if any(isinstance(each, ast.Starred) and ast.unparse(each.value) != node.id for each in found):
            return None
        return [each for each in found if not isinstance(each, ast.Starred)] if made else None

    def _column(self, node: ast.expr, scope: Scope) -> Iterator[tuple[Model, str]]:
        if isinstance(node, ast.Attribute):
            owner = self.source.names.resolve(node.value, scope)
            model = self.source.models.of(owner) if isinstance(owner, Scope) else None
            if model is not None and model.column(node.attr) is not None:
                yield model, node.attr

    def served(self, model: Model, column: Column) -> str | None:
        """Say which index begins with a column, or None; a partial one finds only some rows by it."""
        names = {column.name, column.column_name}
        for index in self._of(model):
            if index.columns[0] in names and index.serves:
                return str(index.place)
        return None

    def promised(self, model: Model, column: Column) -> str | None:
        """Say that the library's base indexes a foreign key that says nothing of indexes, or None."""
        promise = guaranteed(model.base or "", "index")
        bare = not isinstance(column.foreign_key, Missing) and isinstance(column.option("index"), Missing)
        return promise.reason if promise is not None and bare else None

    def partly(self, model: Model, column: Column) -> Index | None:
        """Return a partial index that begins with a column, or that holds rows by what is in it."""
        names = {column.name, column.column_name}
        return next((index for index in self._of(model) if any(index.concerns(name) for name in names)), None)

    def _of(self, model: Model) -> Iterator[Index]:
        name = model.table.value if isinstance(model.table, Known) else model.name
        return (index for index in (*model.indexes, *self._elsewhere) if index.table == name and index.columns)

    @cached_property
    def _elsewhere(self) -> list[Index]:
        """Indexes made outside the class: `Index(...)` statements, migrations, raw SQL in them."""
        return [*self._statements(), *self._migrations()]

    def _statements(self) -> Iterator[Index]:
        for call, _ in self.source.calls.outside({"sqlalchemy", "sqlmodel"}, "Index"):
            for argument in call.node.args[1:]:
                if isinstance(argument, ast.Attribute):
                    owner = self.source.names.resolve(argument.value, call.scope)
                    model = self.source.models.of(owner) if isinstance(owner, Scope) else None
                    if model is not None and isinstance(model.table, Known):
                        yield Index(model.table.value, (argument.attr,), call.place, condition(call.node))
                break

    def _migrations(self) -> Iterator[Index]:
        for call in self.source.calls.named("create_index", "create_unique_constraint"):
            arguments = [self.source.evaluator.value(Argument(arg, call.scope)) for arg in call.node.args[:3]]
            known = [each.value if isinstance(each, Known) else None for each in arguments]
            if len(known) == 3 and isinstance(known[1], str) and isinstance(known[2], list):
                yield Index(known[1], tuple(str(name) for name in known[2]), call.place, condition(call.node))
            elif len(known) == 2 and isinstance(known[0], list) and isinstance(call.node.func, ast.Attribute):
                continue
        for call in self.source.calls.named("batch_alter_table"):
            yield from self._batch(call)
        for call in self.source.calls.named("execute", "text", "DDL"):
            for node in ast.walk(call.node):
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and "index" in node.value.lower():
                    for made in _CREATE_INDEX.finditer(node.value):
                        rest = _ROWS.search(node.value[made.end() :].partition(";")[0])
                        rows = rest[1].strip() if rest is not None else None
                        yield Index(made[1].rpartition(".")[2], (made[2],), call.place, rows)

    def _batch(self, call: Call) -> Iterator[Index]:
        table = call.node.args[0] if call.node.args else None
        if not (isinstance(table, ast.Constant) and isinstance(table.value, str)):
            return
        block = call.module.parents.get(call.module.parents.get(call.node, call.node), call.node)
        for node in ast.walk(block):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "create_index"
                and len(node.args) > 1
            ):
                columns = node.args[1]
                if isinstance(columns, ast.List):
                    names = tuple(column_named(item) for item in columns.elts)
                    yield Index(table.value, names, call.module.place(node), condition(node))


def _constants(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Constant) and isinstance(inner.value, str):
            yield inner.value
