"""What calls do: sessions, results and loader options of SQLAlchemy, FastAPI's injection, Python's own functions."""

from __future__ import annotations

import ast
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow import orm
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
    either,
    element,
    entities,
)
from verdigris.evidence.source.modules import Scope
from verdigris.evidence.source.names import External

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.source.flow.expressions import Call, Expressions
    from verdigris.evidence.source.flow.machine import Machine

_PASSING = {
    "list",
    "sorted",
    "set",
    "tuple",
    "reversed",
    "iter",
    "frozenset",
    "deque",
    "filter",
    "chain",
    "islice",
    "cast",
    "copy",
    "deepcopy",
}
_RUNNING = {
    "gather",
    "wait_for",
    "shield",
    "create_task",
    "ensure_future",
    "run",
    "run_until_complete",
    "run_in_threadpool",
    "to_thread",
    "run_sync",
}


class Library:
    """Calls of what is known, on behalf of one machine."""

    def __init__(self, machine: Machine, expressions: Expressions) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.expressions = expressions
        self.source = machine.source
        self.orm = orm.Orm(machine)

    def call(self, callee: Value, call: Call) -> Value:
        """Return what a call of one value gives."""
        match callee:
            case Func():
                return self._function(callee, call)
            case Klass(scope=scope):
                return self._make(scope, call)
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

    # -- functions of the tree --------------------------------------------------------------------

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
                "verdigris.engine.Database.transactional",
            }:
                return True
        return False

    # -- classes of the tree ----------------------------------------------------------------------

    def _make(self, scope: Scope, call: Call) -> Value:
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

    # -- FastAPI ----------------------------------------------------------------------------------

    def injected(self, scope: Scope, parameter: ast.arg, around: Scope) -> Value | None:
        """Return what `Depends` gives a parameter, or None if nothing is injected."""
        marker = self._marker(scope.default(parameter.arg), around) or self._annotated_marker(
            parameter.annotation, around, 0
        )
        if marker is None:
            return None
        call, where = marker
        given = call.args[0] if call.args else next((k.value for k in call.keywords if k.arg == "dependency"), None)
        provider = (
            self.source.types.reach(given, where) if given is not None else self._class_of(parameter.annotation, around)
        )
        if provider is None or not isinstance(provider, Scope):
            if isinstance(provider, External):
                made = self.expressions.annotation(parameter.annotation, around, "what a dependency from outside gives")
                return made if not isinstance(made, Plain) else Outside(provider.dotted, made=True)
            return self.expressions.annotation(
                parameter.annotation, around, f"what `{parameter.arg}` is given is not settled"
            )
        if id(provider) not in self.machine.dependencies:
            self.machine.dependencies[id(provider)] = Opaque(f"{provider.name}() depends on itself")
            self.machine.dependencies[id(provider)] = self._provided(provider, parameter, around)
        return self.machine.dependencies[id(provider)]

    def _provided(self, provider: Scope, parameter: ast.arg, around: Scope) -> Value:
        from verdigris.evidence.source.flow.expressions import Call
        from verdigris.evidence.source.flow.machine import Frame

        node = ast.Call(ast.Name(provider.name, ast.Load()), [], [])
        call = Call(node, [], {}, Frame(around, {}), awaited=True, opened=False)
        if provider.is_class:
            return self._make(provider, call)
        made = self.machine.call(Func(provider, self._owner(provider)), [], {})
        if isinstance(made, Many) and any(isinstance(inner, ast.Yield) for inner in provider.nodes()):
            made = made.element
        if isinstance(made, (Opaque, Plain)):
            said = self.expressions.annotation(
                parameter.annotation, around, f"what {provider.name}() gives is not settled"
            )
            return made if isinstance(said, (Plain, Opaque)) else said
        return made

    def _owner(self, provider: Scope) -> Value | None:
        return Instance(provider.enclosing_class) if provider.enclosing_class is not None else None

    def _class_of(self, annotation: ast.expr | None, around: Scope) -> Scope | None:
        found = self.source.types.annotation(annotation, around) if annotation is not None else None
        return found if isinstance(found, Scope) else None

    def _marker(self, node: ast.expr | None, scope: Scope) -> tuple[ast.Call, Scope] | None:
        if isinstance(node, ast.Call):
            found = self.source.names.resolve(node.func, scope)
            if isinstance(found, External) and found.leaf in {"Depends", "Security", "FromDishka", "Inject"}:
                return node, scope
        return None

    def _annotated_marker(self, node: ast.expr | None, scope: Scope, depth: int) -> tuple[ast.Call, Scope] | None:
        from verdigris.evidence.source.names import Assigned
        from verdigris.evidence.source.relations import parsed

        node = parsed(node)
        if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Tuple):
            found = self.source.names.resolve(node.value, scope)
            if isinstance(found, External) and found.leaf == "Annotated":
                markers = (self._marker(item, scope) for item in node.slice.elts[1:])
                return next((marker for marker in markers if marker is not None), None) or self._annotated_marker(
                    node.slice.elts[0], scope, depth + 1
                )
        if isinstance(node, (ast.Name, ast.Attribute)) and depth < 4:
            meaning = self.source.names.resolve(node, scope)
            if isinstance(meaning, Assigned) and meaning.value is not None:
                return self._annotated_marker(meaning.value, meaning.scope, depth + 1)
        return None

    # -- methods of what is known -----------------------------------------------------------------

    def _method(self, owner: Value, name: str, call: Call) -> Value:
        match owner:
            case Statement():
                return self.orm.statement_method(owner, name, call)
            case Result():
                return self._result(owner, name, call)
            case Option():
                return self.orm.option_method(owner, name, call)
            case Many() | Row():
                return self._collection(owner, name, call)
            case Record():
                return self._mapping(owner, name, call)
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
                done = self.orm.session_method(owner, name, call)
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

    def _result(self, result: Result, name: str, call: Call) -> Value:
        whole = result.columns
        match name:
            case "scalars":
                index = call.get(0)
                if isinstance(index, Const) and isinstance(index.value, int) and index.value < len(whole):
                    return Result((whole[index.value],), scalars=True)
                return Result(whole[:1], scalars=True)
            case "scalar" | "scalar_one" | "scalar_one_or_none":
                return whole[0] if whole else Plain()
            case "all" | "fetchall" | "fetchmany" | "partitions":
                return Many(Many(element(result))) if name == "partitions" else Many(element(result))
            case "first" | "one" | "one_or_none" | "fetchone" | "__anext__" | "__next__":
                return element(result)
            case "mappings":
                return Opaque("rows as mappings are not followed")
            case "unique" | "tuples" | "yield_per" | "freeze" | "columns" | "execution_options":
                return result
            case _:
                return Plain()

    def _collection(self, owner: Many | Row, name: str, call: Call) -> Value:
        inner = element(owner)
        match name:
            case "append" | "add" | "insert" | "extend" | "update" | "appendleft":
                self._grow(call, name)
                return Plain()
            case "all" | "copy" | "unique" | "scalars" | "union" | "difference" | "intersection" | "_tuple" | "tuple":
                return owner
            case (
                "pop"
                | "first"
                | "one"
                | "one_or_none"
                | "popleft"
                | "__anext__"
                | "__next__"
                | "scalar_one_or_none"
                | "get"
            ):
                return inner
            case _:
                return Plain()

    def _grow(self, call: Call, name: str) -> None:
        """`rows.append(x)`: the list that a name holds has one more element."""
        node = call.node.func
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and call.arguments):
            return
        names = call.frame.names
        old = names.get(node.value.id)
        added = element(call.arguments[-1]) if name in {"extend", "update"} else call.arguments[-1]
        if isinstance(old, Many):
            names[node.value.id] = Many(either([old.element, added]))

    def _mapping(self, owner: Record, name: str, call: Call) -> Value:
        every = either([*(value for _, value in owner.items), owner.rest])
        match name:
            case "get" | "pop" | "setdefault":
                key = call.get(0)
                if isinstance(key, Const):
                    found = dict(owner.items).get(str(key.value), owner.rest)
                    default = call.get(1)
                    return either([found, default]) if default is not None else found
                return every
            case "values":
                return Many(every)
            case "items":
                return Many(Row((Plain(), every)))
            case "copy":
                return owner
            case "update":
                self._updated(owner, call)
                return Plain()
            case _:
                return Plain()

    def _updated(self, owner: Record, call: Call) -> None:
        node = call.node.func
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            more = [arg for arg in call.arguments if isinstance(arg, Record)]
            items = {**dict(owner.items), **{key: value for arg in more for key, value in arg.items}, **call.keywords}
            rest = either(
                [
                    owner.rest,
                    *(arg.rest for arg in more),
                    *(arg for arg in call.arguments if not isinstance(arg, Record)),
                ]
            )
            call.frame.names[node.value.id] = Record(tuple(items.items()), rest)

    # -- what comes from outside ------------------------------------------------------------------

    def _outside(self, dotted: str, call: Call) -> Value:
        package, _, _ = dotted.partition(".")
        leaf = dotted.rpartition(".")[2]
        if package in {"sqlalchemy", "sqlmodel", "verdigris", "advanced_alchemy"}:
            done = self.orm.function(dotted, leaf, call)
            if done is not None:
                return done
        if leaf in {"paginate", "apaginate"}:
            return self._paginated(call)
        known: Callable[[Call], Value] | None = (
            getattr(self, f"_do_{leaf.lower()}", None) if package in _KNOWN else None
        )
        if known is not None:
            return known(call)
        if leaf in _PASSING and call.arguments:
            return self._passed(leaf, call)
        if leaf in _RUNNING:
            return self._run(leaf, call)
        if leaf == "validate_python" or (leaf[:1].isupper() and package != "builtins"):
            return Outside(dotted, made=True) if leaf != "validate_python" else Plain()
        return Plain() if package == "builtins" or package in _FOREIGN else self._unresolved(call)

    def _passed(self, leaf: str, call: Call) -> Value:
        first = call.arguments[-1] if leaf in {"filter", "cast"} else call.arguments[0]
        if leaf == "cast":
            return first
        key = call.keywords.get("key")
        if isinstance(key, Func):
            self.machine.call(key, [element(first)], {})
        if leaf == "filter" and isinstance(call.arguments[0], Func):
            self.machine.call(call.arguments[0], [element(first)], {})
        if leaf in {"copy", "deepcopy"}:
            return first
        return either([Many(element(arm), arm.held if isinstance(arm, Many) else None) for arm in alternatives(first)])

    def _run(self, leaf: str, call: Call) -> Value:
        functions = [arg for arg in call.arguments if isinstance(arg, Func)]
        if functions:
            self.machine.greenlet += 1
            made = self.machine.call(functions[0], call.arguments[1:], call.keywords)
            self.machine.greenlet -= 1
            return made
        if leaf == "gather":
            spread = len(call.arguments) == 1 and isinstance(call.node.args[0], ast.Starred) and not self._held(call)
            return call.arguments[0] if spread else Row(tuple(call.arguments))
        return call.arguments[0] if call.arguments else Plain()

    def _held(self, call: Call) -> bool:
        return not isinstance(call.arguments[0], Many)

    def _paginated(self, call: Call) -> Value:
        """A pagination library's own function: a page of what the statement selects."""
        for argument in [*call.arguments, *call.keywords.values()]:
            for arm in alternatives(argument):
                if isinstance(arm, Statement):
                    return Many(element(self.orm.executed(arm, call)))
                if isinstance(arm, Many):
                    return arm
        return self._unresolved(call)

    def _do_enumerate(self, call: Call) -> Value:
        return Many(Row((Plain(), element(call.arguments[0])))) if call.arguments else Plain()

    def _do_zip(self, call: Call) -> Value:
        return Many(Row(tuple(element(arg) for arg in call.arguments)))

    def _do_map(self, call: Call) -> Value:
        if len(call.arguments) < 2:
            return Plain()
        return Many(self.call(call.arguments[0], self._with(call, [element(call.arguments[1])])))

    def _do_next(self, call: Call) -> Value:
        return element(call.arguments[0]) if call.arguments else Plain()

    def _do_anext(self, call: Call) -> Value:
        return self._do_next(call)

    def _do_max(self, call: Call) -> Value:
        key = call.keywords.get("key")
        values = call.arguments
        each = element(values[0]) if len(values) == 1 else either(values) if values else Plain()
        if isinstance(key, Func):
            self.machine.call(key, [each], {})
        return each

    def _do_min(self, call: Call) -> Value:
        return self._do_max(call)

    def _do_dict(self, call: Call) -> Value:
        first = call.get(0)
        if isinstance(first, Record):
            return Record((*first.items, *call.keywords.items()), first.rest)
        inner = element(first) if first is not None else Plain()
        rest = inner.values[1] if isinstance(inner, Row) and len(inner.values) == 2 else Plain()
        return Record(tuple(call.keywords.items()), rest)

    def _do_groupby(self, call: Call) -> Value:
        key = call.keywords.get("key") or call.get(1)
        each = element(call.arguments[0]) if call.arguments else Plain()
        if isinstance(key, Func):
            self.machine.call(key, [each], {})
        return Many(Row((Plain(), Many(each))))

    def _do_getattr(self, call: Call) -> Value:
        owner, name = call.get(0), call.get(1)
        if owner is None or not (isinstance(name, Const) and isinstance(name.value, str)):
            return Opaque("an attribute is chosen when the code runs")
        prepared = len(call.arguments) > 2
        call.frame.guarded += prepared
        try:
            return either(
                [self.expressions.attribute(arm, name.value, call.node, call.frame) for arm in alternatives(owner)]
            )
        finally:
            call.frame.guarded -= prepared

    def _do_hasattr(self, call: Call) -> Value:
        return Plain()

    def _do_setattr(self, call: Call) -> Value:
        owner, name = call.get(0), call.get(1)
        for arm in alternatives(owner) if owner is not None else ():
            if isinstance(arm, Entity):
                if isinstance(name, Const):
                    self.machine.set_relation(arm, str(name.value), call.get(2) or Plain(), call.node, call.frame)
                else:
                    where, shape = self.machine.heap.locate(arm)
                    if shape.made:
                        self.machine.heap.set(where, replace(shape, given=shape.given | {"*"}))
        return Plain()

    def _do_set_committed_value(self, call: Call) -> Value:
        return self._do_setattr(call)

    def _do_partial(self, call: Call) -> Value:
        return call.arguments[0] if call.arguments else Plain()

    def _do_typeadapter(self, call: Call) -> Value:
        return Outside("pydantic.TypeAdapter", made=True)

    def _do_jsonable_encoder(self, call: Call) -> Value:
        return Plain()

    def _with(self, call: Call, arguments: list[Value]) -> Call:
        from verdigris.evidence.source.flow.expressions import Call

        return Call(call.node, arguments, {}, call.frame, awaited=False, opened=False)

    def _unresolved(self, call: Call) -> Value:
        """A call that nothing settles: believe its annotation, of what it loads nothing is known."""
        if call.awaited:
            for argument in [*call.arguments, *call.keywords.values()]:
                for entity in entities(argument):
                    self._open(entity)
        made = self.source.types.call(call.node, call.frame.scope)
        name = call.frame.scope.module.text(call.node.func)
        if isinstance(made, Scope):
            return self.expressions._instance(made, f"what `{name}()` loads is not followed")
        return (
            Outside(made.dotted, made=True)
            if isinstance(made, External)
            else Opaque(f"what `{name}()` gives is not settled")
        )

    def _open(self, entity: Entity) -> None:
        where, shape = self.machine.heap.locate(entity)
        if shape.opened is None:
            self.machine.heap.set(where, replace(shape, opened="it was passed to a function that is not followed"))


#: Packages that hold no mapped object.
_FOREIGN = (
    frozenset(sys.stdlib_module_names) - {"asyncio", "contextlib", "functools", "itertools", "typing", "copy"}
) | {
    "httpx",
    "aiohttp",
    "requests",
    "yaml",
    "orjson",
    "redis",
    "boto3",
    "jwt",
    "jose",
    "starlette",
    "structlog",
    "loguru",
}
_KNOWN = {"builtins", "functools", "itertools", "operator", "sqlalchemy", "pydantic", "fastapi", "copy"}
