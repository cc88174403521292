"""Loader options as they stand in the code: which relationship each names, by which strategy, on what statement."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External, Meaning
from verdigris.evidence.values import Known, Missing, Place, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.models.mapped import Model
    from verdigris.evidence.source.models.relations import Relation
    from verdigris.evidence.source.reading.calls import Call

EAGER = ("joinedload", "selectinload", "subqueryload", "immediateload", "contains_eager")
OTHERS = ("lazyload", "raiseload", "noload", "defaultload", "load_only", "defer", "undefer", "Load")
PACKAGES = frozenset({"sqlalchemy", "sqlmodel"})


@dataclass(frozen=True, slots=True)
class LoaderOption(Subject):
    """One use of an eager loader option; `relation` is None where the source does not settle what it names.

    `strategy` is the option's name, or `load` for the library's own.
    """

    key: str
    place: Place
    strategy: str
    relation: Relation | None
    call: Call
    innerjoin: Value
    limited: bool  # the statement it stands on has a LIMIT
    again: tuple[Call, ...] = ()  # where the same step begins another branch of the statement

    @property
    def short(self) -> str:
        """The option as it is written, on one line."""
        inner = self.call.node.args[0] if self.call.node.args else None
        text = self.call.module.text(inner) if inner is not None else "..."
        return f"{self.strategy}({text})"


@dataclass(frozen=True, slots=True)
class Loaded(Subject):
    """A relationship to one object, with everything that says how it is loaded: options and its own mapping."""

    key: str
    place: Place
    relation: Relation
    options: tuple[LoaderOption, ...]


class Statements:
    """The loader options of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def options(self) -> list[LoaderOption]:
        """Every eager loader option of application code, `load()` included."""
        found: list[LoaderOption] = []
        for call in self.source.calls.named(*EAGER, "load"):
            if call.module.role is Role.APPLICATION:
                found += self._option(call)
        steps: dict[tuple[int, str], list[LoaderOption]] = {}
        for option in sorted(found, key=lambda option: option.place):
            steps.setdefault(_step(option.call), []).append(option)
        return [replace(first, again=tuple(each.call for each in more)) for first, *more in steps.values()]

    def _option(self, call: Call) -> Iterator[LoaderOption]:
        strategy = self.strategy(call)
        if strategy is None:
            return
        first = call.node.args[0] if call.node.args else None
        relation = None if first is None or strategy == "load" else self.relation(first, call.scope)
        named = relation.key if relation is not None else call.module.text(first) if first is not None else strategy
        given = next((keyword.value for keyword in call.node.keywords if keyword.arg == "innerjoin"), None)
        inner = Missing() if given is None else self.source.evaluator.value(Argument(given, call.scope))
        yield LoaderOption(f"{call.scope.key} {named}", call.place, strategy, relation, call, inner, _limited(call))

    def strategy(self, call: Call) -> str | None:
        """Name the loader option a call makes, or None if it is no loader option of SQLAlchemy's or the library's."""
        meaning = self.source.names.resolve(call.node.func, call.scope)
        if isinstance(meaning, External):
            if meaning.package == "verdigris" and meaning.leaf == "load":
                return "load"
            return meaning.leaf if meaning.package in PACKAGES and meaning.leaf in EAGER else None
        if isinstance(meaning, Scope) or not isinstance(call.node.func, ast.Attribute):
            return None
        chained = call.node.func.attr
        return chained if chained in EAGER and self._is_option(call.node.func.value, call.scope) else None

    def _is_option(self, node: ast.expr, scope: Scope, depth: int = 0) -> bool:
        """Tell whether a chain begins with a loader option: `joinedload(A.b).selectinload(B.c)`."""
        while isinstance(node, ast.Call):
            meaning = self.source.names.resolve(node.func, scope)
            if isinstance(meaning, External):
                return meaning.package in PACKAGES and meaning.leaf in (*EAGER, *OTHERS)
            if not isinstance(node.func, ast.Attribute):
                return False
            node = node.func.value
        meaning = self.source.names.resolve(node, scope)
        value = meaning.value if isinstance(meaning, Assigned) else None
        return value is not None and depth < 3 and self._is_option(value, meaning.scope, depth + 1)  # type: ignore[union-attr]

    def relation(self, node: ast.expr, scope: Scope) -> Relation | None:
        """Return the relationship that an expression names: `Order.lines`, its `and_()`, `of_type()`, an alias's."""
        match node:
            case ast.Call(func=ast.Attribute(value=base, attr="and_" | "of_type")):
                return self.relation(base, scope)
            case ast.Call(func=ast.Name(id="getattr"), args=[owner, ast.Constant(value=str(name)), *_]):
                return self._of(self.model(owner, scope), name)
            case ast.Attribute(value=base, attr=name):
                return self._of(self.model(base, scope), name)
            case ast.Name():
                meaning = self.source.names.resolve(node, scope)
                value = meaning.value if isinstance(meaning, Assigned) else None
                if isinstance(meaning, Assigned) and meaning.scope.is_class:
                    return self._of(self.source.models.of(meaning.scope), meaning.name)
                return (
                    self.relation(value, meaning.scope)
                    if isinstance(value, ast.Attribute) and isinstance(meaning, Assigned)
                    else None
                )
            case _:
                return None

    def _of(self, model: Model | None, name: str) -> Relation | None:
        return None if model is None else self.source.relations.of(model.key, name)

    def model(self, node: ast.expr, scope: Scope) -> Model | None:
        """Return the mapped class that an expression names, through `aliased()` and annotated class variables."""
        if isinstance(node, ast.Name) and node.id == "cls":  # of a classmethod in the mapped class itself
            own = self.source.types.of(node, scope)
            return self.source.models.of(own) if isinstance(own, Scope) else None
        return self._model(self.source.names.resolve(node, scope), 0)

    def _model(self, meaning: Meaning | None, depth: int) -> Model | None:
        if isinstance(meaning, Scope):
            return self.source.models.of(meaning)
        if not isinstance(meaning, Assigned) or depth > 4:
            return None
        value = meaning.value
        if isinstance(value, ast.Call) and value.args:
            maker = self.source.names.resolve(value.func, meaning.scope)
            if isinstance(maker, External) and maker.named("sqlalchemy", "aliased", "with_polymorphic"):
                return self._model(self.source.names.resolve(value.args[0], meaning.scope), depth + 1)
        if isinstance(value, (ast.Name, ast.Attribute)):
            return self._model(self.source.names.resolve(value, meaning.scope), depth + 1)
        return None

    @cached_property
    def singles(self) -> list[Loaded]:
        """Every relationship to one object that an option or its own mapping loads eagerly."""
        uses: dict[tuple[str, str], list[LoaderOption]] = {}
        for option in self.options:
            if option.relation is not None and option.relation.many == Known(False):
                uses.setdefault((option.relation.owner, option.relation.name), []).append(option)
        found = []
        for relation in self.source.relations.every:
            options = tuple(uses.pop((relation.owner, relation.name), ()))
            if relation.many == Known(False) and (options or relation.eager):
                found.append(Loaded(relation.key, relation.place, relation, options))
        for options in map(tuple, uses.values()):  # inherited ones
            inherited = options[0].relation
            if inherited is not None:
                found.append(Loaded(inherited.key, inherited.place, inherited, options))
        return found


def _step(call: Call) -> tuple[int, str]:
    """Tell a step of a path within its statement: paths that branch later begin with the same call, written twice."""
    statement = next((node for node in call.module.ancestors(call.node) if isinstance(node, ast.stmt)), call.node)
    return id(statement), ast.unparse(call.node)


def _limited(call: Call) -> bool:
    """Tell whether the statement that an option stands on is limited, as far as its own expression shows."""
    parents = call.module.parents
    node: ast.AST = call.node
    while isinstance(parents.get(node), (ast.expr, ast.keyword)):
        node = parents[node]
        if isinstance(node, ast.Await):
            break
    return any(
        isinstance(inner, ast.Call)
        and isinstance(inner.func, ast.Attribute)
        and inner.func.attr in {"limit", "fetch", "slice"}
        for inner in ast.walk(node)
    )
