"""What a name holds: a mapped object, or several, of a session."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.models.mapped import Model
    from verdigris.evidence.source.session.origins import Flags

DEPTH = 3
_QUERIES = {"execute", "exec", "scalars", "scalar", "stream", "stream_scalars", "get", "get_one"}
_ONE = {"first", "one", "one_or_none", "scalar", "scalar_one", "scalar_one_or_none"}
_MANY = {"all", "fetchall", "partitions"}
_SAME = {"unique", "execution_options", "yield_per"}
_LISTS = {"list", "List", "Sequence", "Iterable", "set", "tuple"}
_NEVER = {"metadata", "registry", "query", "model_config", "model_fields"}


@dataclass(frozen=True, slots=True)
class Holding:
    """A mapped object, or several, of a session; `persistent` is False until it was loaded, flushed or committed."""

    model: Model
    session: str | None
    many: bool = False
    persistent: bool = True

    def same(self, other: Holding) -> bool:
        """Tell whether two ways lead to the same kind of thing; comparing whole models would be slow."""
        return (self.model is other.model, self.session, self.many) == (True, other.session, other.many)


class Loads:
    """Objects and sessions of one tree's functions."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    def is_session_parameter(self, parameter: ast.arg, function: Scope) -> bool:
        """Tell whether a parameter is an asynchronous session."""
        around = function.parent or function.module.scope
        found = None
        if parameter.annotation is not None:
            found = self.source.types.annotation(parameter.annotation, around)
        default = function.default(parameter.arg)
        if found is None and default is not None:
            found = self.source.types.dependency(default, around)
        return found is not None and self.source.types.session_type(found) == "async"

    def target(self, call: ast.Call, scope: Scope, held: Mapping[str, Holding]) -> Scope | None:
        """Tell which function of the tree a call reaches; methods of held objects by their model."""
        func = call.func
        if isinstance(func, ast.Attribute) and isinstance(func.value, ast.Name) and func.value.id in held:
            member = self.source.names.class_attribute(held[func.value.id].model.scope, func.attr)
            return member if isinstance(member, Scope) and member.is_function else None
        target = self.source.types.callee(call, scope)
        return target if isinstance(target, Scope) and target.is_function else None

    def is_mapped(self, model: Model, name: str) -> bool:
        """Tell whether an attribute is a column or relationship, which expire; methods and plain attributes don't."""
        if (
            name in _NEVER
            or any(column.name == name for column in model.columns)
            or model.relationship(name) is not None
        ):
            return name not in _NEVER
        found = self.source.names.class_attribute(model.scope, name) if model.style == "sqlmodel" else None
        annotations = [binding.annotation for binding in found.bindings] if isinstance(found, Assigned) else []
        return any(annotation is not None and "ClassVar" not in ast.unparse(annotation) for annotation in annotations)

    def collected(self, model: Model) -> set[str]:
        """Name the models whose objects a query of this one loads along, as collections."""
        eager = {"selectin", "joined", "subquery", "immediate", False}
        return {
            relation.target.value
            for relation in model.relationships
            if isinstance(relation.lazy, Known) and relation.lazy.value in eager
            if isinstance(relation.target, Known) and relation.uselist != Known(value=False)
        }

    def injected(self, parameter: ast.arg, function: Scope, sessions: Mapping[str, Flags]) -> Holding | None:
        """Return what a dependency injects, if it was loaded by the session that is injected beside it."""
        provider = self.source.origins.provider(parameter, function)
        if not isinstance(provider, Scope) or parameter.arg in sessions:
            return None
        around = function.parent or function.module.scope
        found = None if parameter.annotation is None else self.source.types.annotation(parameter.annotation, around)
        model = self.source.models.of(found) if isinstance(found, Scope) else None
        if model is None:
            return None
        for name in sessions:
            node = next(each for each in function.parameters if each.arg == name)
            own = self.source.origins.provider(node, function)
            if own is not None and self._takes(provider, own):
                return Holding(model, name)
        return None

    def _takes(self, provider: Scope, session: Scope | External, depth: int = 0) -> bool:
        """Tell whether a dependency gets its session from the same provider."""
        if depth > DEPTH:
            return False
        function = self.source.names.class_attribute(provider, "__call__") if provider.is_class else provider
        if not isinstance(function, Scope):
            return False
        for parameter in function.parameters:
            own = self.source.origins.provider(parameter, function)
            if own is session or (isinstance(own, Scope) and self._takes(own, session, depth + 1)):
                return True
        return False

    def holding(
        self, node: ast.expr, scope: Scope, sessions: Mapping[str, Flags], held: Mapping[str, Holding]
    ) -> Holding | None:
        """Return what an expression gives, if that is a mapped object or a collection of them."""
        while isinstance(node, ast.Await):
            node = node.value
        if isinstance(node, ast.Name):
            return held.get(node.id)
        if isinstance(node, ast.IfExp):
            return self.holding(node.body, scope, sessions, held) or self.holding(node.orelse, scope, sessions, held)
        if isinstance(node, ast.Subscript):
            base = self.holding(node.value, scope, sessions, held)
            if base is not None and base.many:
                return base if isinstance(node.slice, ast.Slice) else replace(base, many=False)
            return None
        if not isinstance(node, ast.Call):
            return None
        queried = self._queried(node, scope, sessions)
        if queried is not None:
            return queried
        return self._constructed(node, scope) or self._helped(node, scope, sessions, held)

    def _queried(self, node: ast.Call, scope: Scope, sessions: Mapping[str, Flags]) -> Holding | None:
        """Read `await session.get(…)`, `(await session.execute(select(M))).scalars().all()` and names of results."""
        steps: list[str] = []
        current: ast.expr = node
        while isinstance(current, (ast.Call, ast.Await)):
            if isinstance(current, ast.Await):
                current = current.value
                continue
            if not isinstance(current.func, ast.Attribute):
                return None
            session = receiver(current, current.func.attr)
            if current.func.attr in _QUERIES and session in sessions:
                return self._result(current, current.func.attr, steps[::-1], str(session), scope)
            steps.append(current.func.attr)
            current = current.func.value
        if isinstance(current, ast.Name) and steps:
            meaning = self.source.names.resolve(current, scope)
            value = meaning.value if isinstance(meaning, Assigned) and meaning.scope is scope else None
            while isinstance(value, ast.Await):
                value = value.value
            if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute):
                session = receiver(value, value.func.attr)
                if value.func.attr in _QUERIES and session in sessions:
                    return self._result(value, value.func.attr, steps[::-1], str(session), scope)
        return None

    def _result(self, call: ast.Call, query: str, steps: list[str], session: str, scope: Scope) -> Holding | None:
        if query in {"get", "get_one"}:
            model = self.model(call.args[0], scope) if call.args else None
            return None if model is None or steps else Holding(model, session)
        model = self.selected(call, scope)
        if model is None:
            return None
        scalars = query in {"exec", "scalars", "stream_scalars"}
        if query == "scalar":
            return None if steps else Holding(model, session)
        for step in steps:
            if step == "scalars":
                scalars = True
            elif step in _ONE and (scalars or step.startswith("scalar")):
                return Holding(model, session)
            elif step in _MANY and scalars:
                return Holding(model, session, many=True)
            elif step not in _SAME:
                return None
        return Holding(model, session, many=True) if scalars else None

    def model(self, node: ast.expr, scope: Scope) -> Model | None:
        """Return the mapped class that an expression names."""
        found = self.source.names.resolve(node, scope)
        return self.source.models.of(found) if isinstance(found, Scope) else None

    def selected(self, call: ast.Call, scope: Scope) -> Model | None:
        """Return the model that the statement of a query selects whole, if it selects nothing else."""
        node: ast.expr | None = call.args[0] if call.args else None
        for _ in range(20):
            if isinstance(node, ast.Name):
                meaning = self.source.names.resolve(node, scope)
                if not isinstance(meaning, Assigned):
                    return None
                values = [binding.value for binding in meaning.bindings if binding.value is not None]
                first = [value for value in values if not _mentions(value, meaning.name)]
                node = first[0] if len(first) == 1 else None
            elif isinstance(node, ast.Call):
                named = self.source.names.resolve(node.func, scope)
                if (
                    isinstance(named, External)
                    and named.leaf == "select"
                    and named.package in {"sqlalchemy", "sqlmodel"}
                ):
                    return self.model(node.args[0], scope) if len(node.args) == 1 else None
                node = node.func.value if isinstance(node.func, ast.Attribute) else None
            else:
                return None
        return None

    def _constructed(self, node: ast.Call, scope: Scope) -> Holding | None:
        model = self.model(node.func, scope)
        return None if model is None else Holding(model, None, persistent=False)

    def _helped(
        self, node: ast.Call, scope: Scope, sessions: Mapping[str, Flags], held: Mapping[str, Holding]
    ) -> Holding | None:
        """Read `await get_user(session, id)`: a function that is given the session and returns a mapped object."""
        passed = [
            arg.id
            for arg in [*node.args, *(kw.value for kw in node.keywords)]
            if isinstance(arg, ast.Name) and arg.id in sessions
        ]
        if len(passed) != 1:
            return None
        target = self.target(node, scope, held)
        if target is None or not isinstance(target.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        where = target.parent or target.module.scope
        returns = target.node.returns
        if returns is None:
            return None
        if isinstance(returns, ast.Subscript) and ast.unparse(returns.value).rpartition(".")[2] in _LISTS:
            found = self.source.types.annotation(returns.slice, where)
            model = self.source.models.of(found) if isinstance(found, Scope) else None
            return None if model is None else Holding(model, passed[0], many=True)
        found = self.source.types.annotation(returns, where)
        model = self.source.models.of(found) if isinstance(found, Scope) else None
        if model is None and isinstance(node.func, ast.Attribute):  # Model.one_by_id(session, id) -> Self
            own = self.source.names.resolve(node.func.value, scope)
            generic = (
                found is None
                or found is target.enclosing_class
                or (isinstance(found, External) and found.leaf == "Self")
            )
            model = (
                self.source.models.of(own) if isinstance(own, Scope) and generic and not _is_plain(returns) else None
            )
        return None if model is None else Holding(model, passed[0])


def receiver(node: ast.expr, method: str) -> str | None:
    """Return what a method is called on, as it is written: `session`, `self.session`."""
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name() | ast.Attribute() as owner, attr=attr)) if attr == method:
            return ast.unparse(owner)
        case _:
            return None


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _is_plain(annotation: ast.expr) -> bool:
    return ast.unparse(annotation) in {"int", "str", "bool", "None", "dict", "list"} or isinstance(
        annotation, ast.Subscript
    )
