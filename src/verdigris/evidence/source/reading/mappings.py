"""Dictionaries that become keyword arguments: followed through the statements that build them, one way per branch."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import Argument, Frame, Options, is_generator, short
from verdigris.evidence.source.reading.attributes import self_assignments
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.sqlite import branch
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.evaluate import Evaluator

DEPTH = 16
ALTERNATIVES = 16  # more branches than this are not told apart
_COPIES = {"copy", "deepcopy", "cast", "MappingProxyType"}


class Mappings:
    """What the mappings of a tree hold, each in all the ways in which the code may have built it."""

    def __init__(self, evaluator: Evaluator) -> None:
        """Use an evaluator's names, types and values."""
        self.evaluator = evaluator
        self._busy: set[tuple[int, str]] = set()
        self._names: dict[ast.stmt, frozenset[str]] = {}

    def mentions(self, statement: ast.stmt, name: str) -> bool:
        """Tell whether a name occurs in a statement."""
        if statement not in self._names:
            nodes = ast.walk(statement)
            self._names[statement] = frozenset(node.id for node in nodes if isinstance(node, ast.Name))
        return name in self._names[statement]

    def options(self, call: ast.Call, scope: Scope, frame: Frame | None = None) -> list[Options]:
        """Return the keyword arguments of a call, one value for each way in which `**mappings` may have been built."""
        ways = [Options()]
        for keyword in call.keywords:
            if keyword.arg is not None:
                ways = [way.with_(**{keyword.arg: Argument(keyword.value, scope, frame)}) for way in ways]
            else:
                inner = self.of(Argument(keyword.value, scope, frame))
                ways = [way.merged(other) for way in ways for other in inner]
            if len(ways) > ALTERNATIVES:
                return [replace(ways[0], open="its options depend on too many conditions")]
        return ways

    def of(self, argument: Argument, depth: int = 0) -> list[Options]:
        """Return the mappings an expression may be, one for each way through the code that builds it."""
        node = argument.node
        unknown = [Options({}, f"`**{short(node)}` is not settled by the source")]
        if depth > DEPTH:
            return unknown
        match node:
            case ast.Dict(keys=keys, values=values):
                return self._literal(keys, values, argument, depth)
            case ast.IfExp():
                return self._either(node, argument, depth)
            case ast.BoolOp(op=ast.Or(), values=[first, *_]):
                return self.of(replace(argument, node=first), depth + 1)
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return [
                    first.merged(second)
                    for first in self.of(replace(argument, node=left), depth + 1)
                    for second in self.of(replace(argument, node=right), depth + 1)
                ]
            case ast.DictComp():
                return self._filtered(node, argument, depth) or unknown
            case ast.Call():
                return self._called(node, argument, depth) or unknown
            case ast.Name() | ast.Attribute():
                meaning = self.evaluator.names.resolve(node, argument.scope)
                if isinstance(meaning, Assigned):
                    return self._built(meaning, argument, depth) or unknown
                return self._of_instance(node, argument, depth) or unknown
            case _:
                return unknown

    def _either(self, node: ast.IfExp, argument: Argument, depth: int) -> list[Options]:
        ways: list[Options] = []
        mine = branch(self.evaluator.names, node.test, argument.scope)
        for arm in _arms(node):
            inner = self.of(replace(argument, node=arm), depth + 1)
            ways += [replace(way, sqlite=way.sqlite or mine is (arm is node.body)) for way in inner]
        return ways

    def _called(self, node: ast.Call, argument: Argument, depth: int) -> list[Options]:
        """Follow `dict(…)`, copies, typed dictionaries and functions of the tree."""
        scope, frame = argument.scope, argument.frame
        meaning = self.evaluator.types.callee(node, scope)
        if isinstance(meaning, Scope):
            if meaning.is_function and not is_generator(meaning):
                return self._returned(self.evaluator.frame(node, scope, meaning, frame), depth)
            if meaning.is_class and self.evaluator.names.derives(meaning, "typing", "TypedDict"):
                return self.options(node, scope, frame)
            return []
        if isinstance(node.func, ast.Name) and node.func.id == "dict" and meaning is None:
            start = self.of(replace(argument, node=node.args[0]), depth + 1) if node.args else [Options()]
            return [way.merged(more) for way in start for more in self.options(node, scope, frame)]
        if isinstance(meaning, External) and meaning.leaf in _COPIES and node.args:
            return self.of(replace(argument, node=node.args[-1]), depth + 1)
        if isinstance(node.func, ast.Attribute) and node.func.attr == "copy" and not node.args:
            return self.of(replace(argument, node=node.func.value), depth + 1)
        return []

    def _literal(
        self, keys: list[ast.expr | None], values: list[ast.expr], argument: Argument, depth: int
    ) -> list[Options]:
        ways = [Options()]
        for key, value in zip(keys, values, strict=True):
            if key is None:
                inner = self.of(replace(argument, node=value), depth + 1)
                ways = [way.merged(other) for way in ways for other in inner]
            elif isinstance(key, ast.Constant) and isinstance(key.value, str):
                ways = [way.with_(**{key.value: replace(argument, node=value)}) for way in ways]
            else:
                ways = [replace(way, open=f"the key `{short(key)}` is computed") for way in ways]
        return ways

    def _filtered(self, node: ast.DictComp, argument: Argument, depth: int) -> list[Options]:
        """Follow `{k: v for k, v in options.items() if v is not None}`: what is None goes."""
        match node:
            case ast.DictComp(
                key=ast.Name(id=key),
                value=ast.Name(id=value),
                generators=[
                    ast.comprehension(
                        target=ast.Tuple(elts=[ast.Name(id=first), ast.Name(id=second)]),
                        iter=ast.Call(func=ast.Attribute(value=base, attr="items")),
                        ifs=tests,
                    )
                ],
            ) if (key, value) == (first, second):
                ways = self.of(replace(argument, node=base), depth + 1)
                if not tests:
                    return ways
                if ast.unparse(tests[0]) == f"{value} is not None" and len(tests) == 1:
                    return [self._without_none(way) for way in ways]
        return []

    def _without_none(self, way: Options) -> Options:
        kept = {name: given for name, given in way.values.items() if self.evaluator.value(given) != Known(None)}
        return replace(way, values=kept)

    def _returned(self, frame: Frame, depth: int) -> list[Options]:
        found: list[Options] = []
        for node in frame.function.nodes():
            if isinstance(node, ast.Return) and node.value is not None:
                found += self.of(Argument(node.value, frame.function, frame), depth + 1)
        return found

    def _of_instance(self, node: ast.expr, argument: Argument, depth: int) -> list[Options]:
        """Follow `self.options` and `settings.engine_options`: a property, or what a method assigned."""
        if not isinstance(node, ast.Attribute):
            return []
        owner = self.evaluator.types.of(node.value, argument.scope)
        if not isinstance(owner, Scope):
            return []
        for base in self.evaluator.names.lineage(owner):
            if not isinstance(base, Scope):
                continue
            member = base.member(node.attr)
            if member is not None and member.is_function:
                return self._returned(Frame(member, {}), depth + 1)
            if node.attr in base.bindings:
                return self._built(Assigned(base, node.attr), argument, depth + 1)
            written = [
                Argument(value, scope) for value, _, scope in self_assignments(base, node.attr) if value is not None
            ]
            if written:
                return [way for value in written for way in self.of(value, depth + 1)]
        return []

    def _built(self, meaning: Assigned, argument: Argument, depth: int) -> list[Options]:
        """Run the statements that build a dictionary up to its use, forking at each `if`."""
        scope, frame = meaning.scope, argument.frame
        mark = (id(scope), meaning.name)
        if mark in self._busy:
            return []
        kwarg = getattr(getattr(scope.node, "args", None), "kwarg", None)
        while frame is not None and frame.function is not scope.function:
            frame = frame.outer
        ways: list[Options] = []
        if kwarg is not None and kwarg.arg == meaning.name:
            told = Options({}, f"callers of {scope.name}() pass `**{kwarg.arg}`")
            ways = [frame.extra if frame is not None else told]
        elif meaning.bindings[0].kind == "parameter":
            if frame is None or meaning.name not in frame.arguments:
                return []
            ways = self.of(frame.arguments[meaning.name], depth + 1)
        body = [] if isinstance(scope.node, ast.Lambda) else scope.node.body
        around = {id(node) for node in (argument.node, *argument.scope.module.ancestors(argument.node))}
        self._busy.add(mark)
        try:
            return _Builder(self, meaning.name, scope, frame, depth, around).run(body, ways)
        finally:
            self._busy.discard(mark)


@dataclass(slots=True)
class _Builder:
    """Follows one name through statements, as far as it is bound to a dictionary.

    `around` holds the nodes around the use: what comes after it, or on another branch, no longer matters.
    """

    mappings: Mappings
    name: str
    scope: Scope
    frame: Frame | None
    depth: int
    around: set[int]

    def run(self, statements: list[ast.stmt], ways: list[Options]) -> list[Options]:
        for statement in statements:
            if id(statement) in self.around:
                return self._into(statement, ways)
            ways = self._step(statement, ways)
            if len(ways) > ALTERNATIVES:
                return [replace(ways[0], open=f"`{self.name}` is built under too many conditions")]
        return ways

    def _into(self, statement: ast.stmt, ways: list[Options]) -> list[Options]:
        """Go on inside the statement that holds the use."""
        for block in _blocks(statement):
            if any(id(inner) in self.around for inner in block):
                return self.run(block, ways)
            if not isinstance(statement, ast.If):
                ways = self.run(block, ways)
        return ways

    def _step(self, statement: ast.stmt, ways: list[Options]) -> list[Options]:  # noqa: PLR0911 - one case a statement
        if not self.mappings.mentions(statement, self.name):
            return [] if _leaves([statement]) and ways else ways
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value) if name == self.name:
                return self._mappings(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value) if name == self.name:
                return self._mappings(value)
            case ast.Assign(targets=[ast.Subscript(value=ast.Name(id=name), slice=key)], value=value) if (
                name == self.name
            ):
                return [self._set(way, key, value) for way in ways]
            case ast.Assign(targets=[ast.Tuple(elts=targets)], value=value):
                return [self._unpack(way, targets, value) for way in ways]
            case ast.AugAssign(target=ast.Name(id=name), op=ast.BitOr(), value=value) if name == self.name:
                return [way.merged(more) for way in ways for more in self._mappings(value)]
            case ast.Delete(targets=[ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=str(key)))]) if (
                name == self.name
            ):
                return [way.without(key) for way in ways]
            case ast.Expr(value=ast.Call() as call):
                return self._call(call, ways)
            case ast.If(test=test, body=body, orelse=orelse):
                return self._if(test, body, orelse, ways)
            case ast.With(body=body) | ast.AsyncWith(body=body) | ast.Try(body=body) | ast.For(body=body):
                return self.run(body, ways)
            case ast.Return() | ast.Raise():
                return []
            case _:
                return ways

    def _set(self, way: Options, key: ast.expr, value: ast.expr) -> Options:
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            return way.with_(**{key.value: Argument(value, self.scope, self.frame)})
        return replace(way, open=f"`{self.name}[{short(key)}]` is computed")

    def _unpack(self, way: Options, targets: list[ast.expr], value: ast.expr) -> Options:
        """`options["pool_size"], options["max_overflow"] = sizes()` sets both, each to its part."""
        parts = value.elts if isinstance(value, ast.Tuple) and len(value.elts) == len(targets) else None
        for place, target in enumerate(targets):
            match target:
                case ast.Subscript(value=ast.Name(id=name), slice=key) if name == self.name:
                    way = self._set(way, key, _part(value, place) if parts is None else parts[place])
        return way

    def _call(self, call: ast.Call, ways: list[Options]) -> list[Options]:
        match call:
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr="update")) if name == self.name:
                added = self._mappings(call.args[0]) if call.args else [Options()]
                named = self.mappings.options(call, self.scope, self.frame)
                return [way.merged(first).merged(second) for way in ways for first in added for second in named]
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="setdefault"),
                args=[ast.Constant(value=str(key)), value],
            ) if name == self.name:
                passed = Argument(value, self.scope, self.frame)
                return [way if key in way.values else way.with_(**{key: passed}) for way in ways]
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id=name), attr="pop"), args=[ast.Constant(value=str(key)), *_]
            ) if name == self.name:
                return [way.without(key) for way in ways]
            case ast.Call(args=arguments) if any(
                isinstance(arg, ast.Name) and arg.id == self.name for arg in arguments
            ):
                if isinstance(self.mappings.evaluator.types.callee(call, self.scope), Scope):
                    return [replace(way, open=f"`{short(call.func)}()` may change it") for way in ways]
        return ways

    def _if(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt], ways: list[Options]) -> list[Options]:
        truth = self.mappings.evaluator.truth(Argument(test, self.scope, self.frame))
        mine = branch(self.mappings.evaluator.names, test, self.scope)
        found: list[Options] = []
        for taken, block in ((True, body), (False, orelse)):
            if truth is (not taken):
                continue
            after = [replace(way, sqlite=way.sqlite or mine is taken) for way in self.run(block, ways)]
            found += [] if _leaves(block) else after
        return found

    def _mappings(self, value: ast.expr) -> list[Options]:
        return self.mappings.of(Argument(value, self.scope, self.frame), self.depth + 1)


def _part(value: ast.expr, place: int) -> ast.expr:
    part = ast.copy_location(ast.Subscript(value, ast.Constant(place), ast.Load()), value)
    return ast.fix_missing_locations(part)


def _arms(node: ast.IfExp) -> list[ast.expr]:
    """Return what a conditional expression may give; of `dict(given) if given else {}`, what is given."""
    nothing = isinstance(node.orelse, ast.Dict) and not node.orelse.keys
    return [node.body] if nothing and ast.unparse(node.test) in ast.unparse(node.body) else [node.body, node.orelse]


def _blocks(statement: ast.stmt) -> list[list[ast.stmt]]:
    blocks = [getattr(statement, name, []) for name in ("body", "orelse", "finalbody")]
    handlers = [handler.body for handler in getattr(statement, "handlers", [])]
    return [block for block in (blocks[0], *handlers, *blocks[1:]) if block]


def _leaves(block: list[ast.stmt]) -> bool:
    return bool(block) and isinstance(block[-1], (ast.Return, ast.Raise))
