"""Modules, scopes and the names they bind: built in one walk over each syntax tree."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.reading.nodes import DEFINITIONS, children, inside
from verdigris.evidence.values import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.files import Role, SourceFile

FunctionNode: TypeAlias = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
ScopeNode: TypeAlias = ast.Module | ast.ClassDef | FunctionNode


@dataclass(frozen=True, slots=True)
class Binding:
    """One way in which a scope gives a name its meaning.

    `kind` is one of value, annotation, import, function, class, parameter, with, for, other. `value` is the expression
    it comes from, where there is one; `unpacked` says that only a part of that expression is meant.
    """

    kind: str
    node: ast.AST
    value: ast.expr | None = None
    annotation: ast.expr | None = None
    unpacked: bool = False
    origin: tuple[str, str | None] | None = None  # of an import: absolute module, name in it
    where: Scope | None = None  # the function that assigns it by `global`; its value is read there


@dataclass(eq=False, slots=True)
class Scope:
    """A module, a class body or a function, with the names it binds and the scopes inside it."""

    module: Module
    node: ScopeNode
    parent: Scope | None
    name: str
    bindings: dict[str, list[Binding]] = field(default_factory=lambda: defaultdict(list))
    scopes: list[Scope] = field(default_factory=list)
    calls: list[ast.Call] = field(default_factory=list)
    outer: set[str] = field(default_factory=set)  # names that a `global` statement gives to the module
    own: dict[str, list[tuple[ast.expr | None, ast.expr | None, Scope]]] | None = (
        None  # a class's `self.x = ...`, once asked
    )
    flat: tuple[ast.AST, ...] | None = None  # the nodes of its own body, once asked

    @property
    def qualname(self) -> str:
        """Dotted name inside the module; empty for the module itself."""
        if self.parent is None:
            return ""
        outer = self.parent.qualname
        return f"{outer}.{self.name}" if outer else self.name

    @property
    def key(self) -> str:
        """Stable name in the whole tree: `app/db.py:get_session`."""
        return f"{self.module.path}:{self.qualname}" if self.qualname else self.module.path

    @property
    def is_function(self) -> bool:
        """Tell whether this is a function or lambda."""
        return isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))

    @property
    def is_class(self) -> bool:
        """Tell whether this is a class body."""
        return isinstance(self.node, ast.ClassDef)

    @property
    def is_async(self) -> bool:
        """Tell whether this is an `async def`."""
        return isinstance(self.node, ast.AsyncFunctionDef)

    @property
    def function(self) -> Scope | None:
        """The innermost function that this scope is or lies in."""
        scope: Scope | None = self
        while scope is not None and not scope.is_function:
            scope = scope.parent
        return scope

    @property
    def enclosing_class(self) -> Scope | None:
        """The class whose body holds this function."""
        return self.parent if self.parent is not None and self.parent.is_class else None

    @property
    def place(self) -> Place:
        """Where the definition stands."""
        return self.module.place(self.node)

    @property
    def decorators(self) -> list[ast.expr]:
        """The decorators of a function or class."""
        return [] if isinstance(self.node, (ast.Module, ast.Lambda)) else self.node.decorator_list

    @property
    def parameters(self) -> list[ast.arg]:
        """The parameters of a function in order, `*args` and `**kwargs` left out."""
        if not isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return []
        return [*self.node.args.posonlyargs, *self.node.args.args, *self.node.args.kwonlyargs]

    def default(self, parameter: str) -> ast.expr | None:
        """The default of a parameter."""
        if not isinstance(self.node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return None
        arguments = self.node.args
        positional = [*arguments.posonlyargs, *arguments.args]
        for arg, value in zip(reversed(positional), reversed(arguments.defaults), strict=False):
            if arg.arg == parameter:
                return value
        for arg, keyword_default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True):
            if arg.arg == parameter:
                return keyword_default
        return None

    def member(self, name: str) -> Scope | None:
        """The function or class of that name defined directly in this scope (the last one wins)."""
        found = None
        for scope in self.scopes:
            if scope.name == name:
                found = scope
        return found

    def lookup(self, name: str) -> tuple[Scope, list[Binding]] | None:
        """Find the scope that binds a name, by Python's rules: class bodies are not seen from functions inside."""
        scope: Scope | None = self
        while scope is not None:
            if (scope is self or not scope.is_class) and name in scope.bindings:
                return scope, scope.bindings[name]
            scope = scope.parent
        return None

    def walk(self) -> Iterator[Scope]:
        """Yield this scope and all inside it."""
        yield self
        for scope in self.scopes:
            yield from scope.walk()

    def nodes(self) -> Iterator[ast.AST]:
        """Yield every node of this scope's own body in source order; nested functions and classes are not entered."""
        if self.flat is None:
            body = [self.node.body] if isinstance(self.node, ast.Lambda) else self.node.body
            self.flat = tuple(inside(body))
        return iter(self.flat)


_DECLARING = DEFINITIONS | frozenset(
    {
        ast.Call,
        ast.Import,
        ast.ImportFrom,
        ast.Global,
        ast.Assign,
        ast.AnnAssign,
        ast.AugAssign,
        ast.NamedExpr,
        ast.For,
        ast.AsyncFor,
        ast.comprehension,
        ast.withitem,
        ast.ExceptHandler,
        ast.MatchAs,
        ast.MatchStar,
    }
)


class Module:
    """A parsed file with its scopes; `name` is the longest dotted name under which it can be imported."""

    def __init__(self, file: SourceFile) -> None:
        """Walk the tree once: parents, scopes, bindings, calls."""
        self.file = file
        self.path = file.path
        self.role: Role = file.role
        parts = PurePosixPath(file.path).with_suffix("").parts
        self.is_package = parts[-1] == "__init__"
        self.parts = parts[:-1] if self.is_package else parts
        self.name = ".".join(self.parts)
        self.parents: dict[ast.AST, ast.AST] = {}
        self.scope_of: dict[ast.AST, Scope] = {}
        self.scope = Scope(self, file.tree, None, self.name)
        self.stars: list[str] = []
        self._index(self.scope)

    def place(self, node: ast.AST) -> Place:
        """Return the span of a node, its columns in characters."""
        line = getattr(node, "lineno", 1)
        last = getattr(node, "end_lineno", line) or line
        column, end_column = getattr(node, "col_offset", 0), getattr(node, "end_col_offset", 0) or 0
        if not self.file.ascii:  # the parser counts bytes of UTF-8
            column, end_column = self.file.column(line, column), self.file.column(last, end_column)
        return Place(self.path, line, last, column, end_column)

    def text(self, node: ast.AST) -> str:
        """Return the source of a node, on one line."""
        return " ".join(ast.unparse(node).split())

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield the nodes around a node, innermost first, up to and including the module."""
        while node in self.parents:
            node = self.parents[node]
            yield node

    def enclosing(self, node: ast.AST) -> Scope:
        """Return the innermost scope in which a node is evaluated."""
        for ancestor in self.ancestors(node):
            scope = self.scope_of.get(ancestor)
            if scope is not None and not self._belongs_outside(node, ancestor):
                return scope
        return self.scope

    def _belongs_outside(self, node: ast.AST, owner: ast.AST) -> bool:
        """Decorators, defaults and annotations of a function are evaluated around it, not in it."""
        if isinstance(owner, ast.Module):
            return False
        inner = node
        while self.parents.get(inner) is not owner:
            inner = self.parents[inner]
        if isinstance(owner, ast.Lambda):
            return inner is owner.args
        return not isinstance(owner, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) or inner not in owner.body

    def _index(self, root: Scope) -> None:
        """Visit every node once, in source order; only what binds, calls or opens a scope costs more than that."""
        self.scope_of[root.node] = root
        parents = self.parents
        stack: list[tuple[ast.AST, Scope]] = [(root.node, root)]
        while stack:
            node, scope = stack.pop()
            inner = self._declare(node, scope) if node.__class__ in _DECLARING else scope
            if inner is scope:
                found = children(node)
                stack += [(child, scope) for child in reversed(found)]
            else:
                found = self._opened(node, scope, inner, stack)
            for child in found:
                parents[child] = node

    def _opened(self, node: ast.AST, scope: Scope, inner: Scope, stack: list[tuple[ast.AST, Scope]]) -> list[ast.AST]:
        """Lay out what is in a definition: its body belongs to it, decorators and defaults to what is around it."""
        body = getattr(node, "body", None)
        within = set(body) if isinstance(body, list) else {body}
        found = children(node)
        stack += [(child, inner if child in within else scope) for child in reversed(found)]
        return found

    def _declare(self, node: ast.AST, scope: Scope) -> Scope:
        """Note what a node binds in its scope; return the scope that its body belongs to."""
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            return self._open(node, scope)
        if isinstance(node, ast.Call):
            scope.calls.append(node)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            self._import(node, scope)
        elif isinstance(node, ast.Global):
            scope.outer.update(node.names)
        else:
            for name, binding in _bindings(node):
                if name in scope.outer:
                    self.scope.bindings[name].append(replace(binding, where=scope))
                else:
                    scope.bindings[name].append(binding)
        return scope

    def _open(self, node: ast.ClassDef | FunctionNode, scope: Scope) -> Scope:
        name = "<lambda>" if isinstance(node, ast.Lambda) else node.name
        inner = Scope(self, node, scope, name)
        scope.scopes.append(inner)
        self.scope_of[node] = inner
        if isinstance(node, ast.ClassDef):
            scope.bindings[name].append(Binding("class", node))
            return inner
        if not isinstance(node, ast.Lambda):
            scope.bindings[name].append(Binding("function", node))
        arguments = node.args
        for arg in [*inner.parameters, arguments.vararg, arguments.kwarg]:
            if arg is not None:
                inner.bindings[arg.arg].append(
                    Binding("parameter", arg, inner.default(arg.arg), arg.annotation),
                )
        return inner

    def _import(self, node: ast.Import | ast.ImportFrom, scope: Scope) -> None:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    scope.bindings[alias.asname].append(Binding("import", node, origin=(alias.name, None)))
                else:
                    top = alias.name.partition(".")[0]
                    scope.bindings[top].append(Binding("import", node, origin=(top, None)))
            return
        base = self.absolute(node.module, node.level)
        for alias in node.names:
            if alias.name == "*":
                self.stars.append(base)
            else:
                scope.bindings[alias.asname or alias.name].append(Binding("import", node, origin=(base, alias.name)))

    def absolute(self, module: str | None, level: int) -> str:
        """Resolve a relative import against this module's place in the tree; a leading dot marks the tree's root."""
        if level == 0:
            return module or ""
        package = self.parts if self.is_package else self.parts[:-1]
        kept = package[: len(package) - (level - 1)] if level > 1 else package
        return "." + ".".join([*kept, *(module.split(".") if module else [])])


def _bindings(node: ast.AST) -> Iterator[tuple[str, Binding]]:
    match node:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _targets(target, "value", node, value)
        case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation, value=value):
            yield name, Binding("value" if value is not None else "annotation", node, value, annotation)
        case ast.AugAssign(target=ast.Name(id=name)):
            yield name, Binding("other", node)
        case ast.NamedExpr(target=ast.Name(id=name), value=value):
            yield name, Binding("value", node, value)
        case ast.For(target=target, iter=iterable) | ast.AsyncFor(target=target, iter=iterable):
            yield from _targets(target, "for", node, iterable)
        case ast.comprehension(target=target, iter=iterable):
            yield from _targets(target, "for", node, iterable)
        case ast.withitem(context_expr=context, optional_vars=target) if target is not None:
            yield from _targets(target, "with", node, context)
        case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name, Binding("other", node)
        case _:
            return


def _targets(target: ast.expr, kind: str, node: ast.AST, value: ast.expr) -> Iterator[tuple[str, Binding]]:
    if isinstance(target, ast.Name):
        yield target.id, Binding(kind, node, value)
    elif isinstance(target, ast.Starred):
        yield from _targets(target.value, "other", node, value)
    elif isinstance(target, (ast.Tuple, ast.List)):
        values = (
            value.elts if isinstance(value, (ast.Tuple, ast.List)) and len(value.elts) == len(target.elts) else None
        )
        for index, element in enumerate(target.elts):
            if values is not None and kind == "value":
                yield from _targets(element, kind, node, values[index])
            else:
                for name, binding in _targets(element, kind, node, value):
                    yield name, Binding(binding.kind, binding.node, binding.value, unpacked=True)
