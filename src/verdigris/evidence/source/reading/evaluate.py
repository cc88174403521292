"""Three-valued evaluation: what an expression is worth without running anything.

Constants, names, settings classes' defaults, environment defaults, dictionaries built step by step and passed as
`**options`, and parameters of wrapper functions (through a Frame that remembers the call). Whatever else is Unknown,
with its reason.
"""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from verdigris.evidence.source.reading.arguments import Argument, Frame, Options, is_generator, keyword, short
from verdigris.evidence.source.reading.attributes import self_assignments
from verdigris.evidence.source.reading.mappings import DEPTH, Mappings
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import FIELD, Assigned, External, Names
from verdigris.evidence.values import Known, Missing, Unknown, Value, agree

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.types import Types

__all__ = ["Argument", "Evaluator", "Frame", "Options"]

_READERS = {"AutoConfig", "Config", "Env"}  # of starlette, decouple, environs: config("NAME", default=…)
_CONVERSIONS = {"int": int, "float": float, "str": str, "bool": bool}


class Evaluator:
    """Evaluates expressions of one tree."""

    def __init__(self, names: Names, types: Types) -> None:
        """Use the names and types of the tree."""
        self.names = names
        self.types = types
        self.mappings = Mappings(self)
        self._busy: set[tuple[int, str]] = set()

    def value(self, argument: Argument, depth: int = 0) -> Value:  # noqa: C901, PLR0911, PLR0912 - one case a node
        """Return what an expression is worth."""
        node, scope, frame = argument.node, argument.scope, argument.frame
        if depth > DEPTH:
            return Unknown(f"`{short(node)}` is defined in a circle")
        match node:
            case ast.Constant(value=constant):
                return Known(constant)
            case ast.UnaryOp(op=op, operand=operand):
                return self._unary(op, self.value(Argument(operand, scope, frame), depth + 1), node)
            case ast.BinOp(left=left, op=op, right=right):
                first, second = (self.value(Argument(side, scope, frame), depth + 1) for side in (left, right))
                return _binary(first, second, op, node)
            case ast.JoinedStr(values=parts):
                return self._joined(parts, argument, depth)
            case ast.IfExp(body=body, orelse=orelse):
                return agree([self.value(Argument(arm, scope, frame), depth + 1) for arm in (body, orelse)])
            case ast.BoolOp(op=ast.Or(), values=values):
                return self._either(values, argument, depth)
            case ast.List(elts=items) | ast.Tuple(elts=items) | ast.Set(elts=items):
                worth = [self.value(Argument(item, scope, frame), depth + 1) for item in items]
                known = [item.value for item in worth if isinstance(item, Known)]
                return Known(known) if len(known) == len(worth) else Unknown(f"`{short(node)}` holds unknown items")
            case ast.Name() | ast.Attribute():
                return self._named(argument, depth)
            case ast.Call():
                return self._call(node, argument, depth)
            case ast.Await(value=awaited) | ast.NamedExpr(value=awaited):
                return self.value(Argument(awaited, scope, frame), depth + 1)
            case ast.Subscript(value=base, slice=key):
                return self._item(base, key, argument, depth)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                first, second = (self.value(Argument(side, scope, frame), depth + 1) for side in (left, right))
                return _compared(first, second, op, node)
            case _:
                return Unknown(f"`{short(node)}` is computed")

    def _either(self, arms: list[ast.expr], argument: Argument, depth: int) -> Value:
        """Return the first arm of `a or b` that counts; `os.getenv(name) or default` is a default."""
        worth: Value = Missing()
        for arm in arms:
            before, worth = worth, self.value(replace(argument, node=arm), depth + 1)
            if isinstance(before, Unknown) and isinstance(worth, Known):
                return Known(worth.value, f"default of the environment variable {before.variable}")
            if isinstance(worth, Unknown) and worth.variable is not None and arm is not arms[-1]:
                continue
            if not isinstance(worth, Known) or worth.value:
                return worth
        return worth

    def _item(self, base: ast.expr, key: ast.expr, argument: Argument, depth: int) -> Value:
        """Return what `mapping["key"]` gives: of os.environ nothing is known, of a literal dictionary its value."""
        named = self.names.resolve(base, argument.scope)
        index = self.value(replace(argument, node=key), depth + 1)
        if isinstance(named, External) and named.dotted == "os.environ" and isinstance(index, Known):
            return _from_environment(str(index.value))
        if isinstance(index, Known) and isinstance(index.value, str):
            ways = self.mappings.of(replace(argument, node=base), depth + 1)
            if all(way.open is None and index.value in way.values for way in ways):
                return agree([self.value(way.values[index.value], depth + 1) for way in ways])
        return Unknown(f"`{short(argument.node)}` is computed")

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
        return Unknown(f"`{short(node)}` is computed")

    def _joined(self, parts: list[ast.expr], argument: Argument, depth: int) -> Value:
        text = ""
        for part in parts:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            worth = self.value(replace(argument, node=inner), depth + 1)
            if not isinstance(worth, Known):
                return Unknown(f"`{short(argument.node)}` has parts that are not known here")
            text += str(worth.value)
        return Known(text)

    def _named(self, argument: Argument, depth: int) -> Value:
        node, scope, frame = argument.node, argument.scope, argument.frame
        meaning = self.names.resolve(node, scope)
        if isinstance(meaning, Assigned):
            return self.assigned(meaning, frame, depth + 1)
        if isinstance(meaning, Scope) or (isinstance(meaning, External) and _is_itself(meaning)):
            return Known(meaning)
        if isinstance(meaning, External):
            return Unknown(f"`{short(node)}` comes from outside the source")
        if isinstance(node, ast.Attribute):
            owner = self.types.of(node.value, scope)
            if isinstance(owner, Scope):
                return self.attribute(owner, node.attr, frame, depth + 1)
        return Unknown(f"`{short(node)}` is not settled by the source")

    def assigned(self, meaning: Assigned, frame: Frame | None, depth: int = 0) -> Value:
        """Return the value of a variable, a parameter (by the call at hand) or a class attribute."""
        mark = (id(meaning.scope), meaning.name)
        if mark in self._busy:
            return Unknown(f"`{meaning.name}` is computed from its former value")
        self._busy.add(mark)
        try:
            return self._assigned(meaning, frame, depth)
        finally:
            self._busy.discard(mark)

    def _assigned(self, meaning: Assigned, frame: Frame | None, depth: int) -> Value:
        given, *rest = meaning.bindings
        worth: list[Value] = []
        if given.kind == "parameter" and meaning.scope.is_function:
            worth.append(self._parameter(meaning, frame, depth))
        else:
            rest = meaning.bindings
        values = [binding for binding in rest if binding.kind == "value" and binding.value is not None]
        others = [binding for binding in rest if binding.kind not in {"value", "annotation"} or binding.unpacked]
        if others or not (values or worth):
            return Unknown(f"`{meaning.name}` is not assigned as one value")
        for binding in values:
            scope = binding.where or meaning.scope
            inner = frame if frame is not None and frame.function is scope.function else None
            if binding.value is not None:
                worth.append(self.value(Argument(binding.value, scope, inner), depth + 1))
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
        return agree(
            [self.value(Argument(node.value, frame.function, frame), depth + 1) for node in returns if node.value]
        )

    def _call(self, node: ast.Call, argument: Argument, depth: int) -> Value:
        scope, frame = argument.scope, argument.frame
        meaning = self.types.callee(node, scope)
        if isinstance(meaning, External):
            return self._outside(meaning, node, argument, depth)
        if isinstance(meaning, Scope) and meaning.is_function and not is_generator(meaning):
            return self.returned(self.frame(node, scope, meaning, frame), depth + 1)
        made = self.types.of(node.func, scope) if isinstance(node.func, ast.Name) else None
        if isinstance(made, External) and made.leaf in _READERS:
            return self._variable(node, argument, depth)
        if meaning is None and isinstance(node.func, ast.Name) and node.func.id in _CONVERSIONS and len(node.args) == 1:
            worth = self.value(Argument(node.args[0], scope, frame), depth + 1)
            return _converted(worth, node.func.id)
        if isinstance(node.func, ast.Attribute) and node.func.attr in {
            "lower",
            "strip",
            "replace",
            "upper",
            "format",
            "removeprefix",
        }:
            return self._method(node.func, node, argument, depth)
        return Unknown(f"`{short(node)}` is computed")

    def _outside(self, meaning: External, node: ast.Call, argument: Argument, depth: int) -> Value:
        if meaning.dotted in {"os.getenv", "os.environ.get"} or meaning.leaf in {"config", "env", "getenv"}:
            return self._variable(node, argument, depth)
        if meaning.leaf in {"Field", "field"}:
            default = keyword(node, "default") or (node.args[0] if node.args else None)
            if default is not None and not (isinstance(default, ast.Constant) and default.value is Ellipsis):
                return self.value(replace(argument, node=default), depth + 1)
            return Unknown(f"the field `{short(node)}` has no default")
        return Unknown(f"`{short(node)}` comes from outside the source")

    def _variable(self, node: ast.Call, argument: Argument, depth: int) -> Value:
        """Return the default that goes with a variable of the environment."""
        name = str(node.args[0].value) if node.args and isinstance(node.args[0], ast.Constant) else "?"
        default = keyword(node, "default") or (node.args[1] if len(node.args) > 1 else None)
        if default is not None:
            worth = self.value(replace(argument, node=default), depth + 1)
            if isinstance(worth, Known) and worth.value is not None:
                return Known(worth.value, f"default of the environment variable {name}")
        return _from_environment(name)

    def _method(self, func: ast.Attribute, node: ast.Call, argument: Argument, depth: int) -> Value:
        base = self.value(replace(argument, node=func.value), depth + 1)
        given = [self.value(replace(argument, node=arg), depth + 1) for arg in node.args]
        if isinstance(base, Known) and isinstance(base.value, str) and all(isinstance(arg, Known) for arg in given):
            try:
                return Known(
                    getattr(base.value, func.attr)(*[arg.value for arg in given if isinstance(arg, Known)]), base.by
                )
            except (TypeError, ValueError, LookupError):
                pass
        return base if isinstance(base, Unknown) else Unknown(f"`{short(node)}` is computed")

    def frame(self, call: ast.Call, scope: Scope, function: Scope, outer: Frame | None = None) -> Frame:
        """Match a call's arguments to a function's parameters."""
        bound: dict[str, Argument] = {}
        extra: dict[str, Argument] = {}
        names = [parameter.arg for parameter in function.parameters]
        if names[:1] in (["self"], ["cls"]) and function.enclosing_class is not None:
            names = names[1:]
        opened: str | None = None
        for name, value in zip(names, call.args, strict=False):
            if isinstance(value, ast.Starred):
                opened = f"`{short(value)}` is not settled by the source"
                break
            bound[name] = Argument(value, scope, outer)
        for given in call.keywords:
            target = bound if given.arg in names else extra
            if given.arg is not None:
                target[given.arg] = Argument(given.value, scope, outer)
                continue
            spread = self._single(given.value, scope, outer)
            for name, passed in spread.values.items():
                (bound if name in names else extra)[name] = passed
            opened = opened or spread.open
        return Frame(function, bound, Options(extra, opened), call, scope, outer)

    def _single(self, node: ast.expr, scope: Scope, outer: Frame | None) -> Options:
        ways = self.mappings.of(Argument(node, scope, outer))
        if len(ways) == 1:
            return ways[0]
        return Options({}, f"`**{short(node)}` depends on a condition")

    def options(self, call: ast.Call, scope: Scope, frame: Frame | None = None) -> list[Options]:
        """Return the keyword arguments of a call, one value for each way in which `**mappings` may have been built."""
        return self.mappings.options(call, scope, frame)

    def dictionaries(self, argument: Argument) -> list[Options]:
        """Return the mappings an expression may be, one for each way through the code that builds it."""
        return self.mappings.of(argument)

    def truth(self, argument: Argument) -> bool | None:
        """Tell whether a condition is met as far as constants settle it; settings' defaults may be overridden."""
        match argument.node:
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                inner = self.truth(replace(argument, node=operand))
                return None if inner is None else not inner
            case ast.Compare(
                left=left, ops=[ast.Is() | ast.IsNot() | ast.Eq() | ast.NotEq() as op], comparators=[right]
            ):
                sides = [self.value(replace(argument, node=side)) for side in (left, right)]
                if not all(isinstance(side, Known) and side.by is None for side in sides):
                    return None
                same = bool(sides[0] == sides[1])
                return same if isinstance(op, (ast.Is, ast.Eq)) else not same
            case ast.Name() | ast.Constant():
                worth = self.value(argument)
                return bool(worth.value) if isinstance(worth, Known) and worth.by is None else None
            case _:
                return None


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
    return right if isinstance(right, Unknown) else Unknown(f"`{short(node)}` is computed")


def _compared(left: Value, right: Value, op: ast.cmpop, node: ast.expr) -> Value:
    if not (isinstance(left, Known) and isinstance(right, Known)):
        return left if isinstance(left, Unknown) else Unknown(f"`{short(node)}` is computed")
    by = left.by or right.by
    match op:
        case ast.Eq() | ast.Is():
            return Known(left.value == right.value, by)
        case ast.NotEq() | ast.IsNot():
            return Known(left.value != right.value, by)
        case ast.In() if isinstance(right.value, list) or (
            isinstance(right.value, str) and isinstance(left.value, str)
        ):
            return Known(left.value in right.value, by)
        case _:
            return Unknown(f"`{short(node)}` is computed")


def _converted(worth: Value, name: str) -> Value:
    if not isinstance(worth, Known):
        return worth
    try:
        converted: Any = _CONVERSIONS[name](worth.value)
    except (TypeError, ValueError):
        return Unknown(f"{name}({worth.value!r}) is no {name}")
    return Known(converted, worth.by)


def _from_environment(variable: str) -> Unknown:
    return Unknown(f"it comes from the environment variable {variable}", variable)


def _is_itself(meaning: External) -> bool:
    """A class or a function from outside is a value by its name; a constant is not: nobody knows what it holds."""
    known = meaning.package in FIELD or meaning.package in sys.stdlib_module_names
    return (known and not meaning.leaf.isupper()) or (meaning.leaf[:1].isupper() and not meaning.leaf.isupper())
