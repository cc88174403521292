"""What calls do, told by what is called: the tree's own functions, SQLAlchemy, containers, what comes from outside."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.containers import collection_method, mapping_method, result_method
from verdigris.evidence.source.flow.orm import Orm
from verdigris.evidence.source.flow.sessions import Sessions
from verdigris.evidence.source.flow.standard import Standard
from verdigris.evidence.source.flow.values import (
    Attr,
    Const,
    Entity,
    Func,
    Instance,
    Klass,
    Many,
    Method,
    Opaque,
    Option,
    Outside,
    Plain,
    Record,
    Result,
    Row,
    Statement,
    Value,
    alternatives,
    element,
    entities,
)
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.machine import Machine

_RUNNING = {
    "gather", "wait_for", "shield", "create_task", "ensure_future", "run", "run_until_complete", "run_in_threadpool",
    "to_thread", "run_sync",
}  # fmt: skip
_LIBRARIES = {
    "httpx", "aiohttp", "requests", "yaml", "orjson", "redis", "boto3", "jwt", "jose", "starlette", "structlog",
    "loguru",
}  # fmt: skip
#: Packages that hold no mapped object.
_FOREIGN = _LIBRARIES | (
    sys.stdlib_module_names - {"asyncio", "contextlib", "functools", "itertools", "typing", "copy"}
)
_PASSED = "it was passed to a function that is not followed"


class Library:
    """Calls on behalf of one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source
        self.orm = Orm(machine)
        self.sessions = Sessions(machine, self.orm)
        self.standard = Standard(machine)

    def call(self, callee: Value, call: Call) -> Value:
        """Return what a call of one value gives."""
        match callee:
            case Func():
                return self._function(callee, call)
            case Klass(scope=scope):
                return self.make(scope, call)
            case Method(owner=owner, name=name):
                return self._method(owner, name, call)
            case Outside(dotted=dotted, made=False):
                return self._outside(dotted, call)
            case Instance(scope=scope):
                method = self.source.names.class_attribute(scope, "__call__")
                return self._function(Func(method, callee), call) if isinstance(method, Scope) else Opaque()
            case Outside(made=True):
                return self._unresolved(call)
            case Plain() | Const():
                return Plain()
            case _:
                return self._unresolved(call)

    # -- functions and classes of the tree -------------------------------------------------------------

    def _function(self, function: Func, call: Call) -> Value:
        arguments = list(call.arguments)
        if self._is_transactional(function.scope):
            arguments.insert(0, Outside("sqlalchemy.ext.asyncio.AsyncSession", made=True))
        before = self.machine.last
        made = self.machine.call(function, arguments, call.keywords, opened=call.opened)
        self._sign(before, call)
        return made

    def _sign(self, before: int, call: Call) -> None:
        """Note on new objects that this call led to their query, where the query stands in another module."""
        if not hasattr(call.node, "lineno"):
            return
        place = call.frame.scope.module.place(call.node)
        cells = self.machine.heap.cells
        for number in range(before + 1, self.machine.last + 1):
            shape = cells.get(number)
            if shape is not None and shape.via is None and shape.origin is not None and shape.origin.path != place.path:
                cells[number] = replace(shape, via=place)

    def _is_transactional(self, scope: Scope) -> bool:
        """Tell whether the library's decorator passes the session."""
        for decorator in scope.decorators:
            node = decorator.func if isinstance(decorator, ast.Call) else decorator
            found = self.source.types.reach(node, scope.parent or scope.module.scope)
            if isinstance(found, External) and found.dotted in {
                "verdigris.Database.transactional",
                "verdigris.database.Database.transactional",
            }:
                return True
        return False

    def make(self, scope: Scope, call: Call) -> Value:
        """Return a new object of a class of the tree."""
        model = self.source.models.of(scope)
        if model is not None:
            return self.orm.construct(model.key, call)
        if self.source.schemas.is_schema(scope):
            return self.machine.reads.constructed(self.machine, scope, call)
        init = self.source.names.class_attribute(scope, "__init__")
        if isinstance(init, Scope):
            made = self.machine.call(Func(init, Instance(scope)), call.arguments, call.keywords, opened=call.opened)
            return made if isinstance(made, Instance) else Instance(scope)
        names = [name for name, bindings in scope.bindings.items() if bindings[-1].annotation is not None]
        given = {**dict(zip(names, call.arguments, strict=False)), **call.keywords}
        return Instance(scope, tuple(given.items()))

    # -- methods of what is known ----------------------------------------------------------------------

    def _method(self, owner: Value, name: str, call: Call) -> Value:
        match owner:
            case Statement():
                return self.orm.statement_method(owner, name, call)
            case Result():
                return result_method(owner, name, call)
            case Option():
                return self.orm.option_method(owner, name, call)
            case Many() | Row():
                return collection_method(owner, name, call)
            case Record():
                return mapping_method(owner, name, call)
            case Klass(scope=scope):
                return self._class_method(scope, name, call)
            case Entity():
                return Plain()
            case Instance() if self.source.schemas.is_schema(owner.scope):
                return self.machine.reads.dumped(owner, name)
            case Plain() | Const() | Attr() | Func():
                return Plain()
            case Outside() if owner.package in _FOREIGN:
                return Plain()
            case _:
                done = self.sessions.method(owner, name, call)
                return done if done is not None else self._unresolved(call)

    def _class_method(self, scope: Scope, name: str, call: Call) -> Value:
        if self.source.schemas.is_schema(scope) and name in {"model_validate", "from_orm", "validate", "parse_obj"}:
            return self.machine.reads.validated(self.machine, scope, call)
        if self.source.schemas.is_schema(scope):
            return Instance(scope)
        model = self.source.models.of(scope)
        if model is not None and name in {"model_validate", "from_orm", "parse_obj", "validate", "model_construct"}:
            return self.orm.copied(model.key, call)
        return self._unresolved(call)

    # -- what comes from outside -----------------------------------------------------------------------

    def _outside(self, dotted: str, call: Call) -> Value:
        package, _, _ = dotted.partition(".")
        leaf = dotted.rpartition(".")[2]
        if package in {"sqlalchemy", "sqlmodel", "verdigris", "advanced_alchemy"}:
            done = self.orm.function(dotted, leaf, call)
            if done is not None:
                return done
        if leaf in {"paginate", "apaginate"}:
            return self._paginated(call)
        known = self.standard.call(package, leaf, call)
        if known is not None:
            return known
        if leaf in _RUNNING:
            return self._run(leaf, call)
        if leaf == "validate_python" or (leaf[:1].isupper() and package != "builtins"):
            return Outside(dotted, made=True) if leaf != "validate_python" else Plain()
        return Plain() if package == "builtins" or package in _FOREIGN else self._unresolved(call)

    def _run(self, leaf: str, call: Call) -> Value:
        functions = [arg for arg in call.arguments if isinstance(arg, Func)]
        if functions:
            self.machine.greenlet += 1
            made = self.machine.call(functions[0], call.arguments[1:], call.keywords)
            self.machine.greenlet -= 1
            return made
        if leaf == "gather":
            spread = len(call.arguments) == 1 and isinstance(call.node.args[0], ast.Starred)
            if spread and isinstance(call.arguments[0], Many):
                return call.arguments[0]
            return Row(tuple(call.arguments))
        return call.arguments[0] if call.arguments else Plain()

    def _paginated(self, call: Call) -> Value:
        """A pagination library's own function: a page of what the statement selects."""
        for argument in [*call.arguments, *call.keywords.values()]:
            for arm in alternatives(argument):
                if isinstance(arm, Statement):
                    return Many(element(self.orm.executed(arm, call)))
                if isinstance(arm, Many):
                    return arm
        return self._unresolved(call)

    def _unresolved(self, call: Call) -> Value:
        """A call that nothing settles: believe its annotation, of what it loads nothing is known."""
        for argument in [*call.arguments, *call.keywords.values()]:
            for entity in entities(argument):
                self._open(entity, awaited=call.awaited)
        made = self.source.types.call(call.node, call.frame.scope)
        name = call.frame.scope.module.text(call.node.func)
        if isinstance(made, Scope):
            return self.machine.annotations.instance(made, f"what `{name}()` loads is not followed")
        return (
            Outside(made.dotted, made=True)
            if isinstance(made, External)
            else Opaque(f"what `{name}()` gives is not settled")
        )

    def _open(self, entity: Entity, *, awaited: bool) -> None:
        """Whoever awaits may load an object; whoever does not may still fill a new one: `form.populate_obj(order)`."""
        where, shape = self.machine.heap.locate(entity)
        if awaited and shape.opened is None:
            self.machine.heap.set(where, replace(shape, opened=_PASSED))
        elif shape.made and shape.fresh:
            self.machine.heap.set(where, replace(shape, filled=_PASSED))
