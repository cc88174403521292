"""What a container of dependencies calls: dishka's providers, and the resources of dependency-injector."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.arguments import keyword, short
from verdigris.evidence.source.reading.calls import assigned_to
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.values import Place

DISHKA, INJECTOR = "dishka", "dependency-injector"
_WEB = ("dishka.integrations.fastapi", "dishka.integrations.starlette")
_RESOURCES = ("Resource", "ContextLocalResource")
_OBJECTS = ("Factory", "Callable", "Coroutine", "Singleton", "ThreadSafeSingleton", "ThreadLocalSingleton")


@dataclass(frozen=True, slots=True)
class Provided:
    """A function that a container calls, and goes on with when what asked for it is over.

    dishka does so behind the response; dependency-injector when the function that was given it returns or fails, if it
    was asked to by `Closing`. A `shared` one is one object for all who ask.
    """

    function: Scope
    by: str
    name: str
    place: Place
    shared: bool = False


class Containers:
    """Containers of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def provided(self) -> dict[Scope, Provided]:
        """Every function that a container calls for requests."""
        found: dict[Scope, Provided] = {}
        for each in (*self._of_dishka(), *self._of_injector()):
            found.setdefault(each.function, each)
        return found

    @cached_property
    def closes(self) -> bool:
        """Tell whether anything asks dependency-injector to go on with a resource after a call: `Closing[...]`."""
        return any("Closing[" in module.file.text for module in self.source.names.modules)

    def shared_sessions(self) -> Iterator[tuple[str, Place]]:
        """Yield the sessions that a container has one of for all who ask."""
        for function, each in self.provided.items():
            produced = self.source.types.produced(function) if each.shared else None
            if produced is not None and self.source.types.session_type(produced) == "async":
                yield each.name, each.place

    def not_followed(self) -> Iterator[str]:
        """Yield a gap for each provider of dependency-injector whose session nobody is seen to end."""
        for call in self._made(*_RESOURCES, *_OBJECTS):
            given = _first(call)
            made = None if given is None else self.source.types.reach(given, call.scope)
            if isinstance(made, Scope) and (made.is_function or not _is_resource(call)):
                continue
            opened = None if given is None else self.source.types.of(given, call.scope)
            is_factory = isinstance(opened, External) and opened.leaf in {"async_sessionmaker", "sessionmaker"}
            if _is_resource(call) or is_factory or (isinstance(made, External) and made.leaf == "AsyncSession"):
                yield f"{call.place}: what ends the session of `{short(call.node)}` is not followed"

    def _of_dishka(self) -> Iterator[Provided]:
        """Yield the functions that dishka calls for requests: `@provide`, `provide(it)`, `provider.provide(it)`."""
        if not self._imports(*_WEB):
            return
        for function in self.source.functions:
            around = function.parent or function.module.scope
            for decorator in function.decorators:
                named = decorator.func if isinstance(decorator, ast.Call) else decorator
                if _is_provide(self.source.types.reach(named, around)):
                    yield Provided(function, DISHKA, function.name, function.place)
        for call in self.source.calls.named("provide"):
            given = call.node.args[0] if call.node.args else keyword(call.node, "source")
            target = self.source.types.reach(given, call.scope) if given is not None else None
            provides = call.module.role is Role.APPLICATION and _is_provide(self.source.calls.reaches(call))
            if provides and isinstance(target, Scope) and target.is_function:
                yield Provided(target, DISHKA, target.name, call.place)

    def _of_injector(self) -> Iterator[Provided]:
        """Yield the functions behind `providers.Resource(get_session)` of containers that are wired into code."""
        for call in self._made(*_RESOURCES):
            given = _first(call)
            target = None if given is None else self.source.types.reach(given, call.scope)
            if isinstance(target, Scope) and target.is_function:
                name = (
                    ".".join(filter(None, (call.scope.name, assigned_to(call)))) if call.scope.is_class else target.name
                )
                shared = not _is_resource(call, "ContextLocalResource")
                yield Provided(target, INJECTOR, name, call.place, shared)

    def _made(self, *kinds: str) -> Iterator[Call]:
        if self._imports("dependency_injector.wiring"):
            for call, _ in self.source.calls.outside({"dependency_injector"}, *kinds):
                if call.module.role is Role.APPLICATION:
                    yield call

    def _imports(self, *modules: str) -> bool:
        """Tell whether requests have to do with a container, and not only messages of a bot or a queue."""
        bound = (each for scope in self.source.scopes for bindings in scope.bindings.values() for each in bindings)
        return any(each.origin is not None and each.origin[0].startswith(modules) for each in bound)


def _first(call: Call) -> ast.expr | None:
    return call.node.args[0] if call.node.args else keyword(call.node, "provides")


def _is_resource(call: Call, *kinds: str) -> bool:
    func = call.node.func
    return getattr(func, "attr", getattr(func, "id", "")) in (kinds or _RESOURCES)


def _is_provide(meaning: object) -> bool:
    return isinstance(meaning, External) and meaning.named("dishka", "provide")
