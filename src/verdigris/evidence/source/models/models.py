"""Mapped classes of a code base, in every style in use: declarative, mixins, declared_attr, SQLModel, 1.x columns."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.models.attributes import Attributes
from verdigris.evidence.source.models.indexes import indexes
from verdigris.evidence.source.models.mapped import Column, Model, Relationship
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.values import Known, Place, Unknown, Value

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call

_BASES = {"DeclarativeBase", "DeclarativeBaseNoMeta", "declarative_base", "automap_base", "as_declarative", "Base"}
_GUARDED = {"verdigris.Base", "verdigris.models.Base", "verdigris.Guarded", "verdigris.models.Guarded"}


@dataclass(frozen=True, slots=True)
class Guards:
    """What a base does for the classes that derive from it: unnamed relationships raise, foreign keys are indexed."""

    lazy: bool = False
    index: bool = False


class Models:
    """All mapped classes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self.attributes = Attributes(source)

    @cached_property
    def every(self) -> list[Model]:
        """Each mapped class of application code that has a table."""
        return [self._model(scope) for scope in self.source.classes if self._is_model(scope)]

    @cached_property
    def mixins(self) -> list[Model]:
        """Each class of the tree without a table of its own from which declarative models have columns."""
        found: dict[int, Scope] = {}
        for model in self.every:
            for base in self.source.names.lineage(model.scope) if model.style == "declarative" else ():
                if isinstance(base, Scope) and base.module.role is Role.APPLICATION and self.of(base) is None:
                    found.setdefault(id(base), base)
        made = (self._model(scope) for scope in found.values())
        return [mixin for mixin in made if mixin.style == "declarative" and mixin.own_columns]

    def of(self, scope: Scope | None) -> Model | None:
        """Return the model a class is."""
        return None if scope is None else self._by_scope.get(id(scope))

    def named(self, name: str) -> Model | None:
        """Return the model of that name, if there is exactly one."""
        found = self._by_name.get(name, [])
        return found[0] if len(found) == 1 else None

    @cached_property
    def _by_scope(self) -> dict[int, Model]:
        return {id(model.scope): model for model in self.every}

    @cached_property
    def _by_name(self) -> dict[str, list[Model]]:
        named: dict[str, list[Model]] = {}
        for model in self.every:
            named.setdefault(model.name, []).append(model)
        return named

    def _is_model(self, scope: Scope) -> bool:
        lineage = list(self.source.names.lineage(scope))
        if any(isinstance(base, External) and base.named("sqlmodel", "SQLModel") for base in lineage):
            keywords = scope.node.keywords if isinstance(scope.node, ast.ClassDef) else []
            return any(
                keyword.arg == "table" and isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                for keyword in keywords
            )
        mapped = self._mapped(scope, lineage)
        if not mapped or _constant(scope, "__abstract__") is True:
            return False
        own = {name for base in lineage if isinstance(base, Scope) for name in base.bindings}
        has_table = bool({"__tablename__", "__table__"} & own)
        columns = any(True for _ in self.attributes.of(scope))
        return has_table or (columns and not self._is_base(scope))

    def _mapped(self, scope: Scope, lineage: list[Scope | External]) -> bool:
        for base in lineage:
            if (
                isinstance(base, External)
                and base.package in {"sqlalchemy", "verdigris", "flask_sqlalchemy", "advanced_alchemy"}
                and (base.leaf in _BASES or (base.package == "advanced_alchemy" and base.leaf.endswith("Base")))
            ):
                return True
            if isinstance(base, Scope) and any(
                leaf_within(decorator) == "as_declarative" for decorator in base.decorators
            ):
                return True
        return "__tablename__" in scope.bindings and any(True for _ in self.attributes.of(scope))

    def _is_base(self, scope: Scope) -> bool:
        bases = scope.node.bases if isinstance(scope.node, ast.ClassDef) else []
        direct = [self.source.names.resolve(base, scope.parent or scope.module.scope) for base in bases]
        return any(
            isinstance(base, External) and base.leaf in {"DeclarativeBase", "DeclarativeBaseNoMeta"} for base in direct
        )

    def _model(self, scope: Scope) -> Model:
        lineage = list(self.source.names.lineage(scope))
        guards = self._guards(lineage)
        base = "verdigris.Base" if guards.index else None
        lazy_base = "verdigris.Base" if guards.lazy else None
        style = (
            "sqlmodel"
            if any(isinstance(b, External) and b.named("sqlmodel", "SQLModel") for b in lineage)
            else "declarative"
        )
        table = self._table(scope, lineage)
        columns: dict[str, Column] = {}
        relationships: dict[str, Relationship] = {}
        for owner in (owner for owner in lineage if isinstance(owner, Scope)):
            for name, where, binding in self.attributes.of(owner):
                if name in columns or name in relationships:
                    continue
                made = self.attributes.read(scope.name, name, where, binding, mixin=owner is not scope, base=lazy_base)
                if isinstance(made, Column):
                    columns[name] = made
                elif isinstance(made, Relationship):
                    relationships[name] = made
                    back = self.attributes.backref(made, where)
                    if back is not None:
                        relationships[back.key] = back
        return Model(
            scope.key,
            scope.place,
            scope.name,
            table,
            scope,
            style,
            tuple(columns.values()),
            tuple(relationships.values()),
            tuple(indexes(scope, lineage, table, columns)),
            base,
        )

    def _guards(self, lineage: list[Scope | External]) -> Guards:
        """Tell what the library's base, or guard() on a base of the tree, does for a class that does not opt out."""
        given = [self._guarded.get(id(base), Guards()) for base in lineage]
        ours = any(isinstance(base, External) and base.dotted in _GUARDED for base in lineage)
        index = ours or any(each.index for each in given)
        lazy = ours or any(each.lazy for each in given)
        for base in lineage:
            if not isinstance(base, Scope):
                continue
            tables = [binding.value for binding in base.bindings.get("__table_args__", ())]
            if any(value is not None and "index_foreign_keys" in ast.unparse(value) for value in tables):
                index = False
            if "__unnamed_lazy__" in base.bindings:
                ladder = self.source.evaluator.attribute(base, "__unnamed_lazy__")
                lazy = lazy and isinstance(ladder, Known) and ladder.value == "raise"
        return Guards(lazy, index)

    @cached_property
    def _guarded(self) -> dict[int, Guards]:
        """The bases of the tree that are given to the library's guard(), by a call or as a decorator."""
        found: dict[int, Guards] = {}
        for call in self.source.calls.named("guard"):
            maker = self.source.names.resolve(call.node.func, call.scope)
            if not (isinstance(maker, External) and maker.named("verdigris", "guard") and call.node.args):
                continue
            base = self.source.names.resolve(call.node.args[0], call.scope)
            if isinstance(base, Scope) and base.is_class:
                lazy = self._says(call, "unnamed_lazy", "raise")
                found[id(base)] = Guards(lazy, self._says(call, "index_foreign_keys", expected=True))
        for scope in self.source.classes:
            around = scope.parent or scope.module.scope
            makers = [self.source.names.resolve(each, around) for each in scope.decorators]
            if any(isinstance(maker, External) and maker.named("verdigris", "guard") for maker in makers):
                found[id(scope)] = Guards(lazy=True, index=True)
        return found

    def _says(self, call: Call, name: str, expected: object) -> bool:
        """Tell whether a call leaves a setting at its default, or writes that."""
        given = keyword(call.node, name)
        if given is None:
            return all(each.arg is not None for each in call.node.keywords)
        worth = self.source.evaluator.value(Argument(given, call.scope))
        return isinstance(worth, Known) and worth.value == expected

    @cached_property
    def strategies_set(self) -> Place | None:
        """Where application code gives relationships a strategy that they do not name: `each.lazy = "raise"`."""
        for scope in self.source.functions:
            for node in scope.nodes():
                for target in node.targets if isinstance(node, ast.Assign) else ():
                    own = isinstance(target, ast.Attribute) and leaf_within(target.value) in {"self", "cls"}
                    if isinstance(target, ast.Attribute) and target.attr == "lazy" and not own:
                        return scope.module.place(node)
        return None

    def _table(self, scope: Scope, lineage: list[Scope | External]) -> Value:
        for base in lineage:
            if isinstance(base, Scope) and "__tablename__" in base.bindings:
                return self.source.evaluator.attribute(base, "__tablename__")
        if any(isinstance(b, External) and b.named("sqlmodel", "SQLModel") for b in lineage):
            return Known(scope.name.lower())
        return Unknown(f"{scope.name} has no `__tablename__` that the source settles")


def _constant(scope: Scope, name: str) -> object:
    for binding in scope.bindings.get(name, ()):
        if isinstance(binding.value, ast.Constant):
            return binding.value.value
    return None
