"""What is read of objects: by code, by response models, by validation; each read with what it came to."""

from __future__ import annotations

import ast
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.fastapi.schemas import (
    ListType,
    ModelType,
    OutsideType,
    PlainType,
    SchemaField,
    Type,
    UnionType,
    holds_model,
)
from verdigris.evidence.source.flow.frames import Frame
from verdigris.evidence.source.flow.heap import State, Verdict
from verdigris.evidence.source.flow.memory import Memory
from verdigris.evidence.source.flow.plan import models_in, touched
from verdigris.evidence.source.flow.shapes import Link, Shape
from verdigris.evidence.source.flow.summaries import Summaries
from verdigris.evidence.source.flow.values import (
    Either,
    Entity,
    Func,
    Instance,
    Klass,
    Many,
    Opaque,
    Plain,
    Record,
    Result,
    Row,
    Value,
    alternatives,
    element,
)
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.machine import Machine
    from verdigris.evidence.source.models.relations import Relation
    from verdigris.evidence.source.reading.modules import Scope
    from verdigris.evidence.values import Place

NESTED = 8
_WORST = [State.LOADED, State.DOUBT, State.UNLOADABLE, State.EMPTY, State.MISSING]


@dataclass(frozen=True, slots=True)
class Read:
    """One relationship read in one place, as the worst of the ways that lead there has it."""

    owner: str  # the route, or the function
    path: str  # Order.lines.product
    relation: Relation
    state: State
    reason: str
    place: Place
    function: Place  # the function's span
    origin: Place | None
    option: str  # the loader option to paste
    field: SchemaField | None = None  # OrderOut.lines
    route: str | None = None
    via: Place | None = None
    made: bool = False
    start: str | None = None  # the route or function from which code elsewhere was reached

    @property
    def key(self) -> str:
        """Stable name."""
        return f"{self.owner} {self.path}"


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """A value that goes into a response model and could not be followed."""

    owner: str
    place: Place
    function: Place
    reason: str
    route: str | None = None


@dataclass(slots=True)
class Serving:
    """A value on its way into a response model."""

    owner: str
    place: Place
    function: Place
    route: str | None
    start: str | None = None
    quiet: bool = False  # one of several arms: note nothing, tell only
    missing: list[str] = field(default_factory=list)


class Reads:
    """Collects the reads of all roots."""

    def __init__(self, source: Source) -> None:
        """Collect for one tree."""
        self.source = source
        self.found: dict[str, Read] = {}
        self.strays: dict[str, list[tuple[Place, Place]]] = {}  # by name: the reads and their functions
        self.unfollowed: dict[str, Unfollowed] = {}
        self.collecting = False  # reads on a field's behalf
        self.hooked = _hook(source)
        self.memory = Memory(source)
        self.summaries = Summaries()
        self._routes = {route.function: route.key for route in source.web.routes}

    # -- code -------------------------------------------------------------------------------------

    def read(
        self, machine: Machine, entity: Entity, relation: Relation, frame: Frame, node: ast.expr, *, whole: bool
    ) -> None:
        """Note that code reads a relationship of an object."""
        verdict = machine.heap.read(entity, relation, whole=whole)
        if machine.greenlet and verdict.state is State.MISSING:
            machine.heap.mark(entity, relation.name, Link("loaded"))
            return
        function = frame.scope.function or frame.scope
        where = frame.scope.module.place(node) if hasattr(node, "lineno") else function.place
        owner = self._routes.get(function, function.key)
        if frame.guarded and verdict.state in {State.MISSING, State.EMPTY}:
            verdict = replace(
                verdict,
                state=State.DOUBT,
                reason="the code is prepared to find it missing, or only some of the ways that lead here load it",
            )
        if frame.conditions and verdict.state is State.EMPTY and relation.lazy != Known("noload"):
            reason = f"{verdict.reason}, on purpose, and whether it is read of that object depends on a condition"
            verdict = replace(verdict, state=State.DOUBT, reason=reason)
        serving = Serving(
            owner, where, function.place, self._routes.get(function), start=self._start(machine, function)
        )
        self._note(machine, entity, relation, verdict, serving, None)

    def _start(self, machine: Machine, function: Scope) -> str | None:
        """Name the route or function that was run first, where that is not the one that reads."""
        first = machine.stack[0] if machine.stack else function
        return None if first is function else self._routes.get(first, f"{first.name}()")

    def _note(
        self,
        machine: Machine,
        entity: Entity,
        relation: Relation,
        verdict: Verdict,
        serving: Serving,
        label: SchemaField | None,
    ) -> None:
        _, shape = machine.heap.locate(entity)
        if shape.fresh and shape.link(relation.name) is None:  # reading a pending object's collection makes it
            machine.heap.mark(entity, relation.name, Link("loaded"))
        if verdict.state is State.MISSING:  # what comes after would not run; report the first only
            beyond = Shape(relation.target or "?", opened="it comes after what is missing", silent=True)
            machine.heap.mark(entity, relation.name, Link("loaded", shape=beyond))
        if verdict.state in {State.CALLER, State.SYNC}:
            return
        if serving.quiet:
            if verdict.state is not State.LOADED:
                serving.missing.append(relation.key)
            return
        path, option = self._path(machine, entity, relation)
        read = Read(
            serving.owner,
            path if label is not None else relation.key,
            relation,
            verdict.state,
            verdict.reason,
            serving.place,
            serving.function,
            verdict.origin,
            option,
            label,
            serving.route,
            verdict.via,
            verdict.made,
            serving.start,
        )
        old = self.found.get(read.key)
        if old is None or _WORST.index(read.state) > _WORST.index(old.state):
            self.found[read.key] = read

    def _path(self, machine: Machine, entity: Entity, relation: Relation) -> tuple[str, str]:
        """Return the dotted path from the queried object, and the options that would load it."""
        entity, _ = machine.heap.locate(entity)
        root = machine.heap.cells.get(entity.cell)
        model = root.model if root is not None else entity.model
        names, chain, current = [self._name(model)], [], model
        for name in entity.path:
            step = self.source.relations.of(current, name)
            names.append(name)
            chain.append(step.option if step is not None else name)
            current = step.target if step is not None and step.target is not None else current
        return ".".join([*names, relation.name]), ".".join([*chain, relation.option])

    def _name(self, model: str) -> str:
        found = self.source.relations.models.get(model)
        return found.name if found is not None else model

    def stray(self, name: str, place: Place, scope: Scope) -> None:
        """Note a read of something named like a relationship, of an object nobody knows."""
        function = scope.function or scope
        found = self.strays.setdefault(name, [])
        if all(known != place for known, _ in found):
            found.append((place, function.place))

    def gave_up(self, function: Scope, reason: str) -> None:
        """Note a function that could not be run to its end."""
        route = self._routes.get(function)
        owner = route or function.key
        self.unfollowed.setdefault(owner, Unfollowed(owner, function.place, function.place, reason, route))

    # -- validation -------------------------------------------------------------------------------

    def validated(self, machine: Machine, scope: Scope, call: Call) -> Value:
        """`OrderOut.model_validate(order)` reads what the model needs."""
        value = call.get(0, "obj")
        from_attributes = "from_attributes" in call.keywords or self.source.schemas.from_attributes(scope)
        if isinstance(value, Opaque) and not from_attributes:
            return Instance(scope)
        if value is not None:
            self.serve(machine, value, ModelType(scope), self._serving(call.frame, call.node))
        return Instance(scope)

    def constructed(self, machine: Machine, scope: Scope, call: Call) -> Value:
        """`Page(items=orders)` reads what the models of its fields need."""
        serving = self._serving(call.frame, call.node)
        for each in self.source.schemas.fields(ModelType(scope)):
            for name in (each.name, *(path[0] for path in each.sources if path)):
                if name in call.keywords:
                    self.serve(machine, call.keywords[name], each.type, serving)
                    break
        return Instance(scope)

    def dumped(self, owner: Instance, name: str) -> Value:
        """A validated model's own methods give plain values."""
        return owner if name in {"model_copy", "copy"} else Plain()

    def _serving(self, frame: Frame, node: ast.AST) -> Serving:
        function = frame.scope.function or frame.scope
        route = self._routes.get(function)
        return Serving(route or function.key, frame.scope.module.place(node), function.place, route)

    # -- response models --------------------------------------------------------------------------

    def serve(self, machine: Machine, value: Value, made: Type, serving: Serving, depth: int = 0) -> None:
        """Read of a value what a type needs."""
        if depth > NESTED or isinstance(made, PlainType):
            return
        for arm in alternatives(value):
            self._serve(machine, arm, made, serving, depth)

    def _serve(self, machine: Machine, value: Value, made: Type, serving: Serving, depth: int) -> None:
        match made, value:
            case _, Opaque(reason=reason, silent=silent):
                if not silent and holds_model(made) and self._needs_something(made):
                    self._unfollowed(serving, reason)
            case UnionType(arms=arms), _:
                self._union(machine, value, arms, serving, depth)
            case ListType(element=inner), Many() | Row() | Result():
                self.serve(machine, element(value), inner, serving, depth + 1)
            case ListType(element=inner), Record(items=items, rest=rest):
                for each in [*(item for _, item in items), rest]:
                    self.serve(machine, each, inner, serving, depth + 1)
            case OutsideType(arguments=arguments), Many() | Row() | Result():
                for inner in arguments:
                    self.serve(machine, element(value), inner, serving, depth + 1)
            case ModelType(), Entity():
                self._entity(machine, value, made, serving, depth)
            case ModelType(), Record():
                self._record(machine, value, made, serving, depth)
            case _:
                return

    def _unfollowed(self, serving: Serving, reason: str) -> None:
        if not serving.quiet:
            self.unfollowed.setdefault(
                serving.owner, Unfollowed(serving.owner, serving.place, serving.function, reason, serving.route)
            )

    def _needs_something(self, made: Type) -> bool:
        """Tell whether a type could read a relationship: it holds models in models, or names one."""
        for model in models_in(made):
            for each in self.source.schemas.fields(model):
                if holds_model(each.type) or any(
                    path and path[0] in self.source.relations.names for path in each.sources
                ):
                    return True
        return False

    def _union(self, machine: Machine, value: Value, arms: tuple[Type, ...], serving: Serving, depth: int) -> None:
        """Any arm may do: only what no arm can do without is needed."""
        fitting = []
        for arm in arms:
            if isinstance(value, Entity) and not isinstance(arm, ModelType):
                continue
            trial = replace(serving, quiet=True, missing=[])
            heap = machine.heap.copy()
            self.serve(machine, value, arm, trial, depth + 1)
            machine.heap = heap
            if not trial.missing:
                self.serve(machine, value, arm, serving, depth + 1)
                return
            fitting.append(arm)
        if fitting:
            self.serve(machine, value, fitting[-1], serving, depth + 1)

    def _record(self, machine: Machine, value: Record, made: ModelType, serving: Serving, depth: int) -> None:
        known = dict(value.items)
        for each in self.source.schemas.fields(made):
            for path in (*each.sources, (each.name,)):
                if path and path[0] in known:
                    self.serve(machine, known[path[0]], each.type, serving, depth + 1)
                    break

    def _entity(self, machine: Machine, entity: Entity, made: ModelType, serving: Serving, depth: int) -> None:
        before = self.source.schemas.whole_validator(made.scope)
        if before is not None:
            self._validated_before(machine, entity, made, before, serving, depth)
            return
        self._fields(machine, entity, made, serving, depth)

    def _fields(self, machine: Machine, entity: Entity, made: ModelType, serving: Serving, depth: int) -> None:
        for each in self.source.schemas.fields(made):
            for path in each.sources:
                if path and self._has(entity, path[0]):
                    self._field(machine, entity, path, each, serving, depth)
                    break

    def _has(self, entity: Entity, name: str) -> bool:
        model = self.source.relations.models.get(entity.model)
        if model is None:
            return False
        return (
            self.source.relations.of(entity.model, name) is not None
            or self.source.names.class_attribute(model.scope, name) is not None
        )

    def _field(
        self, machine: Machine, entity: Entity, path: tuple[str, ...], each: SchemaField, serving: Serving, depth: int
    ) -> None:
        relation = self.source.relations.of(entity.model, path[0])
        if relation is not None:
            verdict = machine.heap.read(entity, relation, whole=True)
            self._note(machine, entity, relation, verdict, serving, each)
            value = machine.heap.target(entity, relation)
            if len(path) > 1 and isinstance(value, Entity):
                self._field(machine, value, path[1:], each, serving, depth + 1)
            elif not each.opaque:
                self.serve(machine, value, each.type, serving, depth + 1)
        elif touched(self.source, entity.model, path[0]):
            self._property(machine, entity, path[0], each, serving, depth)

    def _property(
        self, machine: Machine, entity: Entity, name: str, each: SchemaField, serving: Serving, depth: int
    ) -> None:
        """A property of the mapped class reads relationships on the field's behalf."""
        model = self.source.relations.models[entity.model]
        frame = Frame(model.scope, {})
        with self._apart() as inner:
            value = machine.attributes.of(
                entity, name, ast.copy_location(ast.Name(name, ast.Load()), model.scope.node), frame
            )
        for read in inner.values():
            if read.state is not State.LOADED and serving.quiet:
                serving.missing.append(read.relation.key)
            elif not serving.quiet:
                moved = replace(
                    read,
                    owner=serving.owner,
                    place=serving.place,
                    function=serving.function,
                    route=serving.route,
                    field=each,
                )
                old = self.found.get(moved.key)
                if old is None or _WORST.index(moved.state) > _WORST.index(old.state):
                    self.found[moved.key] = moved
        if not each.opaque:
            self.serve(machine, value, each.type, serving, depth + 1)

    @contextmanager
    def _apart(self) -> Iterator[dict[str, Read]]:
        """Collect the reads of the block apart; those before it stay, whatever ends it."""
        outer = self.found, self.collecting
        self.found, self.collecting = {}, True
        try:
            yield self.found
        finally:
            self.found, self.collecting = outer

    def _validated_before(
        self, machine: Machine, entity: Entity, made: ModelType, before: Scope, serving: Serving, depth: int
    ) -> None:
        """A validator sees the object first: what it returns is what the fields are read from."""
        static = any(getattr(decorator, "id", "") == "staticmethod" for decorator in before.decorators)
        given = machine.call(Func(before, None if static else Klass(made.scope)), [entity], {})
        for arm in alternatives(given):
            if isinstance(arm, Entity):
                self._fields(machine, arm, made, serving, depth)
            elif isinstance(arm, Record):
                self._record(machine, arm, made, serving, depth)
            elif isinstance(arm, (Opaque, Either)):
                self._unfollowed(serving, f"{made.name}.{before.name}() sees the object before its fields are read")


def _hook(source: Source) -> str | None:
    """Find a session hook that adds loader options to statements."""
    for call in source.calls.named("listens_for", "listen"):
        texts = {arg.value for arg in call.node.args if isinstance(arg, ast.Constant)}
        if "do_orm_execute" in texts and call.module.role.value == "application":
            text = call.module.file.text
            if "load(" in text and ".options(" in text:
                return f"a do_orm_execute hook ({call.place}) may add loader options"
    return None
