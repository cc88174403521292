"""What the attributes of a mapped class are: columns, relationships and their backrefs, in every style in use."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.models.annotated import columns_of
from verdigris.evidence.source.models.mapped import Column, Relationship
from verdigris.evidence.source.reading.calls import Call
from verdigris.evidence.source.reading.evaluate import Argument, Options
from verdigris.evidence.source.reading.modules import Binding, Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import leaf_within, parsed
from verdigris.evidence.values import Known, Missing, Place, Unknown, Value, agree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source

_COLUMNS = {"mapped_column", "Column", "Field", "deferred", "column_property"}
_RELATIONSHIPS = {"relationship", "Relationship", "dynamic_loader", "backref"}
_MAPPED = {"Mapped", "MappedColumn", "WriteOnlyMapped", "DynamicMapped"}  # MappedColumn is a Mapped
_BY_STATEMENT = {"WriteOnlyMapped", "DynamicMapped"}  # collections that are read by statements of their own
_COLLECTIONS = {"list", "List", "set", "Set", "Sequence", "Collection", "dict", "Dict", *_BY_STATEMENT}


class Attributes:
    """Reads the attributes of the classes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def of(self, scope: Scope) -> Iterator[tuple[str, Scope, Binding]]:
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

    def _mapped_annotation(self, written: ast.expr, scope: Scope) -> str | None:
        annotation = parsed(written)
        if isinstance(annotation, ast.Subscript):
            meaning = self.source.names.resolve(annotation.value, scope)
            if isinstance(meaning, External) and meaning.leaf in _MAPPED:
                return "Mapped" if meaning.leaf == "MappedColumn" else meaning.leaf
        return None

    def read(
        self, model: str, name: str, scope: Scope, binding: Binding, *, mixin: bool, base: str | None
    ) -> Column | Relationship | None:
        """Return the column or the relationship that an attribute of a model is, if it is one."""
        made = self._made(binding, scope)
        call = binding.value if isinstance(binding.value, ast.Call) else None
        evaluator = self.source.evaluator
        place = scope.module.place(binding.node)
        mapped = binding.annotation is not None and self._mapped_annotation(binding.annotation, scope) is not None
        if made in _BY_STATEMENT or made in _RELATIONSHIPS:
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
                scope=scope,
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
            scope,
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
        kind = mapped if mapped in _BY_STATEMENT else made
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

    def backref(self, owner: Relationship, scope: Scope) -> Relationship | None:
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
            given=given,
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
            outer = _BY_STATEMENT if _leaf_of(binding.annotation) in _BY_STATEMENT else set()
            collection, element = _element(annotation, outer)
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
    annotation = parsed(annotation)
    if isinstance(annotation, ast.Subscript) and leaf_within(annotation.value) in _MAPPED:
        return annotation.slice
    return annotation


def _leaf_of(annotation: ast.expr | None) -> str:
    return leaf_within(annotation.value) if isinstance(annotation, ast.Subscript) else ""


def _element(annotation: ast.expr, outer: set[str]) -> tuple[bool, ast.expr]:
    """Tell whether an annotation is a collection, and of what."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        written = parsed(annotation)
        return (bool(outer), annotation) if written is None else _element(written, outer)
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
