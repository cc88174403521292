"""What a name means: followed through imports, aliases and re-exports, or not resolved at all."""

from __future__ import annotations

import ast
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.reading.files import Files, parse
from verdigris.evidence.source.reading.modules import Binding, Module, Scope

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 12  # re-exports chained more deeply than this are a cycle
ROOTS = ((), ("src",), ("lib",))
FIELD = frozenset(
    [
        "sqlalchemy",
        "sqlmodel",
        "fastapi",
        "starlette",
        "pydantic",
        "pydantic_settings",
        "asyncpg",
        "alembic",
        "pytest",
        "asyncio",
    ]
)


@dataclass(frozen=True, slots=True)
class External:
    """A name that comes from outside the checked tree: `sqlalchemy.ext.asyncio.create_async_engine`."""

    dotted: str

    @property
    def package(self) -> str:
        """The first part: what is installed."""
        return self.dotted.partition(".")[0]

    @property
    def leaf(self) -> str:
        """The last part: what is used."""
        return self.dotted.rpartition(".")[2]

    def named(self, package: str, *leaves: str) -> bool:
        """Tell whether this is one of the package's names, wherever in the package it is defined."""
        return self.package == package and self.leaf in leaves


@dataclass(frozen=True, slots=True)
class Assigned:
    """A name that a scope of the tree binds by assignment, `with`, `for` or as a parameter."""

    scope: Scope
    name: str

    @property
    def bindings(self) -> list[Binding]:
        """All ways in which the scope binds the name."""
        return self.scope.bindings[self.name]

    @property
    def value(self) -> ast.expr | None:
        """The one expression assigned to it, if there is exactly one and nothing else binds it."""
        real = [binding for binding in self.bindings if binding.kind != "annotation"]
        if len(real) == 1 and real[0].kind == "value" and not real[0].unpacked and real[0].where is None:
            return real[0].value
        return None

    @property
    def key(self) -> str:
        """Stable name in the whole tree."""
        inside = self.scope.qualname
        return f"{self.scope.module.path}:{inside}.{self.name}" if inside else f"{self.scope.module.path}:{self.name}"


Meaning: TypeAlias = External | Assigned | Scope | Module


class Names:
    """All modules of a tree and the meaning of names in them."""

    def __init__(self, files: Files) -> None:
        """Index the parsed modules under every dotted name that could import them."""
        self.files = files
        self.modules: list[Module] = []
        self.by_path: dict[str, Module] = {}
        self._suffixes: dict[str, list[Module]] = defaultdict(list)
        self._dormant: dict[str, list[str]] = defaultdict(list)
        self._packages: set[str] = set()
        self._found: dict[tuple[str, str], Module | None] = {}
        self._lineages: dict[Scope, tuple[Scope | External, ...]] = {}
        for file in files.python:
            self._add(Module(file))
        for path in files.irrelevant:
            for name in _suffixes(PurePosixPath(path)):
                self._dormant[name].append(path)
        every = [*self.by_path, *files.irrelevant]
        self._packages = {path.rpartition("/")[0] for path in every if path.rpartition("/")[2] == "__init__.py"}

    def _add(self, module: Module) -> Module:
        self.modules.append(module)
        self.by_path[module.path] = module
        for name in _suffixes(PurePosixPath(module.path)):
            self._suffixes[name].append(module)
        return module

    def module(self, dotted: str, near: Module) -> Module | None:
        """Find the module that an import in `near` means, or None when it comes from outside the tree."""
        key = (dotted, near.path.rpartition("/")[0])
        if key not in self._found:
            self._found[key] = self._find(dotted, near)
        return self._found[key]

    def _find(self, dotted: str, near: Module) -> Module | None:
        if dotted.startswith("."):
            return self._exact(dotted[1:])
        top, _, rest = dotted.partition(".")
        if "" in self._packages and top == self.files.root.name:  # the checked directory is itself a package
            return self._exact(rest)
        candidates = [(module.path, module.parts) for module in self._suffixes.get(dotted, ())]
        candidates += [(path, _parts(PurePosixPath(path))) for path in self._dormant.get(dotted, ())]
        length = dotted.count(".") + 1
        if top in FIELD:  # only a file at the root of the sources hides an installed package
            roots = [root for root in ROOTS if "/".join(root) not in self._packages]
            candidates = [(path, parts) for path, parts in candidates if parts[:-length] in roots]
        best, rank = None, (-1, -1)
        for path, parts in candidates:
            root = parts[: len(parts) - length]
            shared = _shared(root, near.parts)
            inside_package = bool(root) and "/".join(root) in self._packages
            if inside_package and root != near.parts[:-1]:
                continue  # a module inside a package is imported by the package's name
            if (len(root) == shared or length > 1) and (shared, -len(root)) > rank:
                best, rank = path, (shared, -len(root))
        return None if best is None else self._load(best)

    def _exact(self, dotted: str) -> Module | None:
        base = dotted.replace(".", "/")
        for path in (f"{base}.py", f"{base}/__init__.py" if base else "__init__.py"):
            if path in self.by_path or path in self.files.irrelevant:
                return self._load(path)
        return None

    def _load(self, path: str) -> Module | None:
        if path in self.by_path:
            return self.by_path[path]
        file = parse(self.files, path)
        if file is None:
            return None
        module = Module(file)
        self.by_path[path] = module
        return module

    def resolve(self, node: ast.expr | str, scope: Scope, depth: int = 0) -> Meaning | None:
        """Tell what an expression names, or None if it names nothing that the source settles."""
        if depth > DEPTH:
            return None
        if isinstance(node, str):
            try:
                node = ast.parse(node.strip(), mode="eval").body
            except (SyntaxError, ValueError):
                return None
        match node:
            case ast.Name(id=name):
                return self._name(name, scope, depth)
            case ast.Attribute(value=base, attr=attr):
                owner = self.resolve(base, scope, depth + 1)
                return None if owner is None else self.attribute(owner, attr, depth + 1)
            case ast.Constant(value=str(text)):
                return self.resolve(text, scope, depth + 1)
            case ast.Subscript(value=base):  # async_sessionmaker[AsyncSession](...)
                return self.resolve(base, scope, depth + 1)
            case _:
                return None

    def _name(self, name: str, scope: Scope, depth: int) -> Meaning | None:
        found = scope.lookup(name)
        if depth > DEPTH:
            return None
        if found is None:
            return self._starred(name, scope.module, depth)
        owner, bindings = found
        real = [binding for binding in bindings if binding.kind != "annotation"] or bindings
        last = real[-1]
        if last.kind in {"function", "class"} and all(binding.kind == last.kind for binding in real):
            return owner.module.scope_of.get(last.node)
        imports = [binding for binding in real if binding.kind == "import"]
        if imports and all(binding.kind == "import" or _is_none(binding) for binding in real):
            return self._imported(imports[0], owner.module, depth)
        if len(real) == 1 and last.kind == "value" and isinstance(last.value, (ast.Name, ast.Attribute)):
            alias = self.resolve(last.value, last.where or owner, depth + 1)
            if alias is not None and not isinstance(alias, Assigned):
                return alias
        return Assigned(owner, name)

    def _starred(self, name: str, module: Module, depth: int) -> Meaning | None:
        for base in module.stars:
            other = self.module(base, module)
            if other is not None and other is not module:
                found = self._member(other, name, depth + 1)
                if found is not None:
                    return found
        return None

    def _imported(self, binding: Binding, module: Module, depth: int) -> Meaning | None:
        if binding.origin is None:
            return None
        base, name = binding.origin
        if name is None:
            return self.module(base, module) or External(base)
        other = self.module(base, module)
        if other is not None:
            if other is module and name in module.scope.bindings and binding in module.scope.bindings[name]:
                return self.module(f"{base}.{name}", module)
            return self._member(other, name, depth + 1)
        return self.module(f"{base}.{name}", module) or External(f"{base}.{name}".lstrip("."))

    def _member(self, module: Module, name: str, depth: int) -> Meaning | None:
        if name in module.scope.bindings:
            return self._name(name, module.scope, depth + 1)
        found = self._starred(name, module, depth)
        if found is not None:
            return found
        return self._exact(f"{module.name}.{name}" if module.name else name) if module.is_package else None

    def attribute(self, owner: Meaning, name: str, depth: int = 0) -> Meaning | None:
        """Tell what `owner.name` is: a submodule, a member of a class, or a longer name from outside."""
        if isinstance(owner, External):
            return External(f"{owner.dotted}.{name}")
        if isinstance(owner, Module):
            return self._member(owner, name, depth)
        if isinstance(owner, Scope) and owner.is_class:
            return self.class_attribute(owner, name, depth)
        return None

    def class_attribute(self, owner: Scope, name: str, depth: int = 0) -> Meaning | None:
        """Find a method or attribute on a class or its bases in the tree."""
        for scope in self.lineage(owner, depth):
            if isinstance(scope, Scope) and name in scope.bindings:
                member = scope.member(name)
                return member if member is not None else Assigned(scope, name)
        return None

    def lineage(self, owner: Scope, depth: int = 0) -> Iterator[Scope | External]:
        """Yield a class and all its bases, nearest first; bases from outside the tree as External."""
        if depth:  # what is cut short at some depth is not remembered
            return self._lineage(owner, depth)
        if owner not in self._lineages:
            self._lineages[owner] = tuple(self._lineage(owner, 0))
        return iter(self._lineages[owner])

    def _lineage(self, owner: Scope, depth: int) -> Iterator[Scope | External]:
        seen: set[Scope] = set()
        queue: list[Scope | External] = [owner]
        while queue:
            scope = queue.pop(0)
            yield scope
            if not isinstance(scope, Scope) or scope in seen or not isinstance(scope.node, ast.ClassDef):
                continue
            seen.add(scope)
            for base in scope.node.bases:
                meaning = self.resolve(base, scope.parent or scope.module.scope, depth + 1)
                if isinstance(meaning, External) or (isinstance(meaning, Scope) and meaning.is_class):
                    queue.append(meaning)
                elif isinstance(meaning, Assigned):
                    queue.append(External(f"?.{meaning.name}"))
                    made = meaning.value
                    if isinstance(made, ast.Call):
                        maker = self.resolve(made.func, meaning.scope, depth + 1)
                        if isinstance(maker, External):
                            queue.append(maker)

    def derives(self, owner: Scope, package: str, *leaves: str) -> bool:
        """Tell whether a class has one of these names of a package among its bases."""
        return any(isinstance(base, External) and base.named(package, *leaves) for base in self.lineage(owner))


def _is_none(binding: Binding) -> bool:
    """`except ImportError: name = None` is no second meaning."""
    return isinstance(binding.value, ast.Constant) and binding.value.value is None


def _suffixes(path: PurePosixPath) -> Iterator[str]:
    parts = _parts(path)
    for start in range(len(parts)):
        yield ".".join(parts[start:])


def _parts(path: PurePosixPath) -> tuple[str, ...]:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _shared(root: tuple[str, ...], near: tuple[str, ...]) -> int:
    count = 0
    for mine, theirs in zip(root, near, strict=False):
        if mine != theirs:
            break
        count += 1
    return count
