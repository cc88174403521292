"""What expressions are worth: names, displays, comprehensions, conditions, calls."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.frames import Call
from verdigris.evidence.source.flow.shapes import Link
from verdigris.evidence.source.flow.values import (
    Attr,
    Awaitables,
    Const,
    Either,
    Entity,
    Func,
    Instance,
    Klass,
    Many,
    Method,
    Opaque,
    Outside,
    Plain,
    Record,
    Row,
    Statement,
    Value,
    alternatives,
    either,
    element,
)
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import children

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Frame
    from verdigris.evidence.source.flow.machine import Machine


class Expressions:
    """Evaluates expressions for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source

    def value(self, node: ast.expr, frame: Frame, *, awaited: bool = False) -> Value:
        """Return what an expression may be, and note what it reads."""
        self.machine.count()
        match node:
            case ast.Constant():
                return self.machine.reads.memory.constant(node)
            case ast.Name(id=name):
                return self._name(name, node, frame)
            case ast.Await(value=inner):
                return self._awaited(inner, frame)
            case ast.Call():
                return self._call(node, frame, awaited=awaited)
            case ast.Attribute():
                return self.machine.attributes.read(node, frame)
            case ast.Subscript(value=base, slice=key):
                return self._item(self.value(base, frame), key, frame)
            case ast.IfExp(test=test, body=body, orelse=orelse):
                decided = self.truth(self.value(test, frame), test, frame)
                arms = [body, orelse] if decided is None else [body if decided else orelse]
                return either([self._conditional(arm, frame) for arm in arms])
            case ast.BoolOp(values=values):
                first = self.value(values[0], frame)
                return either([first, *(self._conditional(arm, frame) for arm in values[1:])])
            case ast.NamedExpr(target=target, value=inner):
                made = self.value(inner, frame)
                self.machine.assignments.to(target, made, frame)
                return made
            case ast.List(elts=items) | ast.Set(elts=items):
                return self._display(items, frame)
            case ast.Tuple(elts=items):
                if any(isinstance(item, ast.Starred) for item in items):
                    return self._display(items, frame)
                return Row(tuple(self.value(item, frame) for item in items))
            case ast.Dict(keys=keys, values=values):
                return self._dict(keys, values, frame)
            case ast.ListComp(elt=elt) | ast.SetComp(elt=elt) | ast.GeneratorExp(elt=elt):
                return self._comprehension(node, [elt], frame)
            case ast.DictComp(key=key, value=inner):
                return self._comprehension(node, [inner, key], frame)
            case ast.Lambda():
                return Func(frame.scope.module.scope_of[node], None, frame.closure)
            case ast.Yield(value=inner):
                frame.yields.append(self.value(inner, frame) if inner is not None else Plain())
                return Plain()
            case ast.YieldFrom(value=inner):
                frame.yields.append(element(self.value(inner, frame)))
                return Plain()
            case ast.Starred(value=inner):
                return self.value(inner, frame)
            case ast.BinOp(left=left, right=right):
                return self._sum(self.value(left, frame), self.value(right, frame))
            case _:
                for child in children(node):
                    if isinstance(child, ast.expr):
                        self.value(child, frame)
                return Plain()

    def _conditional(self, node: ast.expr, frame: Frame) -> Value:
        frame.conditions += 1
        try:
            return self.value(node, frame)
        finally:
            frame.conditions -= 1

    def _name(self, name: str, node: ast.Name, frame: Frame) -> Value:
        if name in frame.names:
            return frame.names[name]
        if frame.outer is not None and name in frame.outer.names:
            return frame.outer.names[name]
        return self.machine.globals.meaning(self.machine.reads.memory.meaning(node, frame.scope), name)

    def _sum(self, left: Value, right: Value) -> Value:
        if isinstance(left, (Many, Row)) or isinstance(right, (Many, Row)):
            return Many(either([element(left), element(right)]))
        return Plain()

    def _awaited(self, node: ast.expr, frame: Frame) -> Value:
        if isinstance(node, ast.Attribute):
            base = self.value(node.value, frame)
            if isinstance(base, Awaitables):
                return either(
                    [
                        self._load(entity, node.attr)
                        for entity in alternatives(base.entity)
                        if isinstance(entity, Entity)
                    ]
                    or [Plain()]
                )
        return self.value(node, frame, awaited=True)

    def _load(self, entity: Entity, name: str) -> Value:
        relation = self.source.relations.of(entity.model, name)
        if relation is None:
            return Plain()
        self.machine.heap.mark(entity, name, Link("loaded"))
        return self.machine.heap.target(entity, relation)

    # -- displays and items ----------------------------------------------------------------------------

    def _display(self, items: list[ast.expr], frame: Frame) -> Value:
        values = [self.value(item, frame) for item in items]
        starred = any(isinstance(item, ast.Starred) for item in items)
        each = [
            element(value) if isinstance(item, ast.Starred) else value
            for item, value in zip(items, values, strict=True)
        ]
        return Many(either(each) if each else Plain(), None if starred else tuple(each))

    def _dict(self, keys: list[ast.expr | None], values: list[ast.expr], frame: Frame) -> Value:
        items: list[tuple[str, Value]] = []
        rest: list[Value] = []
        for key, node in zip(keys, values, strict=True):
            made = self.value(node, frame)
            if isinstance(key, ast.Constant) and isinstance(key.value, str):
                items.append((key.value, made))
            elif key is None and isinstance(made, Record):
                items += made.items
                rest.append(made.rest)
            else:
                if key is not None:
                    self.value(key, frame)
                rest.append(made)
        return Record(tuple(items), either(rest) if rest else Plain())

    def record(self, items: dict[str, Value], *, opened: bool = False) -> Record:
        """Return a mapping with known keys."""
        return Record(tuple(items.items()), Opaque("callers pass more") if opened else Plain())

    def _comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp, parts: list[ast.expr], frame: Frame
    ) -> Value:
        names = dict(frame.names)
        for generator in node.generators:
            each = element(self.value(generator.iter, frame))
            self.machine.assignments.to(generator.target, each, frame)
            frame.conditions += 1
            for test in generator.ifs:
                self.value(test, frame)
        made = [self.value(part, frame) for part in parts]
        frame.conditions -= len(node.generators)
        frame.names = names
        return Record((), made[0]) if isinstance(node, ast.DictComp) else Many(made[0])

    def _item(self, base: Value, key: ast.expr, frame: Frame) -> Value:
        wanted = self.value(key, frame) if not isinstance(key, ast.Slice) else Plain()
        found = [self._item_of(arm, key, wanted) for arm in alternatives(base)]
        return either(found)

    def _item_of(self, base: Value, key: ast.expr, wanted: Value) -> Value:
        match base:
            case Row(values=values) if (
                isinstance(wanted, Const)
                and isinstance(wanted.value, int)
                and -len(values) <= wanted.value < len(values)
            ):
                return values[wanted.value]
            case Record(items=items, rest=rest):
                if isinstance(wanted, Const):
                    return dict(items).get(str(wanted.value), rest)
                return either([*(value for _, value in items), rest])
            case Many() if isinstance(key, ast.Slice):
                return Many(base.element)
            case Many(element=inner):
                return inner
            case Opaque() | Klass() | Outside():
                return base
            case _:
                return element(base)

    def store(self, base: ast.expr, key: ast.expr, value: Value, frame: Frame) -> None:
        """Put a value into a mapping or a list that a name holds."""
        if not isinstance(base, ast.Name):
            self.value(base, frame)
            return
        old = frame.names.get(base.id)
        if isinstance(old, Record):
            if isinstance(key, ast.Constant) and isinstance(key.value, str) and not frame.conditions:
                items = tuple((name, kept) for name, kept in old.items if name != key.value)
                frame.names[base.id] = Record((*items, (key.value, value)), old.rest)
            else:
                frame.names[base.id] = Record(old.items, either([old.rest, value]))
        elif isinstance(old, Many):
            frame.names[base.id] = Many(either([old.element, value]))

    # -- conditions ------------------------------------------------------------------------------------

    def truth(self, value: Value, node: ast.expr, frame: Frame) -> bool | None:
        """Decide a condition over known constants: options that a call fixes."""
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            inner = self.truth(self._quiet(node.operand, frame), node.operand, frame)
            return None if inner is None else not inner
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], (ast.Is, ast.IsNot)):
            left, right = self._quiet(node.left, frame), self._quiet(node.comparators[0], frame)
            if isinstance(right, Const) and right.value is None:
                same = self._is_none(left)
                return None if same is None else same == isinstance(node.ops[0], ast.Is)
            return None
        if isinstance(value, Const) and isinstance(node, (ast.Name, ast.Constant)):
            return bool(value.value)
        if isinstance(value, (Many, Row)) and isinstance(node, ast.Name):
            held = value.held if isinstance(value, Many) else value.values
            return bool(held) if held is not None else None
        return True if isinstance(value, (Statement, Klass, Func, Attr)) and isinstance(node, ast.Name) else None

    def _quiet(self, node: ast.expr, frame: Frame) -> Value:
        """Look a plain name up again, without noting a read."""
        return self.value(node, frame) if isinstance(node, (ast.Name, ast.Constant)) else Plain()

    def _is_none(self, value: Value) -> bool | None:
        if isinstance(value, Const):
            return value.value is None
        return False if isinstance(value, (Statement, Klass, Func, Attr, Record, Row)) else None

    # -- calls -----------------------------------------------------------------------------------------

    def _call(self, node: ast.Call, frame: Frame, *, awaited: bool) -> Value:
        callee = self._callee(node, frame)
        arguments: list[Value] = []
        opened = False
        for arg in node.args:
            made = self.value(arg, frame)
            if isinstance(arg, ast.Starred):
                held = made.held if isinstance(made, Many) else made.values if isinstance(made, Row) else None
                arguments += list(held) if held is not None else [Many(element(made))]
            else:
                arguments.append(made)
        keywords: dict[str, Value] = {}
        for keyword in node.keywords:
            made = self.value(keyword.value, frame)
            if keyword.arg is not None:
                keywords[keyword.arg] = made
            elif isinstance(made, Record):
                keywords.update(dict(made.items))
                opened = opened or isinstance(made.rest, (Opaque, Either))
            else:
                opened = opened or not isinstance(made, (Plain, Const))
        call = Call(node, arguments, keywords, frame, awaited, opened)
        if not isinstance(callee, Either):
            return self.machine.library.call(callee, call)
        return either([self.machine.library.call(arm, call) for arm in callee.values])

    def _callee(self, node: ast.Call, frame: Frame) -> Value:
        callee = self.value(node.func, frame)
        unsettled = isinstance(callee, Method) and isinstance(callee.owner, (Opaque, Instance, Outside))
        if unsettled or isinstance(callee, Opaque):
            found = self.source.types.callee(node, frame.scope)
            if isinstance(found, Scope):
                owner = callee.owner if isinstance(callee, Method) and isinstance(callee.owner, Instance) else None
                if found.is_function and found.enclosing_class is not None and owner is None and not _is_static(found):
                    owner = Instance(found.enclosing_class)
                return Klass(found) if found.is_class else Func(found, owner)
            if isinstance(found, External) and isinstance(callee, Opaque):
                return Outside(found.dotted)
        return callee

    def entered(self, node: ast.expr, frame: Frame) -> Value:
        """Return what `with node as x` binds."""
        made = self.value(node, frame)
        if isinstance(made, Instance):
            for name in ("__aenter__", "__enter__"):
                method = self.source.names.class_attribute(made.scope, name)
                if isinstance(method, Scope):
                    return self.machine.call(Func(method, made), [], {})
        if isinstance(made, Many) and isinstance(node, ast.Call):  # a context manager made of a generator
            return made.element
        if isinstance(made, (Opaque, Outside, Plain)) and isinstance(node, ast.Call):
            entered = self.source.types.entered(node, frame.scope)
            return self.machine.annotations.typed(entered, "what the context gives is not settled")
        return made


def _is_static(function: Scope) -> bool:
    return any(isinstance(decorator, ast.Name) and decorator.id == "staticmethod" for decorator in function.decorators)
