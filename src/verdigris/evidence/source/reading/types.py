"""Which class an expression is an instance of, from annotations, constructors, context managers and attributes."""

from __future__ import annotations

import ast
from typing import TypeAlias

from verdigris.evidence.source.reading.attributes import is_application, kept_in_states, self_assignments
from verdigris.evidence.source.reading.modules import Binding, Scope
from verdigris.evidence.source.reading.names import Assigned, External, Meaning, Names
from verdigris.evidence.source.reading.nodes import parsed

Type: TypeAlias = External | Scope
DEPTH = 24
ASYNC_SESSION = External("sqlalchemy.ext.asyncio.AsyncSession")
SYNC_SESSION = External("sqlalchemy.orm.Session")
ASYNC_FACTORY = External("sqlalchemy.ext.asyncio.async_sessionmaker")
SYNC_FACTORY = External("sqlalchemy.orm.sessionmaker")
_ITERATORS = {"AsyncIterator", "AsyncGenerator", "Iterator", "Generator", "AsyncIterable", "Iterable"}
_CONTEXTS = {"AbstractAsyncContextManager", "AbstractContextManager", "AsyncContextManager", "ContextManager"}
_WRAPPERS = {
    "Optional", "Awaitable", "Coroutine", "ClassVar", "Final", "Required", "NotRequired", "Type", "type", "FromDishka",
}  # fmt: skip
_CONSTRUCTORS = {
    "construct",
    "model_construct",
    "model_validate",
    "model_validate_json",
    "parse_obj",
    "parse_raw",
}  # pydantic
_LOWER_CLASSES = {"async_sessionmaker", "sessionmaker", "async_scoped_session", "scoped_session"}
#: What an attribute or a call of something from outside gives.
_ATTRIBUTES = {
    ("verdigris", "Database", "session"): ASYNC_FACTORY,
    ("verdigris", "Database", "engine"): External("sqlalchemy.ext.asyncio.AsyncEngine"),
    ("verdigris", "Database", "lane"): External("verdigris.Lane"),
    ("sqlalchemy", "AsyncSession", "sync_session"): SYNC_SESSION,
}
_RESULTS = {
    ("sqlalchemy", "async_sessionmaker", ""): ASYNC_SESSION,
    ("sqlalchemy", "async_sessionmaker", "begin"): ASYNC_SESSION,
    ("sqlalchemy", "async_scoped_session", ""): ASYNC_SESSION,
    ("sqlalchemy", "sessionmaker", ""): SYNC_SESSION,
    ("sqlalchemy", "sessionmaker", "begin"): SYNC_SESSION,
    ("sqlalchemy", "scoped_session", ""): SYNC_SESSION,
    ("sqlalchemy", "AsyncEngine", "connect"): External("sqlalchemy.ext.asyncio.AsyncConnection"),
    ("sqlalchemy", "AsyncEngine", "begin"): External("sqlalchemy.ext.asyncio.AsyncConnection"),
    ("sqlalchemy", "Engine", "connect"): External("sqlalchemy.Connection"),
    ("sqlalchemy", "Engine", "begin"): External("sqlalchemy.Connection"),
    ("sqlalchemy", "AsyncSession", "begin"): External("sqlalchemy.ext.asyncio.AsyncSessionTransaction"),
    ("advanced_alchemy", "SQLAlchemyAsyncConfig", "get_session"): ASYNC_SESSION,
    ("advanced_alchemy", "SQLAlchemyAsyncConfig", "create_session_maker"): ASYNC_FACTORY,
    ("advanced_alchemy", "SQLAlchemyAsyncConfig", "get_engine"): External("sqlalchemy.ext.asyncio.AsyncEngine"),
    ("advanced_alchemy", "AdvancedAlchemy", "with_async_session"): ASYNC_SESSION,
    ("advanced_alchemy", "AdvancedAlchemy", "get_async_session"): ASYNC_SESSION,
    ("advanced_alchemy", "AdvancedAlchemy", "get_async_engine"): External("sqlalchemy.ext.asyncio.AsyncEngine"),
    ("verdigris", "Database", "read"): ASYNC_SESSION,
    ("verdigris", "Database", "from_engine"): External("verdigris.Database"),
    ("verdigris", "Database", "json_read"): External("verdigris.JSONRead"),
}


class Types:
    """Type inference as far as sessions, factories, settings and repositories need it; None means: not settled."""

    def __init__(self, names: Names) -> None:
        """Infer over the names of one tree."""
        self.names = names
        self._busy: set[tuple[ast.expr, Scope]] = set()
        self._following: set[tuple[int, str]] = set()  # variables on the way: `query = query.where(...)` adds nothing
        self._variables: dict[tuple[int, str], Type | None] = {}
        self._known: dict[tuple[ast.expr, Scope], Type | None] = {}
        self._cuts = 0
        self._kept: dict[str, list[tuple[ast.expr, Scope]]] | None = None  # in the state of applications, by name

    def of(self, node: ast.expr, scope: Scope, depth: int = 0) -> Type | None:
        """Return the class that an expression's value is an instance of.

        What was inferred without being cut short is remembered: a chain of calls asks for its beginning many times.
        """
        mark = (node, scope)  # not their ids: a node parsed from a string dies, and its id comes again
        if mark in self._known:
            return self._known[mark]
        if depth > DEPTH or mark in self._busy:
            self._cuts += 1
            return None
        self._busy.add(mark)
        cuts = self._cuts
        try:
            found = self._of(node, scope, depth)
        finally:
            self._busy.discard(mark)
        if cuts == self._cuts:
            self._known[mark] = found
        return found

    def _of(self, node: ast.expr, scope: Scope, depth: int) -> Type | None:
        match node:
            case ast.Await(value=value) | ast.NamedExpr(value=value):
                return self.of(value, scope, depth + 1)
            case ast.IfExp(body=body, orelse=orelse):
                return self.of(body, scope, depth + 1) or self.of(orelse, scope, depth + 1)
            case ast.BoolOp(values=values):
                found = (self.of(value, scope, depth + 1) for value in values)
                return next((each for each in found if each is not None), None)
            case ast.Call():
                return self.call(node, scope, depth + 1)
            case ast.Name(id=name):
                if name in {"self", "cls"}:
                    return _own_class(scope)
                meaning = self.names.resolve(node, scope)
                return self.variable(meaning, depth + 1) if isinstance(meaning, Assigned) else None
            case ast.Attribute(value=base, attr=attr):
                meaning = self.names.resolve(node, scope)
                if isinstance(meaning, Assigned):
                    return self.variable(meaning, depth + 1)
                owner = self.of(base, scope, depth + 1)
                own = None if owner is None else self.attribute(owner, attr, depth + 1)
                return own or self._of_the_state(node, depth + 1)
            case _:
                return None

    def _of_the_state(self, node: ast.Attribute, depth: int) -> Type | None:
        """Return what the tree keeps in an application's state: `app.state.factory = async_sessionmaker(engine)`."""
        if not (
            isinstance(node.value, ast.Attribute) and node.value.attr == "state" and is_application(node.value.value)
        ):
            return None
        if self._kept is None:
            self._kept = {}
            for module in self.names.modules:
                for scope in module.scope.walk() if ".state." in module.file.text else ():
                    for name, value in kept_in_states(scope):
                        self._kept.setdefault(name, []).append((value, scope))
        found = [self.of(value, scope, depth + 1) for value, scope in self._kept.get(node.attr, ())]
        return found[0] if found and all(each == found[0] for each in found) else None

    def variable(self, meaning: Assigned, depth: int = 0) -> Type | None:
        """Return the type of a variable, parameter or class attribute from the first binding that settles it."""
        mark = (id(meaning.scope), meaning.name)
        if mark in self._variables:
            return self._variables[mark]
        if mark in self._following:
            self._cuts += 1
            return None
        first, cuts = not self._following and not self._busy, self._cuts
        self._following.add(mark)
        try:
            found = self._settled(meaning, depth)
        finally:
            self._following.discard(mark)
        if cuts == self._cuts or first:
            self._variables[mark] = found
        return found

    def _settled(self, meaning: Assigned, depth: int) -> Type | None:
        for binding in meaning.bindings:
            found = self.binding(binding, binding.where or meaning.scope, depth + 1)
            if found is not None:
                return found
        return None

    def binding(self, binding: Binding, scope: Scope, depth: int = 0) -> Type | None:
        """Return the type that one binding gives to its name."""
        if binding.annotation is not None:
            where = scope.parent if binding.kind == "parameter" and scope.parent is not None else scope
            found = self.annotation(binding.annotation, where, depth + 1)
            if found is not None:
                return found
        if binding.unpacked or binding.value is None:
            return None
        if binding.kind in {"value", "parameter"}:
            depends = self.dependency(binding.value, scope, depth + 1) if binding.kind == "parameter" else None
            return depends or self.of(binding.value, scope, depth + 1)
        if binding.kind == "with":
            return self.entered(binding.value, scope, depth + 1)
        if binding.kind == "for":
            return self.element(binding.value, scope, depth + 1)
        return None

    def dependency(self, node: ast.expr, scope: Scope, depth: int = 0) -> Type | None:
        """Return what `Depends(f)` injects: what f returns or yields."""
        if not isinstance(node, ast.Call) or not node.args:
            return None
        callee = self.names.resolve(node.func, scope)
        if not (isinstance(callee, External) and callee.named("fastapi", "Depends", "Security")):
            return None
        provider = self.names.resolve(node.args[0], scope)
        if isinstance(provider, Scope):
            return provider if provider.is_class else self.produced(provider, depth + 1)
        return None

    def annotation(self, node: ast.expr, scope: Scope, depth: int = 0) -> Type | None:
        """Return the class an annotation names, through Optional, unions with None, Annotated, strings and aliases."""
        if depth > DEPTH:
            self._cuts += 1
            return None
        match node:
            case ast.Constant(value=str()):
                written = parsed(node)
                return None if written is None else self.annotation(written, scope, depth + 1)
            case ast.BinOp(op=ast.BitOr(), left=left, right=right):
                return self.annotation(left, scope, depth + 1) or self.annotation(right, scope, depth + 1)
            case ast.Subscript(value=base, slice=inner):
                return self._subscript(base, inner, scope, depth)
            case ast.Name() | ast.Attribute():
                meaning = self.names.resolve(node, scope)
                if isinstance(meaning, Assigned):
                    return self._alias(meaning, depth)
                return (
                    meaning
                    if isinstance(meaning, External) or (isinstance(meaning, Scope) and meaning.is_class)
                    else None
                )
            case _:
                return None

    def _alias(self, meaning: Assigned, depth: int) -> Type | None:
        value = meaning.value
        if isinstance(value, ast.Call) and len(value.args) == 2:
            maker = self.names.resolve(value.func, meaning.scope)
            if isinstance(maker, External) and maker.leaf == "NewType":
                value = value.args[1]
        return None if value is None else self.annotation(value, meaning.scope, depth + 1)

    def _subscript(self, base: ast.expr, inner: ast.expr, scope: Scope, depth: int) -> Type | None:
        meaning = self.names.resolve(base, scope)
        first = inner.elts[0] if isinstance(inner, ast.Tuple) and inner.elts else inner
        leaf = meaning.leaf if isinstance(meaning, External) else ""
        if leaf == "Annotated":
            found = self.annotation(first, scope, depth + 1)
            if found is None and isinstance(inner, ast.Tuple):
                for extra in inner.elts[1:]:
                    found = found or self.dependency(extra, scope, depth + 1)
            return found
        if leaf == "Union" and isinstance(inner, ast.Tuple):
            arms = (self.annotation(arm, scope, depth + 1) for arm in inner.elts)
            return next((arm for arm in arms if arm is not None), None)
        if leaf in _WRAPPERS:
            if leaf == "Coroutine" and isinstance(inner, ast.Tuple):
                first = inner.elts[-1]
            return self.annotation(first, scope, depth + 1)
        if leaf == "sessionmaker":
            made = self.annotation(first, scope, depth + 1)
            return ASYNC_FACTORY if made is not None and self.session_type(made) == "async" else SYNC_FACTORY
        return meaning if isinstance(meaning, External) or (isinstance(meaning, Scope) and meaning.is_class) else None

    def call(self, node: ast.Call, scope: Scope, depth: int = 0) -> Type | None:
        """Return what a call gives: an instance of the class called, or what the function says it returns."""
        meaning = self.callee(node, scope, depth + 1)
        if meaning is None and _first(node) and node.args:
            return self.element(node.args[0], scope, depth + 1)
        if isinstance(meaning, Scope):
            if meaning.is_class:
                return meaning
            return self._itself(meaning, node, scope, depth + 1) or self.produced(meaning, depth + 1)
        if isinstance(meaning, External):
            return self._made(meaning, node, scope, depth)
        if isinstance(node.func, ast.Attribute):
            named = self.names.resolve(node.func.value, scope) if node.func.attr in _CONSTRUCTORS else None
            if isinstance(named, Scope) and named.is_class:
                return named
            owner = self.of(node.func.value, scope, depth + 1)
            if isinstance(owner, Scope):
                for base in self.names.lineage(owner):
                    if isinstance(base, External) and (base.package, base.leaf, node.func.attr) in _RESULTS:
                        return _RESULTS[base.package, base.leaf, node.func.attr]
        called = self.of(node.func, scope, depth + 1)
        if isinstance(called, External):
            return _RESULTS.get((called.package, called.leaf, ""))
        if isinstance(called, Scope):
            method = self.names.class_attribute(called, "__call__")
            return self.produced(method, depth + 1) if isinstance(method, Scope) else None
        return None

    def _itself(self, function: Scope, node: ast.Call, scope: Scope, depth: int) -> Type | None:
        """Return the class a method is called on, where it says that it returns `Self`: a subclass's, not its own."""
        returns = getattr(function.node, "returns", None)
        if returns is None or not isinstance(node.func, ast.Attribute) or not _says_self(returns):
            return None
        named = self.names.resolve(node.func.value, scope)
        owner = named if isinstance(named, Scope) and named.is_class else self.of(node.func.value, scope, depth + 1)
        return (
            owner if isinstance(owner, Scope) and function.enclosing_class in list(self.names.lineage(owner)) else None
        )

    def _made(self, meaning: External, node: ast.Call, scope: Scope, depth: int) -> Type | None:
        """Return what a call of something from outside gives."""
        owner, _, method = meaning.dotted.rpartition(".")
        known = _RESULTS.get((meaning.package, owner.rpartition(".")[2], method))
        if known is not None:
            return known
        if meaning.leaf == "cast" and meaning.package == "typing" and node.args:
            return self.annotation(node.args[0], scope, depth + 1)
        if meaning.leaf == "sessionmaker" and self._makes_async(node, scope, depth):
            return ASYNC_FACTORY
        if meaning.leaf[:1].isupper() or meaning.leaf in _LOWER_CLASSES:
            return meaning
        return _engine(meaning)

    def _makes_async(self, node: ast.Call, scope: Scope, depth: int) -> bool:
        """Tell whether `sessionmaker(class_=AsyncSession)` is what this is."""
        for given in node.keywords:
            if given.arg == "class_":
                found = self.annotation(given.value, scope, depth + 1)
                return found is not None and self.session_type(found) == "async"
        return False

    def callee(self, node: ast.Call, scope: Scope, depth: int = 0) -> Meaning | None:
        """Tell which function or class a call reaches, through instances and `self` too; None if not settled."""
        return self.reach(node.func, scope, depth)

    def reach(self, node: ast.expr, scope: Scope, depth: int = 0) -> Meaning | None:
        """Tell which function or class an expression names, bound methods included; None if not settled."""
        meaning = self.names.resolve(node, scope)
        if meaning is not None and not isinstance(meaning, Assigned):
            return meaning
        if isinstance(meaning, Assigned) and isinstance(meaning.value, ast.Attribute) and depth < DEPTH:
            return self.reach(meaning.value, meaning.scope, depth + 1)  # get_db = db.request_session
        if not isinstance(node, ast.Attribute):
            return None
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Name) and node.value.func.id == "super":
            own = _own_class(scope)
            bases = list(self.names.lineage(own))[1:] if own is not None else []
            return next(
                (base.member(node.attr) for base in bases if isinstance(base, Scope) and base.member(node.attr)), None
            )
        owner = self.of(node.value, scope, depth + 1)
        if isinstance(owner, Scope):
            member = self.names.class_attribute(owner, node.attr)
            return member if isinstance(member, Scope) else None
        if (
            isinstance(owner, External)
            and owner.package != "?"
            and (owner.package, owner.leaf, node.attr) not in _ATTRIBUTES
        ):
            return External(f"{owner.dotted}.{node.attr}")
        return None

    def produced(self, function: Scope, depth: int = 0) -> Type | None:
        """Return what a function returns or, for a generator, yields."""
        if not isinstance(function.node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            return None
        if depth > DEPTH:
            self._cuts += 1
            return None
        where = function.parent or function.module.scope
        if function.node.returns is not None:
            inner = self._unwrapped(function.node.returns, where)
            found = self.annotation(inner, where, depth + 1)
            if found is not None and not (isinstance(found, External) and found.leaf in {"Self", "Any", "None"}):
                return found
            if isinstance(found, External) and found.leaf == "Self":
                return function.enclosing_class
        for node in function.nodes():
            if isinstance(node, (ast.Return, ast.Yield)) and node.value is not None:
                found = self.of(node.value, function, depth + 1)
                if found is not None:
                    return found
        return None

    def _unwrapped(self, node: ast.expr, scope: Scope) -> ast.expr:
        """Take the element out of iterator and context-manager annotations."""
        node = parsed(node) or node
        if isinstance(node, ast.Subscript):
            meaning = self.names.resolve(node.value, scope)
            if isinstance(meaning, External) and meaning.leaf in _ITERATORS | _CONTEXTS:
                return node.slice.elts[0] if isinstance(node.slice, ast.Tuple) and node.slice.elts else node.slice
        return node

    def entered(self, node: ast.expr, scope: Scope, depth: int = 0) -> Type | None:
        """Return what `with node as x` binds."""
        found = self.of(node, scope, depth + 1)
        if isinstance(found, Scope):
            entry = self.names.class_attribute(found, "__aenter__") or self.names.class_attribute(found, "__enter__")
            if isinstance(entry, Scope):
                return self.produced(entry, depth + 1) or found
        return found

    def element(self, node: ast.expr, scope: Scope, depth: int = 0) -> Type | None:
        """Return what iterating gives: known for generators of the tree only."""
        if isinstance(node, ast.Call):
            meaning = self.callee(node, scope, depth + 1)
            if isinstance(meaning, Scope) and meaning.is_function:
                return self.produced(meaning, depth + 1)
        return None

    def attribute(self, owner: Type, name: str, depth: int = 0) -> Type | None:
        """Return the type of an attribute of an instance: annotated, assigned in the class or on `self`."""
        if isinstance(owner, External):
            return _ATTRIBUTES.get((owner.package, owner.leaf, name))
        for base in self.names.lineage(owner):
            found: Type | None
            if isinstance(base, External):
                found = _ATTRIBUTES.get((base.package, base.leaf, name))
            else:
                found = self._own_attribute(base, name, depth)
            if found is not None:
                return found
        return self._passed_up(owner, name, depth + 1)

    def _passed_up(self, owner: Scope, name: str, depth: int) -> Type | None:
        """Return the type of an attribute that a base takes from what `super().__init__(...)` is given."""
        lineage = [base for base in self.names.lineage(owner) if isinstance(base, Scope)]
        for index, base in enumerate(lineage):
            for value, _, init in self_assignments(base, name):
                given = self._given_up(lineage[:index], init, value, depth) if isinstance(value, ast.Name) else None
                if given is not None:
                    return given
        return None

    def _given_up(self, below: list[Scope], init: Scope, value: ast.Name, depth: int) -> Type | None:
        names = [parameter.arg for parameter in init.parameters][1:]
        for own in (member for cls in below if (member := cls.member("__init__")) is not None):
            for call in own.calls:
                func = call.func
                if not (
                    isinstance(func, ast.Attribute) and func.attr == "__init__" and isinstance(func.value, ast.Call)
                ):
                    continue
                given = dict(zip(names, call.args, strict=False)) | {
                    k.arg: k.value for k in call.keywords if k.arg is not None
                }
                if init.name == "__init__" and value.id in given:
                    return self.of(given[value.id], own, depth + 1)
        return None

    def _own_attribute(self, owner: Scope, name: str, depth: int) -> Type | None:
        method = owner.member(name)
        if method is not None and method.is_function:
            return self.produced(method, depth + 1)
        if name in owner.bindings:
            return self.variable(Assigned(owner, name), depth + 1)
        for value, annotation, scope in self_assignments(owner, name):
            found = self.annotation(annotation, scope, depth + 1) if annotation is not None else None
            found = found or (self.of(value, scope, depth + 1) if value is not None else None)
            if found is not None:
                return found
        return None

    def session(self, node: ast.expr, scope: Scope) -> str | None:
        """Tell whether an expression is an `async` or a `sync` SQLAlchemy session."""
        found = self.of(node, scope)
        return None if found is None else self.session_type(found)

    def sends(self, node: ast.expr, scope: Scope) -> bool:
        """Tell whether an expression is what statements are sent by: a session, or a connection."""
        found = self.of(node, scope)
        if isinstance(found, External) and found.named("sqlalchemy", "AsyncConnection", "Connection"):
            return True
        return found is not None and self.session_type(found) is not None

    def session_type(self, found: Type) -> str | None:
        """Tell whether a class is a SQLAlchemy session: `async`, `sync`, or None for any other session."""
        bases = self.names.lineage(found) if isinstance(found, Scope) else [found]
        for base in bases:
            if isinstance(base, External) and base.package in {"sqlalchemy", "sqlmodel", "verdigris"}:
                if base.leaf in {"AsyncSession", "async_scoped_session"}:
                    return "async"
                if base.leaf in {"Session", "scoped_session"}:
                    return "sync"
        return None


def _own_class(scope: Scope) -> Scope | None:
    current: Scope | None = scope
    while current is not None:
        if current.enclosing_class is not None and current.is_function:
            return current.enclosing_class
        current = current.parent
    return None


def _first(node: ast.Call) -> bool:
    """`next(get_db())`: what a generator gives first."""
    return isinstance(node.func, ast.Name) and node.func.id in {"next", "anext"}


def _says_self(returns: ast.expr) -> bool:
    """`Self`, in quotes, from typing, or with None."""
    match returns:
        case ast.Name(id="Self") | ast.Attribute(attr="Self"):
            return True
        case ast.Constant(value=str(text)):
            return text.replace(" ", "") in {"Self", "Self|None", "Optional[Self]"}
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _says_self(left) or _says_self(right)
        case ast.Subscript(value=ast.Name(id="Optional") | ast.Attribute(attr="Optional"), slice=inner):
            return _says_self(inner)
        case _:
            return False


def _engine(meaning: External) -> External | None:
    if meaning.named("sqlalchemy", "create_async_engine", "async_engine_from_config", "create_async_pool_from_url"):
        return External("sqlalchemy.ext.asyncio.AsyncEngine")
    if meaning.leaf in {"create_engine", "engine_from_config"} and meaning.package in {"sqlalchemy", "sqlmodel"}:
        return External("sqlalchemy.Engine")
    return None
