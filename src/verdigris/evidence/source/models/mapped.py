"""What a mapped class consists of: columns, relationships, and the indexes that its table is declared with."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.models.python_types import PYTHON_TYPES
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument, Evaluator, Options
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.source.reading.paste import assigned, call_with, dictionary_with
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Scope


def _python_type(node: ast.expr) -> str | None:
    python = PYTHON_TYPES.get(leaf_within(node))
    return None if python is None else python.rpartition(":")[2]


_NOT_NULL = re.compile(r"is not null|\.is_?not\(None\)|!= None", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Column(Subject):
    """A column of a mapped class. `made` is mapped_column, Column, Field or annotation (no call at all)."""

    key: str
    place: Place
    model: str
    name: str
    made: str
    annotated: bool
    ways: tuple[Options, ...]
    arguments: tuple[Argument, ...]
    evaluator: Evaluator = field(repr=False)
    mixin: bool = False
    statement: ast.AST | None = field(default=None, repr=False, compare=False)
    call: Call | None = field(default=None, repr=False, compare=False)  # of a maker that is not the project's own
    scope: Scope | None = field(default=None, repr=False, compare=False)  # the class body, or a declared_attr's

    def option(self, name: str) -> Value:
        """Return a keyword of the column."""
        return agree([self._option(way, name) for way in self.ways])

    def _option(self, way: Options, name: str) -> Value:
        if name in way.values:
            return self.evaluator.value(way.values[name])
        return Unknown(way.open) if way.open is not None else Missing()

    @property
    def annotated_form(self) -> str:
        """Return this column as `name: Mapped[...] = mapped_column(...)`, to paste."""
        arguments = [ast.unparse(argument.node) for argument in self.arguments]
        for way in self.ways[:1]:
            kept = {key: value for key, value in way.values.items() if key != "nullable"}
            arguments += [f"{key}={ast.unparse(value.node)}" for key, value in kept.items()]
        python = next((name for name in map(_python_type, (a.node for a in self.arguments)) if name), "...")
        nullable = self.option("nullable")
        never = (
            self.option("primary_key") == Known(value=True)
            or nullable == Known(value=False)
            or (self.annotated and nullable == Missing())
        )
        return f"{self.name}: Mapped[{python if never else f'{python} | None'}] = mapped_column({', '.join(arguments)})"

    @property
    def index_form(self) -> str:
        """Return this column with an index, to paste."""
        if self.made == "annotation":
            return self._annotation_indexed()
        if self.call is None:
            arguments = [ast.unparse(argument.node) for argument in self.arguments]
            for way in self.ways[:1]:
                arguments += [f"{key}={ast.unparse(value.node)}" for key, value in way.values.items() if key != "index"]
            return assigned(self.statement, self.name, f"{self.made}({', '.join([*arguments, 'index=True'])})")
        inner = keyword(self.call.node, "sa_column")
        if isinstance(inner, ast.Call):
            return assigned(
                self.statement, self.name, call_with(self.call.node, {"sa_column": call_with(inner, {"index": "True"})})
            )
        return assigned(self.statement, self.name, call_with(self.call.node, {"index": "True"}))

    def _annotation_indexed(self) -> str:
        statement = self.statement
        if not isinstance(statement, ast.AnnAssign):
            return f"{self.name}: Mapped[...] = mapped_column(index=True)"
        if "Mapped[" in ast.unparse(statement.annotation):
            return assigned(statement, self.name, "mapped_column(index=True)")
        default = f"default={ast.unparse(statement.value)}, " if statement.value is not None else ""
        return assigned(statement, self.name, f"Field({default}index=True)")

    @property
    def column_name(self) -> str:
        """Its name in the table."""
        first = self.arguments[0].node if self.arguments else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and self.made != "Field":
            return first.value
        return self.name

    @property
    def foreign_key(self) -> Value:
        """The `table.column` it refers to; Missing if it is no foreign key."""
        named = self.option("foreign_key") if self.made == "Field" else Missing()
        if not isinstance(named, Missing):
            return named
        for argument in self.arguments:
            node = argument.node
            if isinstance(node, ast.Call) and leaf_within(node.func) == "ForeignKey":
                target = next((kw.value for kw in node.keywords if kw.arg == "column"), None) or next(
                    iter(node.args), None
                )
                if target is None:
                    return Unknown("the foreign key names no column")
                worth = self.evaluator.value(Argument(target, argument.scope, argument.frame))
                if isinstance(worth, Known) and isinstance(worth.value, str):
                    return worth
                return Known(" ".join(ast.unparse(target).split()))
        return Missing()


@dataclass(frozen=True, slots=True)
class Relationship(Subject):
    """A relationship of a mapped class, backrefs included; `target` is a class of the tree when it is resolved."""

    key: str
    place: Place
    model: str
    name: str
    made: str
    target: Value  # Known(name of the mapped class)
    uselist: Value
    ways: tuple[Options, ...]
    arguments: tuple[Argument, ...]
    evaluator: Evaluator = field(repr=False)
    base: str | None = None  # the guarantee's symbol, when the model derives from the library's Base
    statement: ast.AST | None = field(default=None, repr=False, compare=False)
    call: Call | None = field(default=None, repr=False, compare=False)  # of a maker that is not the project's own
    given: Argument | None = field(default=None, repr=False, compare=False)  # of a backref: what is given for it

    def option(self, name: str) -> Value:
        """Return a keyword of the relationship."""
        return agree([self._option(way, name) for way in self.ways])

    def _option(self, way: Options, name: str) -> Value:
        if name in way.values:
            return self.evaluator.value(way.values[name])
        return Unknown(way.open) if way.open is not None else Missing()

    @property
    def written_lazy(self) -> Value:
        """Its loading strategy as written; the annotations WriteOnlyMapped and DynamicMapped say it too."""
        if self.made in {"WriteOnlyMapped", "DynamicMapped"}:
            return Known({"WriteOnlyMapped": "write_only", "DynamicMapped": "dynamic"}[self.made], f"{self.made}[...]")
        return self.option("lazy")

    def with_lazy(self, lazy: str) -> str:
        """Return the call that makes this relationship with a loading strategy, to paste."""
        way = self.ways[0] if self.ways else Options()
        strategy = f'lazy="{lazy}"'
        if self.call is not None and self.made != "backref":
            return assigned(self.statement, self.name, self._call_with(self.call.node, lazy))
        if self.made == "backref":
            kept = [
                f"{key}={ast.unparse(value.node)}" for key, value in way.values.items() if key not in {"lazy", "name"}
            ]
            return f"backref=backref({', '.join([repr(self.name), *kept, strategy])})"
        arguments = [ast.unparse(argument.node) for argument in self.arguments]
        arguments += [f"{key}={ast.unparse(value.node)}" for key, value in way.values.items() if key != "lazy"]
        return assigned(self.statement, self.name, f"{self.made}({', '.join([*arguments, strategy])})")

    def _call_with(self, call: ast.Call, lazy: str) -> str:
        """Return the call with a strategy; SQLModel takes SQLAlchemy's keywords, or its relationship, as a whole."""
        spread = ["lazy"] if any("lazy" in way.values or way.open is not None for way in self.ways) else []
        if self.made != "Relationship":
            return call_with(call, {"lazy": f'"{lazy}"'}, spread)
        inner = keyword(call, "sa_relationship")
        if isinstance(inner, ast.Call):
            return call_with(call, {"sa_relationship": call_with(inner, {"lazy": f'"{lazy}"'})})
        given = keyword(call, "sa_relationship_kwargs")
        return call_with(call, {"sa_relationship_kwargs": dictionary_with(given, {"lazy": repr(lazy)})})

    @property
    def lazy(self) -> Value:
        """Its loading strategy as written, or as the library's Base promises where none is written.

        `lazy="select"` is SQLAlchemy's name for nothing written, and the Base changes it too; `lazy=True` opts out.
        """
        written = self.written_lazy
        default = isinstance(written, Missing) or (isinstance(written, Known) and written.value == "select")
        if default and self.base is not None:
            promise = guaranteed(self.base, "lazy")
            if promise is not None:
                return Known(promise.value, promise.reason)
        return written


@dataclass(frozen=True, slots=True)
class Index:
    """Columns of one table that an index, a unique constraint or a primary key begins with, in order."""

    table: str
    columns: tuple[str, ...]
    place: Place
    where: str | None = None  # the rows that a partial index holds

    @property
    def serves(self) -> bool:
        """Tell whether rows are found by its first column: a partial one is passed over, unless it leaves out NULLs."""
        return self.where is None or (self.columns[0] in self.where and bool(_NOT_NULL.search(self.where)))

    def concerns(self, name: str) -> bool:
        """Tell whether this is a partial index that begins with a column, or holds rows by what is in it."""
        named = self.where is not None and re.search(rf"\b{re.escape(name)}\b", self.where)
        return self.where is not None and (name == self.columns[0] or bool(named))


@dataclass(frozen=True, slots=True)
class Model(Subject):
    """A mapped class with a table."""

    key: str
    place: Place
    name: str
    table: Value
    scope: Scope
    style: str  # declarative, sqlmodel
    columns: tuple[Column, ...]
    relationships: tuple[Relationship, ...]
    indexes: tuple[Index, ...]
    base: str | None = None

    @property
    def own_columns(self) -> tuple[Column, ...]:
        """The columns that its own class body declares."""
        return tuple(column for column in self.columns if not column.mixin)

    @property
    def own_relationships(self) -> tuple[Relationship, ...]:
        """The relationships that its own class body declares."""
        return tuple(each for each in self.relationships if self.scope.place.covers(each.place))

    def column(self, name: str) -> Column | None:
        """Find a column by attribute or column name."""
        return next((column for column in self.columns if name in {column.name, column.column_name}), None)

    def relationship(self, name: str) -> Relationship | None:
        """Find a relationship by name."""
        return next((relationship for relationship in self.relationships if relationship.name == name), None)
