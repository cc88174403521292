"""Three-valued evaluation: what an expression is worth without running anything.

Constants, names, settings classes' defaults, environment defaults, dictionaries built step by step and passed as
`**options`, and parameters of wrapper functions (through a Frame that remembers the call). Whatever else is Unknown,
with its reason.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from verdigris.evidence.source.modules import Scope
from verdigris.evidence.source.names import Assigned, External, Names
from verdigris.evidence.source.types import Types, self_assignments
from verdigris.evidence.values import Known, Missing, Unknown, Value, agree

DEPTH = 16
ALTERNATIVES = 16  # more branches than this are not told apart
_CONVERSIONS = {"int": int, "float": float, "str": str, "bool": bool}


@dataclass(frozen=True, slots=True)
class Argument:
    """An expression with the scope and the call in which it is to be read."""

    node: ast.expr
    scope: Scope
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Options:
    """Keyword arguments of one way through the code; `open` says what else may be among them."""

    values: Mapping[str, Argument] = field(default_factory=dict)
    open: str | None = None

    def with_(self, **more: Argument) -> Options:
        """Add or replace arguments."""
        return replace(self, values={**self.values, **more})

    def merged(self, other: Options) -> Options:
        """Add the other's arguments; either's openness stays."""
        return Options({**self.values, **other.values}, self.open or other.open)


@dataclass(frozen=True, slots=True)
class Frame:
    """A call of a function of the tree: which argument each parameter got, and what went into `**kwargs`."""

    function: Scope
    arguments: Mapping[str, Argument]
    extra: Options = Options()
    call: ast.Call | None = None
    caller: Scope | None = None
    outer: Frame | None = None


class Evaluator:
    """Evaluates expressions of one tree."""

    def __init__(self, names: Names, types: Types) -> None:
        """Use the names and types of the tree."""
        self.names = names
        self.types = types

    def value(self, argument: Argument, depth: int = 0) -> Value:
        """Return what an expression is worth."""
        node, scope, frame = argument.node, argument.scope, argument.frame
        if depth > DEPTH:
            return Unknown(f"`{_short(node)}` is defined in a circle")
        match node:
            case ast.Constant(value=constant):
                return Known(constant)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, self.value(Argument(operand, scope, frame), depth + 1), node)
            case ast.BinOp(left=left, op=op, right=right):
                sides = (self.value(Argument(side, scope, frame), depth + 1) for side in (left, right))
                return _binary(*sides, op, node)
            case ast.JoinedStr(values=parts):
                return self._joined(parts, argument, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return agree([self.value(Argument(arm, scope, frame), depth + 1) for arm in (body, orelse)])
            case ast.BoolOp(op=ast.Or(), values=values):
                arms = [self.value(Argument(arm, scope, frame), depth + 1) for arm in values]
                return next((arm for arm in arms if not isinstance(arm, Known) or arm.value), arms[-1])
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                worth = [self.value(Argument(item, scope, frame), depth + 1) for item in items]
                known = [item.value for item in worth if isinstance(item, Known)]
                return Known(known) if len(known) == len(worth) else Unknown(f"`{_short(node)}` holds unknown items")
            case ast.Name() | ast.Attribute():
                return self._named(argument, depth)
            case ast.Call():
                return self._call(node, argument, depth)
            case _:
                return Unknown(f"`{_short(node)}` is computed")

    def _unary(self, op: ast.unaryop, operand: Value, node: ast.expr) -> Value:
        if not isinstance(operand, Known):
            return operand
        try:
            if isinstance(op, ast.USub):
                return Known(-operand.value)
            if isinstance(op, ast.Not):
                return Known(not operand.value)
        except TypeError:
            pass
        return Unknown(f"`{_short(node)}` is computed")

    def _joined(self, parts: list[ast.expr], argument: Argument, depth: int) -> Value:
        text = ""
        for part in parts:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            worth = self.value(replace(argument, node=inner), depth + 1)
            if not isinstance(worth, Known):
                return Unknown(f"`{_short(argument.node)}` has parts that are not known here")
            text += str(worth.value)
        return Known(text)

    def _named(self, argument: Argument, depth: int) -> Value:
        node, scope, frame = argument.node, argument.scope, argument.frame
        meaning = self.names.resolve(node, scope)
        if isinstance(meaning, Assigned):
            return self.assigned(meaning, frame, depth + 1)
        if isinstance(meaning, (External, Scope)):
            return Known(meaning)
        if isinstance(node, ast.Attribute):
            owner = self.types.of(node.value, scope)
            if isinstance(owner, Scope):
                return self.attribute(owner, node.attr, frame, depth + 1)
        return Unknown(f"`{_short(node)}` is not settled by the source")

    def assigned(self, meaning: Assigned, frame: Frame | None, depth: int = 0) -> Value:
        """Return the value of a variable, a parameter (by the call at hand) or a class attribute."""
        if meaning.scope.is_function and meaning.bindings[0].kind == "parameter":
            return self._parameter(meaning, frame, depth)
        values = [binding for binding in meaning.bindings if binding.kind == "value" and binding.value is not None]
        others = [binding for binding in meaning.bindings if binding.kind not in {"value", "annotation"} or binding.unpacked]
        if not values or others:
            return Unknown(f"`{meaning.name}` is not assigned as one value")
        inner = frame if frame is not None and frame.function is meaning.scope.function else None
        worth = [
            self.value(Argument(binding.value, meaning.scope, inner), depth + 1)
            for binding in values
            if binding.value is not None
        ]
        return agree(worth)

    def _parameter(self, meaning: Assigned, frame: Frame | None, depth: int) -> Value:
        while frame is not None and frame.function is not meaning.scope:
            frame = frame.outer
        if frame is not None and meaning.name in frame.arguments:
            return self.value(frame.arguments[meaning.name], depth + 1)
        default = meaning.scope.default(meaning.name)
        if frame is not None and frame.extra.open is None and default is not None:
            return self.value(Argument(default, meaning.scope.parent or meaning.scope), depth + 1)
        return Unknown(f"`{meaning.name}` is a parameter of {meaning.scope.name}()")

    def attribute(self, owner: Scope, name: str, frame: Frame | None = None, depth: int = 0) -> Value:
        """Return the default of a settings class's field, a constant of a class, or what a property returns."""
        for base in self.names.lineage(owner):
            if not isinstance(base, Scope):
                continue
            member = base.member(name)
            if member is not None and member.is_function:
                return self.returned(Frame(member, {}), depth + 1)
            if name in base.bindings:
                found = self.assigned(Assigned(base, name), frame, depth + 1)
                by = f"{base.name}.{name}"
                return Known(found.value, found.by or by) if isinstance(found, Known) else found
            written = [Argument(value, scope) for value, _, scope in self_assignments(base, name) if value is not None]
            if written:
                return agree([self.value(argument, depth + 1) for argument in written])
        return Unknown(f"{owner.name}.{name} has no value in the source")

    def returned(self, frame: Frame, depth: int = 0) -> Value:
        """Return what a function returns, if all its returns agree."""
        returns = [node for node in frame.function.nodes() if isinstance(node, ast.Return) and node.value is not None]
        if not returns:
            return Unknown(f"{frame.function.name}() returns nothing that the source settles")
        return agree([self.value(Argument(node.value, frame.function, frame), depth + 1) for node in returns if node.value])

    def _call(self, node: ast.Call, argument: Argument, depth: int) -> Value:
        scope, frame = argument.scope, argument.frame
        meaning = self.types.callee(node, scope)
        if isinstance(meaning, External):
            return self._outside(meaning, node, argument, depth)
        if isinstance(meaning, Scope) and meaning.is_function and not _is_generator(meaning):
            return self.returned(self.frame(node, scope, meaning, frame), depth + 1)
        if meaning is None and isinstance(node.func, ast.Name) and node.func.id in _CONVERSIONS and len(node.args) == 1:
            worth = self.value(Argument(node.args[0], scope, frame), depth + 1)
            return _converted(worth, node.func.id)
        if isinstance(node.func, ast.Attribute) and node.func.attr in {"lower", "strip", "replace", "upper", "format", "removeprefix"}:
            return self._method(node.func, node, argument, depth)
        return Unknown(f"`{_short(node)}` is computed")

    def _outside(self, meaning: External, node: ast.Call, argument: Argument, depth: int) -> Value:
        if meaning.dotted in {"os.getenv", "os.environ.get"} or meaning.leaf in {"config", "env", "getenv"}:
            name = node.args[0].value if node.args and isinstance(node.args[0], ast.Constant) else "?"
            default = _keyword(node, "default") or (node.args[1] if len(node.args) > 1 else None)
            if default is not None:
                worth = self.value(replace(argument, node=default), depth + 1)
                if isinstance(worth, Known) and worth.value is not None:
                    return Known(worth.value, f"default of the environment variable {name}")
            return Unknown(f"it comes from the environment variable {name}")
        if meaning.leaf in {"Field", "field"}:
            default = _keyword(node, "default") or (node.args[0] if node.args else None)
            if default is not None and not (isinstance(default, ast.Constant) and default.value is Ellipsis):
                return self.value(replace(argument, node=default), depth + 1)
            return Unknown(f"the field `{_short(node)}` has no default")
        return Unknown(f"`{_short(node)}` comes from outside the source")

    def _method(self, func: ast.Attribute, node: ast.Call, argument: Argument, depth: int) -> Value:
        base = self.value(replace(argument, node=func.value), depth + 1)
        given = [self.value(replace(argument, node=arg), depth + 1) for arg in node.args]
        if isinstance(base, Known) and isinstance(base.value, str) and all(isinstance(arg, Known) for arg in given):
            try:
                return Known(getattr(base.value, func.attr)(*[arg.value for arg in given if isinstance(arg, Known)]))
            except (TypeError, ValueError, LookupError):
                pass
        return base if isinstance(base, Unknown) else Unknown(f"`{_short(node)}` is computed")

    def frame(self, call: ast.Call, scope: Scope, function: Scope, outer: Frame | None = None) -> Frame:
        """Match a call's arguments to a function's parameters."""
        bound: dict[str, Argument] = {}
        extra: dict[str, Argument] = {}
        names = [parameter.arg for parameter in function.parameters]
        if names[:1] in (["self"], ["cls"]) and function.enclosing_class is not None:
            names = names[1:]
        for name, value in zip(names, call.args, strict=False):
            if isinstance(value, ast.Starred):
                break
            bound[name] = Argument(value, scope, outer)
        opened: str | None = None
        for keyword in call.keywords:
            target = bound if keyword.arg in names else extra
            if keyword.arg is not None:
                target[keyword.arg] = Argument(keyword.value, scope, outer)
                continue
            for name, passed in self._single(keyword.value, scope, outer).values.items():
                (bound if name in names else extra)[name] = passed
            opened = opened or self._single(keyword.value, scope, outer).open
        return Frame(function, bound, Options(extra, opened), call, scope, outer)

    def _single(self, node: ast.expr, scope: Scope, outer: Frame | None) -> Options:
        ways = self.dictionaries(Argument(node, scope, outer))
        if len(ways) == 1:
            return ways[0]
        return Options({}, f"`**{_short(node)}` depends on a condition")

    def options(self, call: ast.Call, scope: Scope, frame: Frame | None = None) -> list[Options]:
        """Return the keyword arguments of a call, one value for each way in which `**mappings` may have been built."""
        ways = [Options()]
        for keyword in call.keywords:
            if keyword.arg is not None:
                ways = [way.with_(**{keyword.arg: Argument(keyword.value, scope, frame)}) for way in ways]
            else:
                inner = self.dictionaries(Argument(keyword.value, scope, frame))
                ways = [way.merged(other) for way in ways for other in inner]
            if len(ways) > ALTERNATIVES:
                return [replace(ways[0], open="its options depend on too many conditions")]
        return ways

    def dictionaries(self, argument: Argument, depth: int = 0) -> list[Options]:
        """Return the mappings an expression may be, one for each way through the code that builds it."""
        node, scope, frame = argument.node, argument.scope, argument.frame
        unknown = [Options({}, f"`**{_short(node)}` is not settled by the source")]
        if depth > DEPTH:
            return unknown
        match node:
            case ast.Dict(keys=keys, values=values):
                return self._literal(keys, values, argument, depth)
            case ast.IfExp(body=body, orelse=orelse):
                arms = [self.dictionaries(replace(argument, node=arm), depth + 1) for arm in (body, orelse)]
                return [way for arm in arms for way in arm]
            case ast.BoolOp(op=ast.Or(), values=values):
                return self.dictionaries(replace(argument, node=values[0]), depth + 1)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return [
                    first.merged(second)
                    for first in self.dictionaries(replace(argument, node=left), depth + 1)
                    for second in self.dictionaries(replace(argument, node=right), depth + 1)
                ]
            case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
                start = self.dictionaries(replace(argument, node=args[0]), depth + 1) if args else [Options()]
                call = ast.Call(func=node.func, args=[], keywords=keywords)
                return [way.merged(more) for way in start for more in self.options(call, scope, frame)]
            case ast.Call():
                meaning = self.types.callee(node, scope)
                if isinstance(meaning, Scope) and meaning.is_function and not _is_generator(meaning):
                    return self._returned_dictionaries(self.frame(node, scope, meaning, frame), depth) or unknown
                return unknown
            case ast.Name() | ast.Attribute():
                meaning = self.names.resolve(node, scope)
                if isinstance(meaning, Assigned):
                    return self._built(meaning, frame, depth) or unknown
                return unknown
            case _:
                return unknown

    def _literal(
        self, keys: list[ast.expr | None], values: list[ast.expr], argument: Argument, depth: int
    ) -> list[Options]:
        ways = [Options()]
        for key, value in zip(keys, values, strict=True):
            if key is None:
                inner = self.dictionaries(replace(argument, node=value), depth + 1)
                ways = [way.merged(other) for way in ways for other in inner]
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                ways = [way.with_(**{key.value: replace(argument, node=value)}) for way in ways]
            else:
                ways = [replace(way, open=f"the key `{_short(key)}` is computed") for way in ways]
        return ways

    def _returned_dictionaries(self, frame: Frame, depth: int) -> list[Options]:
        found: list[Options] = []
        for node in frame.function.nodes():
            if isinstance(node, ast.Return) and node.value is not None:
                found += self.dictionaries(Argument(node.value, frame.function, frame), depth + 1)
        return found

    def _built(self, meaning: Assigned, frame: Frame | None, depth: int) -> list[Options]:
        """Run the statements that build a dictionary, forking at each `if`."""
        scope = meaning.scope
        kwarg = getattr(getattr(scope.node, "args", None), "kwarg", None)
        ways: list[Options] = []
        if kwarg is not None and kwarg.arg == meaning.name:
            while frame is not None and frame.function is not scope:
                frame = frame.outer
            ways = [frame.extra if frame is not None else Options({}, f"callers of {scope.name}() pass `**{kwarg.arg}`")]
        elif meaning.bindings[0].kind == "parameter":
            while frame is not None and frame.function is not scope:
                frame = frame.outer
            if frame is None or meaning.name not in frame.arguments:
                return []
            ways = self.dictionaries(frame.arguments[meaning.name], depth + 1)
        body = [] if isinstance(scope.node, ast.Lambda) else scope.node.body
        inner = frame if frame is not None and frame.function is scope else None
        return _Builder(self, meaning.name, scope, inner, depth).run(body, ways)


@dataclass(slots=True)
class _Builder:
    """Follows one name through statements, as far as it is bound to a dictionary."""

    evaluator: Evaluator
    name: str
    scope: Scope
    frame: Frame | None
    depth: int

    def run(self, statements: list[ast.stmt], ways: list[Options]) -> list[Options]:
        for statement in statements:
            ways = self._step(statement, ways)
            if len(ways) > ALTERNATIVES:
                return [replace(ways[0], open=f"`{self.name}` is built under too many conditions")]
        return ways

    def _step(self, statement: ast.stmt, ways: list[Options]) -> list[Options]:
        if not _mentions(statement, self.name):
            return ways
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if (
                name == self.name
            ):
                return self._mappings(value)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value) if name == self.name:
                if isinstance(key, ast.Constant) and isinstance(key.value, str):
                    return [way.with_(**{key.value: Argument(value, self.scope, self.frame)}) for way in ways]
                return [replace(way, open=f"`{self.name}[{_short(key)}]` is computed") for way in ways]
            case ast.AugAssign(target=ast.Name(id=name), op=ast.BitOr(), value=value) if name == self.name:
                return [way.merged(more) for way in ways for more in self._mappings(value)]
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update")) as call) if name == self.name:
                added = self._mappings(call.args[0]) if call.args else [Options()]
                named = self.evaluator.options(call, self.scope, self.frame)
                return [way.merged(first).merged(second) for way in ways for first in added for second in named]
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="setdefault"), args=[ast.Constant(value=str(key)), value])) if (
                name == self.name
            ):
                passed = Argument(value, self.scope, self.frame)
                return [way if key in way.values else way.with_(**{key: passed}) for way in ways]
            case ast.If(body=body, orelse=orelse):
                return self.run(body, ways) + self.run(orelse, ways)
            case ast.With(body=body) | ast.AsyncWith(body=body) | ast.Try(body=body) | ast.For(body=body):
                return self.run(body, ways)
            case _:
                return ways

    def _mappings(self, value: ast.expr) -> list[Options]:
        return self.evaluator.dictionaries(Argument(value, self.scope, self.frame), self.depth + 1)


def _mentions(node: ast.AST, name: str) -> bool:
    return any(isinstance(inner, ast.Name) and inner.id == name for inner in ast.walk(node))


def _binary(left: Value, right: Value, op: ast.operator, node: ast.expr) -> Value:
    if isinstance(left, Unknown):
        return left
    if isinstance(left, Known) and isinstance(right, Known):
        try:
            match op:
                case ast.Add():
                    return Known(left.value + right.value)
                case ast.Sub():
                    return Known(left.value - right.value)
                case ast.Mult() if not isinstance(left.value, (str, list)):
                    return Known(left.value * right.value)
                case ast.FloorDiv():
                    return Known(left.value // right.value)
        except (TypeError, ZeroDivisionError, ValueError):
            pass
    return right if isinstance(right, Unknown) else Unknown(f"`{_short(node)}` is computed")


def _converted(worth: Value, name: str) -> Value:
    if not isinstance(worth, Known):
        return worth
    try:
        converted: Any = _CONVERSIONS[name](worth.value)
    except (TypeError, ValueError):
        return Unknown(f"{name}({worth.value!r}) is no {name}")
    return Known(converted, worth.by)


def _keyword(call: ast.Call, name: str) -> ast.expr | None:
    return next((keyword.value for keyword in call.keywords if keyword.arg == name), None)


def _is_generator(function: Scope) -> bool:
    return any(isinstance(node, (ast.Yield, ast.YieldFrom)) for node in function.nodes())


def _short(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 50 else f"{text[:47]}..."  # noqa: PLR2004 - one clause of a sentence
