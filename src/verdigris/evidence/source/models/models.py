"""Mapped classes of a code base, in every style in use: declarative, mixins, declared_attr, SQLModel, 1.x columns."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.models.annotated import columns_of
from verdigris.evidence.source.models.indexes import indexes
from verdigris.evidence.source.models.mapped import Column, Model, Relationship
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.calls import Call
from verdigris.evidence.source.reading.evaluate import Argument, Options
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Binding, Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source

_BASES = {"DeclarativeBase", "DeclarativeBaseNoMeta", "declarative_base", "automap_base", "as_declarative", "Base"}
_GUARDED = {"verdigris.Base", "verdigris.models.Base", "verdigris.Guarded", "verdigris.models.Guarded"}
_COLUMNS = {"mapped_column", "Column", "Field", "deferred", "column_property"}
_RELATIONSHIPS = {"relationship", "Relationship", "dynamic_loader", "backref"}
_MAPPED = {"Mapped", "MappedColumn", "WriteOnlyMapped", "DynamicMapped"}  # MappedColumn is a Mapped
_COLLECTIONS = {
    "list",
    "List",
    "set",
    "Set",
    "Sequence",
    "Collection",
    "dict",
    "Dict",
    "WriteOnlyMapped",
    "DynamicMapped",
}


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
        columns = any(True for _ in self._attributes(scope))
        return has_table or (columns and not self._is_base(scope))

    def _mapped(self, scope: Scope, lineage: list[Scope | External]) -> bool:
        for base in lineage:
            if (
                isinstance(base, External)
                and base.package in {"sqlalchemy", "verdigris", "flask_sqlalchemy", "advanced_alchemy"}
                and base.leaf in _BASES
            ):
                return True
            if isinstance(base, Scope) and any(
                leaf_within(decorator) == "as_declarative" for decorator in base.decorators
            ):
                return True
        return "__tablename__" in scope.bindings and any(True for _ in self._attributes(scope))

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
            for name, where, binding in self._attributes(owner):
                if name in columns or name in relationships:
                    continue
                made = self._attribute(scope.name, name, where, binding, mixin=owner is not scope, base=lazy_base)
                if isinstance(made, Column):
                    columns[name] = made
                elif isinstance(made, Relationship):
                    relationships[name] = made
                    back = self._backref(made, where)
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

    def _attributes(self, scope: Scope) -> Iterator[tuple[str, Scope, Binding]]:
        """Yield what could be a column or a relationship: name, scope to read it in, binding."""
        for name, bindings in scope.bindings.items():
            last = bindings[-1]
            if last.kind in {"value", "annotation"} and self._made(last, scope) is not None:
                yield name, scope, last
            elif last.kind == "function":
                method = scope.member(name)
                if method is not None and any(
                    leaf_within(decorator) in {"declared_attr", "directive", "cascading"}
                    for decorator in method.decorators
                ):
                    for node in method.nodes():
                        if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                            annotation = (
                                method.node.returns
                                if isinstance(method.node, (ast.FunctionDef, ast.AsyncFunctionDef))
                                else None
                            )
                            binding = Binding("value", node, node.value, annotation)
                            if self._made(binding, method) is not None:
                                yield name, method, binding
                            break

    def _made(self, binding: Binding, scope: Scope) -> str | None:
        """Tell what makes an attribute: mapped_column, Column, Field, relationship, …, annotation."""
        if isinstance(binding.value, ast.Call):
            meaning = self.source.names.resolve(binding.value.func, scope)
            if (
                isinstance(meaning, External)
                and meaning.package in {"sqlalchemy", "sqlmodel"}
                and meaning.leaf in _COLUMNS | _RELATIONSHIPS
            ):
                return meaning.leaf
            if isinstance(meaning, Scope) and meaning.is_function:
                return self._helper(meaning)
        if binding.annotation is not None:
            mapped = self._mapped_annotation(binding.annotation, scope)
            if mapped is not None:
                return mapped if mapped != "Mapped" else "annotation"
        return None

    def _helper(self, function: Scope) -> str | None:
        """A function of the tree that returns a relationship or a column is one."""
        for node in function.nodes():
            if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                meaning = self.source.names.resolve(node.value.func, function)
                if (
                    isinstance(meaning, External)
                    and meaning.package == "sqlalchemy"
                    and meaning.leaf in _COLUMNS | _RELATIONSHIPS
                ):
                    return meaning.leaf
        return None

    def _mapped_annotation(self, annotation: ast.expr, scope: Scope) -> str | None:
        if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
            try:
                annotation = ast.parse(annotation.value, mode="eval").body
            except (SyntaxError, ValueError):
                return None
        if isinstance(annotation, ast.Subscript):
            meaning = self.source.names.resolve(annotation.value, scope)
            if isinstance(meaning, External) and meaning.leaf in _MAPPED:
                return "Mapped" if meaning.leaf == "MappedColumn" else meaning.leaf
        return None

    def _attribute(
        self, model: str, name: str, scope: Scope, binding: Binding, *, mixin: bool, base: str | None
    ) -> Column | Relationship | None:
        made = self._made(binding, scope)
        call = binding.value if isinstance(binding.value, ast.Call) else None
        evaluator = self.source.evaluator
        place = scope.module.place(binding.node)
        mapped = binding.annotation is not None and self._mapped_annotation(binding.annotation, scope) is not None
        if made in {"WriteOnlyMapped", "DynamicMapped"} or made in _RELATIONSHIPS:
            return self._relationship(model, name, scope, binding, made=str(made), place=place, base=base)
        if call is None and made == "annotation":
            target = _inner(binding.annotation)
            if target is not None and self._class_named(target, scope) is not None:
                return None
            ways, arguments = self._brought(binding, scope, (Options(),), ())
            return Column(
                f"{model}.{name}",
                place,
                model,
                name,
                "annotation",
                True,
                ways,
                arguments,
                evaluator,
                mixin,
                binding.node,
            )
        if call is None:
            return None
        inner = self._sa_column(call, scope)
        ways, arguments = self._brought(binding, scope, *self._call_options(inner, scope))
        return Column(
            f"{model}.{name}",
            place,
            model,
            name,
            leaf_within(inner.func) if made == "Field" else str(made),
            mapped,
            ways,
            arguments,
            evaluator,
            mixin,
            binding.node,
            self._direct(call, scope),
        )

    def _brought(
        self, binding: Binding, scope: Scope, ways: tuple[Options, ...], arguments: tuple[Argument, ...]
    ) -> tuple[tuple[Options, ...], tuple[Argument, ...]]:
        """Add to a column what its annotation says of it; what the attribute itself says goes before."""
        calls = columns_of(binding.annotation, scope, self.source.names)
        brought = [self._call_options(call, where) for call, where in calls]
        if not brought:
            return ways, arguments
        return tuple(under.merged(own) for each, _ in brought for under in each for own in ways), (
            *arguments,
            *brought[0][1],
        )

    def _sa_column(self, call: ast.Call, scope: Scope) -> ast.Call:
        """SQLModel's `Field(sa_column=Column(...))` is the column it names."""
        for given in call.keywords:
            if given.arg == "sa_column" and isinstance(given.value, ast.Call):
                return given.value
        return call

    def _direct(self, call: ast.Call | None, scope: Scope) -> Call | None:
        """Return a call that takes the maker's own keywords: none of a function of the project."""
        is_ours = call is not None and isinstance(self.source.names.resolve(call.func, scope), Scope)
        return None if call is None or is_ours else Call(call, scope)

    def _call_options(self, call: ast.Call, scope: Scope) -> tuple[tuple[Options, ...], tuple[Argument, ...]]:
        meaning = self.source.names.resolve(call.func, scope)
        if isinstance(meaning, Scope) and meaning.is_function:
            frame = self.source.evaluator.frame(call, scope, meaning)
            for node in meaning.nodes():
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Call):
                    ways = self.source.evaluator.options(node.value, meaning, frame)
                    return tuple(ways), tuple(Argument(arg, meaning, frame) for arg in node.value.args)
        ways = self.source.evaluator.options(call, scope)
        return tuple(ways), tuple(Argument(arg, scope) for arg in call.args)

    def _relationship(
        self, model: str, name: str, scope: Scope, binding: Binding, *, made: str, place: Place, base: str | None
    ) -> Relationship:
        call = binding.value if isinstance(binding.value, ast.Call) else None
        ways, arguments = self._call_options(call, scope) if call is not None else ((Options(),), ())
        if made == "Relationship":
            ways = tuple(merged for way in ways for merged in self._sqlmodel_ways(way))
        mapped = self._mapped_annotation(binding.annotation, scope) if binding.annotation is not None else None
        kind = mapped if mapped in {"WriteOnlyMapped", "DynamicMapped"} else made
        target, many = self._target(binding, scope, arguments, ways)
        return Relationship(
            f"{model}.{name}",
            place,
            model,
            name,
            str(kind),
            target,
            many,
            ways,
            arguments,
            self.source.evaluator,
            base,
            binding.node,
            self._direct(call, scope),
        )

    def _backref(self, owner: Relationship, scope: Scope) -> Relationship | None:
        """Return the relationship that `backref=` makes on the other class, declared where its owner is."""
        given = next((way.values["backref"] for way in owner.ways if "backref" in way.values), None)
        if given is None:
            return None
        ways: tuple[Options, ...] = (Options(),)
        name = given.node
        if isinstance(given.node, ast.Call):
            ways, arguments = self._call_options(given.node, given.scope)
            named = next((way.values["name"].node for way in ways if "name" in way.values), None)
            name = arguments[0].node if arguments else named or given.node
        if not (isinstance(name, ast.Constant) and isinstance(name.value, str)):
            return None
        target = owner.target.value if isinstance(owner.target, Known) else "?"
        many = Unknown("a backref does not say how many")
        this = Known(owner.model)
        return Relationship(
            f"{target}.{name.value}",
            owner.place,
            str(target),
            name.value,
            "backref",
            this,
            many,
            ways,
            (),
            self.source.evaluator,
            owner.base,
        )

    def _sqlmodel_ways(self, way: Options) -> list[Options]:
        given = way.values.get("sa_relationship_kwargs")
        return [way] if given is None else [way.merged(inner) for inner in self.source.evaluator.dictionaries(given)]

    def _target(
        self, binding: Binding, scope: Scope, arguments: tuple[Argument, ...], ways: tuple[Options, ...]
    ) -> tuple[Value, Value]:
        """Return the related class's name and whether there are many."""
        named: Value = Unknown("the related class is not named in the source")
        explicit = next((way.values["argument"] for way in ways if "argument" in way.values), None)
        first = arguments[0] if arguments else explicit
        if first is not None:
            found = self._class_named(first.node, first.scope)
            named = Known(found) if found is not None else named
        written = agree([self._flag(way) for way in ways])
        annotation = _inner(binding.annotation) if binding.annotation is not None else None
        if annotation is not None:
            collection, element = _element(
                annotation,
                {"WriteOnlyMapped", "DynamicMapped"}
                if _leaf_of(binding.annotation) in {"WriteOnlyMapped", "DynamicMapped"}
                else set(),
            )
            found = self._class_named(element, scope)
            if isinstance(named, Unknown) and found is not None:
                named = Known(found)
            if isinstance(written, Missing):
                written = Known(collection)
        return named, written if not isinstance(written, Missing) else Unknown(
            "neither annotation nor `uselist` says how many"
        )

    def _flag(self, way: Options) -> Value:
        return self.source.evaluator.value(way.values["uselist"]) if "uselist" in way.values else Missing()

    def _class_named(self, node: ast.expr, scope: Scope) -> str | None:
        """Return the name of the mapped class an expression or a string names."""
        if isinstance(node, ast.Lambda):
            node = node.body
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            last = node.value.strip().strip("'\"").rpartition(".")[2]
            return last if last.isidentifier() and last in self.source.class_names else None
        meaning = self.source.names.resolve(node, scope)
        if isinstance(meaning, Scope) and meaning.is_class:
            return meaning.name
        leaf = leaf_within(node)
        return leaf if leaf in self.source.class_names and isinstance(node, ast.Name) and meaning is None else None


def _inner(annotation: ast.expr | None) -> ast.expr | None:
    """Take `X` out of `Mapped[X]`; for SQLModel's bare annotations it is the annotation itself."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            annotation = ast.parse(annotation.value, mode="eval").body
        except (SyntaxError, ValueError):
            return None
    if isinstance(annotation, ast.Subscript) and leaf_within(annotation.value) in _MAPPED:
        return annotation.slice
    return annotation


def _leaf_of(annotation: ast.expr | None) -> str:
    return leaf_within(annotation.value) if isinstance(annotation, ast.Subscript) else ""


def _element(annotation: ast.expr, outer: set[str]) -> tuple[bool, ast.expr]:
    """Tell whether an annotation is a collection, and of what."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return _element(ast.parse(annotation.value, mode="eval").body, outer)
        except (SyntaxError, ValueError):
            return bool(outer), annotation
    if isinstance(annotation, ast.BinOp):
        left_none = isinstance(annotation.left, ast.Constant) and annotation.left.value is None
        return _element(annotation.right if left_none else annotation.left, outer)
    if isinstance(annotation, ast.Subscript):
        inner = annotation.slice
        last = inner.elts[-1] if isinstance(inner, ast.Tuple) and inner.elts else inner
        if leaf_within(annotation.value) in _COLLECTIONS:
            return True, _element(last, outer)[1]
        if leaf_within(annotation.value) == "Optional":
            return _element(last, outer)
    return bool(outer), annotation


def _constant(scope: Scope, name: str) -> object:
    for binding in scope.bindings.get(name, ()):
        if isinstance(binding.value, ast.Constant):
            return binding.value.value
    return None
