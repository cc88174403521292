"""The graph that relationships make of the mapped classes: where each leads, and whether to one object or to many.

An annotation or `uselist=` says how many; where both are silent the foreign key does: the side that has it leads to
one object, the other side to many, and a `secondary` table to many on both.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned
from verdigris.evidence.source.reading.nodes import leaf_of, parsed
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.models.mapped import Column, Model, Relationship

EAGER = frozenset({"selectin", "joined", "subquery", "immediate"})
UNLOADABLE = frozenset({"dynamic", "write_only"})
_SYNONYMS: dict[object, str] = {True: "select", False: "joined", None: "noload", "select_in": "selectin"}


@dataclass(frozen=True, slots=True)
class Relation(Subject):
    """One relationship as the graph has it: `many` is Known(bool) or Unknown, `lazy` the strategy in force."""

    key: str  # Order.lines
    place: Place
    owner: str  # the key of the model
    name: str
    target: str | None  # the key of the related model
    many: Value
    lazy: Value
    made: str
    inverse: str | None = None
    nullable: Value = field(default_factory=Missing)  # of a to-one's own foreign key
    columns: tuple[str, ...] = ()  # a to-one's own foreign keys
    declared: Relationship | None = field(default=None, repr=False, compare=False)

    @property
    def eager(self) -> bool:
        """Whether every query of its owner loads it, by its own mapping."""
        return isinstance(self.lazy, Known) and self.lazy.value in EAGER

    @property
    def loader(self) -> str:
        """The loader option that fits it."""
        return "joinedload" if self.many == Known(False) else "selectinload"

    @property
    def option(self) -> str:
        """The option to paste."""
        return f"{self.loader}({self.key})"


class Relations:
    """All relationships of one tree, by model and name."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._along: dict[str, frozenset[str]] = {}

    def of(self, model: str, name: str) -> Relation | None:
        """Find a relationship of a model, inherited ones and backrefs included."""
        return self._by_model.get(model, {}).get(name)

    def all_of(self, model: str) -> dict[str, Relation]:
        """Return all relationships of a model, by name."""
        return self._by_model.get(model, {})

    @cached_property
    def models(self) -> dict[str, Model]:
        """All models by key."""
        return {model.key: model for model in self.source.models.every}

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of all relationships: what reads of attributes are compared with."""
        return frozenset(name for relations in self._by_model.values() for name in relations)

    @cached_property
    def every(self) -> list[Relation]:
        """Every relationship once, at the class that declares it."""
        found: dict[tuple[Place, str], Relation] = {}
        for relations in self._by_model.values():
            for relation in relations.values():
                found.setdefault((relation.place, relation.name), relation)
        return list(found.values())

    @cached_property
    def _by_model(self) -> dict[str, dict[str, Relation]]:
        graph: dict[str, dict[str, Relation]] = {key: {} for key in self.models}
        for model in self.models.values():
            for declared in model.relationships:
                owner = model if declared.made != "backref" else self._named(declared.model, model)
                if owner is not None:
                    graph[owner.key].setdefault(declared.name, self._relation(owner, declared))
        for model in self.models.values():  # what a subclass inherits by a backref on its base
            for base in self._bases(model):
                for name, relation in list(graph[base.key].items()):
                    graph[model.key].setdefault(name, relation)
        return graph

    def along(self, model: str) -> frozenset[str]:
        """Return the models whose objects any query of one brings, by eager mappings: those of subclasses too."""
        if model not in self._along:
            found: set[str] = set()
            waiting = [model]
            while waiting:
                current = waiting.pop()
                for kin in (current, *self._subclasses.get(current, ())):
                    targets = {each.target for each in self.all_of(kin).values() if each.eager and each.target}
                    waiting += targets - found
                    found |= targets
            self._along[model] = frozenset(found)
        return self._along[model]

    @cached_property
    def _subclasses(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for model in self.models.values():
            for base in self._bases(model):
                found.setdefault(base.key, []).append(model.key)
        return found

    def _bases(self, model: Model) -> Iterator[Model]:
        for scope in list(self.source.names.lineage(model.scope))[1:]:
            base = self.source.models.of(scope) if isinstance(scope, Scope) else None
            if base is not None:
                yield base

    def _named(self, name: str, near: Model) -> Model | None:
        """Find the model a relationship names; of several with one name, the one that lives nearest."""
        found = [model for model in self.models.values() if model.name == name]
        if len(found) <= 1:
            return found[0] if found else None
        mine = near.place.path.split("/")
        ranked = sorted(
            ((_shared(mine, model.place.path.split("/")), model) for model in found), key=lambda pair: -pair[0]
        )
        return ranked[0][1] if ranked[0][0] > ranked[1][0] else None

    def _relation(self, owner: Model, declared: Relationship) -> Relation:
        target = self._named(str(declared.target.value), owner) if isinstance(declared.target, Known) else None
        many = declared.uselist
        if not isinstance(many, Known):
            many = self._direction(owner, target, declared)
        own = self._own_keys(owner, target, declared) if many == Known(False) and target is not None else []
        return Relation(
            f"{owner.name}.{declared.name}",
            declared.place,
            owner.key,
            declared.name,
            None if target is None else target.key,
            many,
            _lazy(declared.lazy),
            declared.made,
            self._inverse(declared),
            self._nullable(owner, own),
            tuple(column.name for column in own),
            declared,
        )

    def _inverse(self, declared: Relationship) -> str | None:
        back = declared.option("back_populates")
        if isinstance(back, Known) and isinstance(back.value, str):
            return back.value
        if declared.made == "backref":
            return None
        for way in declared.ways:
            given = way.values.get("backref")
            if given is not None:
                node = given.node.args[0] if isinstance(given.node, ast.Call) and given.node.args else given.node
                return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None
        return None

    def _direction(self, owner: Model, target: Model | None, declared: Relationship) -> Value:
        """Let the foreign keys say how many, as the mapper does."""
        unknown = Unknown(f"neither annotation nor foreign key says how many {declared.key} has")
        if target is None:
            return unknown
        given = {name for way in declared.ways for name in way.values}
        if declared.made in {"WriteOnlyMapped", "DynamicMapped", "dynamic_loader"} or "secondary" in given:
            return Known(True)
        if declared.made == "backref":
            return self._opposite(owner, target, declared) or unknown
        if owner is target:
            return Known("remote_side" not in given)
        here, there = self._leads(owner, target), self._leads(target, owner)
        named = self._foreign_keys(declared)
        if named:
            mine = any(owner.name in {model, ""} for model, _ in named)
            theirs = any(target.name == model for model, _ in named)
            if mine != theirs:
                return Known(theirs)
        if here != there:
            return Known(there)
        back = target.relationship(str(self._inverse(declared)))
        return Known(False) if back is not None and back.uselist == Known(True) else unknown

    def _opposite(self, owner: Model, target: Model, declared: Relationship) -> Value | None:
        """Judge a backref by the relationship that makes it: on the target, declared at the same place."""
        forward = next(
            (each for each in target.relationships if each.place == declared.place and each.made != "backref"), None
        )
        if forward is None:
            return None
        if any("secondary" in way.values for way in forward.ways):
            return Known(True)
        many = forward.uselist if isinstance(forward.uselist, Known) else self._direction(target, owner, forward)
        return Known(not many.value) if isinstance(many, Known) else None

    def _foreign_keys(self, declared: Relationship) -> set[tuple[str, str]]:
        """Return the (class, attribute) pairs that `foreign_keys=` names."""
        found: set[tuple[str, str]] = set()
        for way in declared.ways:
            given = way.values.get("foreign_keys")
            if given is None:
                continue
            for inner in ast.walk(parsed(given.node) or given.node):
                if isinstance(inner, ast.Attribute) and isinstance(inner.value, (ast.Name, ast.Attribute)):
                    found.add((inner.value.id if isinstance(inner.value, ast.Name) else inner.value.attr, inner.attr))
                elif isinstance(inner, ast.Name) and isinstance(
                    self.source.names.resolve(inner, given.scope), Assigned
                ):
                    found.add((declared.model, inner.id))
        return found

    def _own_keys(self, owner: Model, target: Model, declared: Relationship) -> list[Column]:
        named = {attribute for model, attribute in self._foreign_keys(declared) if model == owner.name}
        keys = self._keys(owner, target)
        chosen = [column for column in keys if column.name in named] if named else keys
        return chosen if len(chosen) == 1 or (named and chosen) else []

    def _leads(self, owner: Model, target: Model) -> bool:
        """Tell whether the owner's table refers to the target's, by a column or by a constraint of the table."""
        if self._keys(owner, target):
            return True
        for scope in self.source.names.lineage(owner.scope):
            for binding in scope.bindings.get("__table_args__", ()) if isinstance(scope, Scope) else ():
                for node in ast.walk(binding.node):
                    if (
                        isinstance(node, ast.Call)
                        and leaf_of(node.func) == "ForeignKeyConstraint"
                        and len(node.args) > 1
                    ):
                        texts = [inner.value for inner in ast.walk(node.args[1]) if isinstance(inner, ast.Constant)]
                        if any(self._refers(str(text), target) for text in texts):
                            return True
        return False

    def _keys(self, owner: Model, target: Model) -> list[Column]:
        """Return the owner's columns that refer to the target's table."""
        found = []
        for column in owner.columns:
            refers = column.foreign_key
            if isinstance(refers, Known) and self._refers(str(refers.value), target):
                found.append(column)
        return found

    def _nullable(self, owner: Model, own: list[Column]) -> Value:
        """Say whether a to-one may have no counterpart: any of its columns may be null."""
        flags = [self._column_nullable(owner, column) for column in own]
        if Known(True) in flags:
            return Known(True)
        if flags and all(flag == Known(False) for flag in flags):
            return Known(False)
        return Unknown("whether its foreign key may be null is not settled")

    def _column_nullable(self, owner: Model, column: Column) -> Value:
        written = column.option("nullable")
        if not isinstance(written, Missing):
            return Known(bool(written.value)) if isinstance(written, Known) else written
        if column.option("primary_key") == Known(True):
            return Known(False)
        annotation = self._annotation(owner, column)
        if annotation is not None:
            return Known(_optional(annotation))
        return Known(True) if column.made == "Column" else Unknown("it is not annotated")

    def _annotation(self, owner: Model, column: Column) -> ast.expr | None:
        """Return what stands in `Mapped[...]`, or SQLModel's bare annotation."""
        for scope in self.source.names.lineage(owner.scope):
            for binding in scope.bindings.get(column.name, ()) if isinstance(scope, Scope) else ():
                node = parsed(binding.annotation)
                if isinstance(node, ast.Subscript) and leaf_of(node.value) == "Mapped":
                    return parsed(node.slice)
                if node is not None and column.made == "Field":
                    return node
        return None

    def _refers(self, text: str, target: Model) -> bool:
        table = text.rpartition(".")[0].rpartition(".")[2]
        names = {target.name}
        models = [target, *self._bases(target)]
        names |= {str(model.table.value) for model in models if isinstance(model.table, Known)}
        names |= {model.name for model in models}
        if not isinstance(target.table, Known):  # a base makes table names of class names
            names |= {target.name.lower(), re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", target.name).lower()}
        return table in names


def _lazy(value: Value) -> Value:
    match value:
        case Missing():
            return Known("select", "the default of relationship()")
        case Known(written, by) if written is None or isinstance(written, bool):
            return Known(_SYNONYMS[written], by)
        case _:
            return value


def _optional(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=None):
            return True
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _optional(left) or _optional(right)
        case ast.Subscript(value=base, slice=inner):
            if leaf_of(base) == "Optional":
                return True
            arms = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            return leaf_of(base) == "Union" and any(_optional(arm) for arm in arms)
        case _:
            return False


def _shared(mine: list[str], theirs: list[str]) -> int:
    count = 0
    for one, other in zip(mine, theirs, strict=False):
        if one != other:
            break
        count += 1
    return count
