"""What expressions are worth: names, attributes (reads of relationships among them), calls, comprehensions."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.heap import State
from verdigris.evidence.source.flow.library import Library
from verdigris.evidence.source.flow.shapes import Link, Shape
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
from verdigris.evidence.source.modules import Module, Scope
from verdigris.evidence.source.names import Assigned, External
from verdigris.evidence.source.relations import Relation, parsed

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.machine import Frame, Machine

DEPTH = 10
_COLLECTIONS = {
    "list",
    "List",
    "Sequence",
    "Iterable",
    "set",
    "Set",
    "tuple",
    "Collection",
    "ScalarResult",
    "AsyncScalarResult",
}
_COLLECTIONS |= {"AsyncIterator", "Iterator", "AsyncIterable", "AsyncGenerator", "Generator", "frozenset"}
_WRAPPERS = {"Optional", "Annotated", "Awaitable", "Coroutine", "Union", "Final", "ClassVar"}
_PROPERTIES = {"property", "hybrid_property", "cached_property", "computed_field"}
_MAPPING_METHODS = {"items", "keys", "values", "get", "pop", "copy", "count", "index"}


class Expressions:
    """Evaluates expressions for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source
        self.library = Library(machine, self)
        self._globals: dict[str, Value] = {}

    # -- expressions ------------------------------------------------------------------------------

    def value(self, node: ast.expr, frame: Frame, *, awaited: bool = False) -> Value:
        """Return what an expression may be, and note what it reads."""
        self.machine.count()
        match node:
            case ast.Constant(value=constant):
                return Const(constant)
            case ast.Name(id=name):
                return self._name(name, node, frame)
            case ast.Await(value=inner):
                return self._awaited(inner, frame)
            case ast.Call():
                return self._call(node, frame, awaited=awaited)
            case ast.Attribute():
                return self._attribute(node, frame)
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
                self.machine.assign(target, made, frame)
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
                for child in ast.iter_child_nodes(node):
                    if isinstance(child, ast.expr):
                        self.value(child, frame)
                return Plain()

    def _conditional(self, node: ast.expr, frame: Frame) -> Value:
        frame.conditions += 1
        try:
            return self.value(node, frame)
        finally:
            frame.conditions -= 1

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
            self.machine.assign(generator.target, each, frame)
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

    # -- names ------------------------------------------------------------------------------------

    def _name(self, name: str, node: ast.Name, frame: Frame) -> Value:
        if name in frame.names:
            return frame.names[name]
        if frame.outer is not None and name in frame.outer.names:
            return frame.outer.names[name]
        return self.meaning(self.machine.reads.memory.meaning(node, frame.scope), name)

    def meaning(self, found: object, name: str) -> Value:
        """Return the value of what a name resolves to outside of any call."""
        match found:
            case Scope():
                return Klass(found) if found.is_class else Func(found)
            case External(dotted=dotted):
                return Outside(dotted)
            case Module():
                return Outside(f"module:{found.path}")
            case Assigned():
                return self._global(found)
            case _:
                return Outside(f"builtins.{name}")

    def _global(self, found: Assigned) -> Value:
        if found.scope.is_function:
            return Opaque(f"`{found.name}` is a variable of another function")
        if found.key not in self._globals:
            self._globals[found.key] = Opaque(f"`{found.name}` is defined in a circle")
            self._globals[found.key] = self._assigned(found)
        return self._globals[found.key]

    def _assigned(self, found: Assigned) -> Value:
        from verdigris.evidence.source.flow.machine import Frame

        if found.value is None:
            made = self.source.types.variable(found)
            return self._typed(made, f"`{found.name}` is not assigned as one value")
        value = self.value(found.value, Frame(found.scope, {}))
        if isinstance(value, (Opaque, Plain)):
            return (
                self._typed(self.source.types.variable(found), f"`{found.name}` is not settled")
                if not isinstance(value, Plain)
                else value
            )
        return value

    def _typed(self, made: Scope | External | None, reason: str) -> Value:
        if isinstance(made, Scope):
            return self._instance(made, reason)
        return Outside(made.dotted, made=True) if isinstance(made, External) else Opaque(reason)

    def _instance(self, scope: Scope, reason: str, *, silent: bool = False) -> Value:
        model = self.source.models.of(scope)
        return self.open(model.key, reason, silent=silent) if model is not None else Instance(scope)

    def open(self, model: str, reason: str, *, silent: bool = False) -> Entity:
        """Return an object of which nobody here knows what is loaded."""
        number = self.machine.cell()
        self.machine.heap.cells[number] = Shape(model, opened=reason, silent=silent)
        return Entity(number, (), model)

    # -- annotations ------------------------------------------------------------------------------

    def annotated(self, scope: Scope, reason: str, bound: Value | None = None) -> Value:
        """Return what a function says it returns, of which nobody knows what is loaded."""
        returns = getattr(scope.node, "returns", None)
        if _leaf_of(returns) == "Self" and isinstance(bound, (Klass, Instance)):
            return self._instance(bound.scope, reason)
        return (
            Opaque(reason) if returns is None else self.annotation(returns, scope.parent or scope.module.scope, reason)
        )

    def annotation(
        self, node: ast.expr | None, scope: Scope, reason: str, *, silent: bool = False, depth: int = 0
    ) -> Value:
        """Return a value of an annotated type; entities in it are open."""
        node = parsed(node)
        if node is None or depth > DEPTH:
            return Plain() if node is None else Opaque(reason, silent)
        match node:
            case ast.Constant(value=None):
                return Plain()
            case ast.BinOp(left=left, op=ast.BitOr(), right=right):
                return either(
                    [self.annotation(arm, scope, reason, silent=silent, depth=depth + 1) for arm in (left, right)]
                )
            case ast.Subscript(value=base, slice=inner):
                return self._subscript(node, base, inner, scope, reason, silent=silent, depth=depth)
            case ast.Name() | ast.Attribute():
                found = self.source.names.resolve(node, scope)
                if isinstance(found, Scope) and found.is_class:
                    return self._instance(found, reason, silent=silent)
                if isinstance(found, Assigned) and found.value is not None:
                    return self.annotation(found.value, found.scope, reason, silent=silent, depth=depth + 1)
                if isinstance(found, External):
                    return Outside(found.dotted, made=True)
                return (
                    Plain()
                    if found is None and isinstance(node, ast.Name) and node.id in _BUILTIN_TYPES
                    else Opaque(reason, silent)
                )
            case _:
                return Opaque(reason, silent)

    def _subscript(
        self,
        node: ast.Subscript,
        base: ast.expr,
        inner: ast.expr,
        scope: Scope,
        reason: str,
        *,
        silent: bool,
        depth: int,
    ) -> Value:
        found = self.source.names.resolve(base, scope)
        leaf = found.leaf if isinstance(found, External) else getattr(base, "id", getattr(base, "attr", ""))
        items = inner.elts if isinstance(inner, ast.Tuple) else [inner]

        def each(item: ast.expr) -> Value:
            return self.annotation(item, scope, reason, silent=silent, depth=depth + 1)

        if leaf == "Union":
            return either([each(item) for item in items])
        if leaf in _WRAPPERS:
            return each(items[-1] if leaf == "Coroutine" else items[0])
        if leaf in {"tuple", "Tuple"} and not (len(items) == 2 and isinstance(items[1], ast.Constant)):
            return Row(tuple(each(item) for item in items))
        if leaf in _COLLECTIONS:
            return Many(each(items[0]))
        if leaf in {"dict", "Dict", "Mapping", "defaultdict", "MutableMapping"}:
            return Record((), each(items[-1]))
        if leaf == "Select" and isinstance(found, External):
            return self._selecting(items[0], scope, reason, silent=silent)
        if leaf in {"type", "Type"}:
            named = self.source.names.resolve(items[0], scope)
            return Klass(named) if isinstance(named, Scope) and named.is_class else Opaque(reason)
        if isinstance(found, Scope) and found.is_class:
            return self._instance(found, reason, silent=silent)
        return Outside(found.dotted, made=True) if isinstance(found, External) else Opaque(reason, silent)

    def _selecting(self, node: ast.expr, scope: Scope, reason: str, *, silent: bool) -> Value:
        """`Select[tuple[Order]]`: a statement of which nobody here knows the options."""
        inner = node.slice if isinstance(node, ast.Subscript) else node
        columns: list[Value] = []
        shapes: list[Shape | None] = []
        for item in inner.elts if isinstance(inner, ast.Tuple) else [inner]:
            found = self.source.names.resolve(item, scope)
            model = self.source.models.of(found) if isinstance(found, Scope) else None
            columns.append(Klass(model.scope) if model is not None else Opaque(reason, silent))
            shapes.append(None if model is None else Shape(model.key, opened=reason, silent=silent))
        return Statement(tuple(columns), tuple(shapes))

    def parameter(self, scope: Scope, parameter: ast.arg, *, passed: bool) -> Value:
        """Return what a parameter is when nothing was passed: injected, its default, or the caller's business."""
        from verdigris.evidence.source.flow.machine import Frame

        around = scope.parent or scope.module.scope
        injected = self.library.injected(scope, parameter, around)
        if injected is not None:
            return injected
        default = scope.default(parameter.arg)
        if default is not None and passed:
            return self.value(default, Frame(around, {}))
        if parameter.arg in {"self", "cls"} and scope.enclosing_class is not None:
            owner = scope.enclosing_class
            return Klass(owner) if parameter.arg == "cls" else self._instance(owner, "it is the caller's", silent=True)
        if parameter.annotation is None:
            return Opaque(f"`{parameter.arg}` is a parameter", silent=True)
        return self.annotation(
            parameter.annotation, around, f"`{parameter.arg}` is a parameter of {scope.name}()", silent=True
        )

    # -- attributes -------------------------------------------------------------------------------

    def _attribute(self, node: ast.Attribute, frame: Frame) -> Value:
        if (
            isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id == "super"
            and not node.value.args
        ):
            return self._inherited(node, frame)
        base = self.value(node.value, frame)
        mixed = self._is_mixed(base, node.attr)
        frame.guarded += mixed
        try:
            return either([self.attribute(arm, node.attr, node, frame) for arm in alternatives(base)])
        finally:
            frame.guarded -= mixed

    def _is_mixed(self, base: Value, name: str) -> bool:
        """Tell whether some of the objects this may be have a relationship loaded: a condition may tell them apart."""
        states = set()
        for arm in alternatives(base) if isinstance(base, Either) else ():
            relation = self.source.relations.of(arm.model, name) if isinstance(arm, Entity) else None
            if isinstance(arm, Entity) and relation is not None:
                states.add(self.machine.heap.read(arm, relation, whole=True).state in {State.MISSING, State.EMPTY})
        return len(states) > 1

    def _inherited(self, node: ast.Attribute, frame: Frame) -> Value:
        """`super().name`: the next class after this one in the lineage of the object at hand."""
        first = frame.scope.parameters[0].arg if frame.scope.parameters else "self"
        owner = frame.names.get(first)
        here = frame.scope.enclosing_class
        own = owner.scope if isinstance(owner, (Instance, Klass)) else here
        if own is None or here is None:
            return Opaque(f"`super().{node.attr}` is not settled")
        lineage = list(self.source.names.lineage(own))
        after = lineage[lineage.index(here) + 1 :] if here in lineage else list(self.source.names.lineage(here))[1:]
        for base in after:
            method = base.member(node.attr) if isinstance(base, Scope) else None
            if method is not None:
                return self._method(method, owner or Opaque(), {_leaf(decorator) for decorator in method.decorators})
        return Opaque(f"`super().{node.attr}` comes from outside the source")

    def attribute(self, owner: Value, name: str, node: ast.expr, frame: Frame) -> Value:
        """Return an attribute of one value."""
        match owner:
            case Entity():
                return self._of_entity(owner, name, node, frame)
            case Klass(scope=scope):
                return self._of_class(scope, name)
            case Instance():
                return self._of_instance(owner, name, node, frame)
            case Outside(dotted=dotted, made=made):
                return Method(owner, name) if made else self._outside(dotted, name)
            case Row(values=values):
                named = [
                    value
                    for value in values
                    if isinstance(value, Entity) and value.model.rpartition(".")[2].rpartition(":")[2] == name
                ]
                return named[0] if named else Method(owner, name)
            case Opaque():
                if not owner.silent:
                    self._stray(name, node, frame)
                return Method(owner, name)
            case Plain() | Const():
                return Method(owner, name)
            case _:
                return Method(owner, name)

    def _outside(self, dotted: str, name: str) -> Value:
        if dotted.startswith("module:"):
            module = self.source.names.by_path.get(dotted.removeprefix("module:"))
            found = self.source.names.attribute(module, name) if module is not None else None
            return self.meaning(found, name) if found is not None else Opaque(f"`{name}` is not in {dotted}")
        return Outside(f"{dotted}.{name}")

    def _stray(self, name: str, node: ast.expr, frame: Frame) -> None:
        """Note a read of something named like a relationship, of an object that the source does not settle."""
        if name not in self.source.relations.names or name in _MAPPING_METHODS or not isinstance(node, ast.Attribute):
            return
        if self.source.types.of(node.value, frame.scope) is None:
            self.machine.reads.stray(name, frame.scope.module.place(node), frame.scope)

    def _of_entity(self, entity: Entity, name: str, node: ast.expr, frame: Frame) -> Value:
        relation = self.source.relations.of(entity.model, name)
        if relation is not None:
            return self.relation(entity, relation, node, frame)
        if name == "awaitable_attrs":
            return Awaitables(entity)
        model = self.source.relations.models.get(entity.model)
        member = self.source.names.class_attribute(model.scope, name) if model is not None else None
        if isinstance(member, Scope) and member.is_function:
            return self._member(member, entity)
        if isinstance(member, Assigned) and isinstance(member.value, ast.Call):
            return self._proxy(entity, member.value, node, frame)
        return Method(entity, name) if model is None or member is None else Plain()

    def _member(self, member: Scope, owner: Value) -> Value:
        leaves = {_leaf(decorator) for decorator in member.decorators}
        if leaves & _PROPERTIES:
            return self.machine.call(Func(member, owner), [], {})
        return self._method(member, owner, leaves)

    def _method(self, member: Scope, owner: Value, leaves: set[str]) -> Value:
        if "staticmethod" in leaves:
            return Func(member)
        if "classmethod" in leaves:
            return Func(member, owner if isinstance(owner, Klass) else self._class_of(owner))
        return Func(member, None if isinstance(owner, Klass) else owner)

    def _class_of(self, owner: Value) -> Value:
        if isinstance(owner, Instance):
            return Klass(owner.scope)
        model = self.source.relations.models.get(owner.model) if isinstance(owner, Entity) else None
        return Klass(model.scope) if model is not None else Opaque()

    def _proxy(self, entity: Entity, call: ast.Call, node: ast.expr, frame: Frame) -> Value:
        """`association_proxy("links", "tag")` reads both."""
        texts = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        if _leaf(call.func) != "association_proxy" or len(texts) != 2:
            return Plain()
        through = self.attribute(entity, texts[0], node, frame)
        inner = element(through) if isinstance(through, Many) else through
        found = either([self.attribute(arm, texts[1], node, frame) for arm in alternatives(inner)])
        return Many(found) if isinstance(through, Many) else found

    def relation(self, entity: Entity, relation: Relation, node: ast.expr, frame: Frame) -> Value:
        """Read a relationship."""
        whole = not isinstance(frame.scope.module.parents.get(node), ast.Attribute)
        self.machine.reads.read(self.machine, entity, relation, frame, node, whole=whole)
        return self.machine.heap.target(entity, relation)

    def _of_class(self, scope: Scope, name: str) -> Value:
        model = self.source.models.of(scope)
        if model is not None and (
            self.source.relations.of(model.key, name) is not None or model.column(name) is not None
        ):
            return Attr(model.key, name)
        member = self.source.names.class_attribute(scope, name)
        if isinstance(member, Scope) and member.is_function:
            return self._method(member, Klass(scope), {_leaf(decorator) for decorator in member.decorators})
        if isinstance(member, Scope):
            return Klass(member)
        if isinstance(member, Assigned):
            return self._global(member) if model is None else Plain()
        return Method(Klass(scope), name)

    def _of_instance(self, owner: Instance, name: str, node: ast.expr, frame: Frame) -> Value:
        held = owner.get(name)
        if held is not None and not isinstance(held, Opaque):
            return held
        member = self.source.names.class_attribute(owner.scope, name)
        if isinstance(member, Scope) and member.is_function:
            return self._member(member, owner)
        if isinstance(member, Scope):
            return Klass(member)
        if isinstance(member, Assigned) and member.value is not None:
            found = self._global(member)
            if not isinstance(found, Opaque):
                return found
        made = self.source.types.attribute(owner.scope, name)
        if made is not None:
            return self._typed(made, f"`{owner.scope.name}.{name}` is not followed")
        if self.source.schemas.is_schema(owner.scope):
            return Plain()
        return Method(owner, name)

    # -- calls ------------------------------------------------------------------------------------

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
        return either([self.library.call(arm, call) for arm in alternatives(callee)])

    def _callee(self, node: ast.Call, frame: Frame) -> Value:
        callee = self.value(node.func, frame)
        unsettled = isinstance(callee, Method) and isinstance(callee.owner, (Opaque, Instance, Outside))
        if unsettled or isinstance(callee, Opaque):
            found = self.source.types.callee(node, frame.scope)
            if isinstance(found, Scope):
                owner = callee.owner if isinstance(callee, Method) and isinstance(callee.owner, Instance) else None
                static = "staticmethod" in {_leaf(decorator) for decorator in found.decorators}
                if found.is_function and found.enclosing_class is not None and owner is None and not static:
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
            return self._typed(self.source.types.entered(node, frame.scope), "what the context gives is not settled")
        return made


class Call:
    """A call in progress."""

    __slots__ = ("arguments", "awaited", "frame", "keywords", "node", "opened")

    def __init__(
        self,
        node: ast.Call,
        arguments: list[Value],
        keywords: dict[str, Value],
        frame: Frame,
        awaited: bool,
        opened: bool,
    ) -> None:
        """Hold the evaluated arguments."""
        self.node = node
        self.arguments = arguments
        self.keywords = keywords
        self.frame = frame
        self.awaited = awaited
        self.opened = opened

    def get(self, index: int, *names: str) -> Value | None:
        """Return an argument by place or name."""
        if 0 <= index < len(self.arguments):
            return self.arguments[index]
        return next((self.keywords[name] for name in names if name in self.keywords), None)


_BUILTIN_TYPES = {
    "int",
    "str",
    "float",
    "bool",
    "bytes",
    "dict",
    "list",
    "set",
    "tuple",
    "object",
    "None",
    "complex",
    "bytearray",
}


def _leaf(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=func):
            return _leaf(func)
        case _:
            return ""


def _leaf_of(node: ast.expr | None) -> str:
    return "" if node is None else _leaf(parsed(node) or node)
