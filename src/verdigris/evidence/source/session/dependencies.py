"""The dependencies that inject sessions: what `Depends` or a container gives that is a session, or holds one."""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.arguments import is_generator
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External, Meaning
from verdigris.evidence.source.reading.types import ASYNC_FACTORY, SYNC_FACTORY

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Depends
    from verdigris.evidence.source.session.containers import Provided
    from verdigris.evidence.values import Place

_SESSIONS = {"session", "db", "db_session", "async_session"}


@dataclass(frozen=True, slots=True)
class SessionDependency(Subject):
    """A function (or bound method) that is called to inject a session, or something that holds one.

    FastAPI calls it for each of its `uses`, a container for whoever asks that.
    """

    key: str
    place: Place
    function: Scope | None  # None: it comes from outside, see `provider`
    provider: Meaning
    uses: tuple[Depends, ...]
    session: str  # async, sync
    of: str = "session"  # what it gives: session, connection, factory, or a holder of a session that it opens itself
    provided: Provided | None = None  # the container that calls it

    @property
    def short(self) -> str:
        """What people call it."""
        return self.key.partition(":")[2]

    @property
    def yields(self) -> list[ast.Yield]:
        """Its yields; none if it returns."""
        return [] if self.function is None else [node for node in self.function.nodes() if isinstance(node, ast.Yield)]


class Dependencies:
    """Session dependencies of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def every(self) -> list[SessionDependency]:
        """Every provider of a session that some `Depends` names or a container calls, once."""
        by_provider: dict[int, list[Depends]] = {}
        providers: dict[int, Meaning] = {}
        for use in self.source.web.depends:
            if use.provider is not None and use.call.module.role.value == "application":
                mark = hash(use.provider) if isinstance(use.provider, External) else id(use.provider)
                providers[mark] = use.provider
                by_provider.setdefault(mark, []).append(use)
        found = [self._session_dependency(providers[mark], uses) for mark, uses in by_provider.items()]
        for function, provided in self.source.containers.provided.items():
            given = self._session_dependency(function, []) if id(function) not in by_provider else None
            found.append(None if given is None or given.of == "factory" else replace(given, provided=provided))
        return [dependency for dependency in found if dependency is not None]

    def _session_dependency(self, provider: Meaning, uses: list[Depends]) -> SessionDependency | None:
        if isinstance(provider, External):
            if provider.dotted != "verdigris.Database.request_session":
                return None
            place = uses[0].place
            return SessionDependency(f"{place.path}:request_session", place, None, provider, tuple(uses), "async")
        if not (isinstance(provider, Scope) and provider.is_function):
            return None
        produced = self.source.types.produced(provider)
        session = None if produced is None else self.source.types.session_type(produced)
        of = "session"
        if session is None and produced in {ASYNC_FACTORY, SYNC_FACTORY}:
            of, session = "factory", "async" if produced == ASYNC_FACTORY else "sync"
        elif session is None and isinstance(produced, External) and produced.named("sqlalchemy", "AsyncConnection"):
            of, session = "connection", "async"
        elif session is None and self.source.openings.any_in(provider) and is_generator(provider):
            of, session = "holder", "async"
        if session is None:
            session = self._passed_on(provider)
        if session is None:
            session = next((said for use in uses if (said := self._annotated(use)) is not None), None)
        if session is None:
            return None
        return SessionDependency(provider.key, provider.place, provider, provider, tuple(uses), session, of)

    def may_be_one(self, use: Depends) -> bool:
        """Tell whether what is called is not settled, or comes from outside and is annotated as a session."""
        outside = isinstance(use.provider, External) and use.provider.package != "verdigris"
        return use.provider is None or (outside and self._annotated(use) is not None)

    def _annotated(self, use: Depends) -> str | None:
        """Tell which kind of session the parameter that a `Depends` stands for is annotated as."""
        around = use.call.module.parents.get(use.call.node)
        given: ast.expr | None = None
        if isinstance(around, ast.Tuple) and isinstance(use.call.module.parents.get(around), ast.Subscript):
            given = around.elts[0]
        elif isinstance(around, ast.arguments):
            places = [*around.posonlyargs, *around.args]
            defaults = [*zip(places[len(places) - len(around.defaults) :], around.defaults, strict=True)]
            named = zip(around.kwonlyargs, around.kw_defaults, strict=True)
            given = next((each.annotation for each, value in (*defaults, *named) if value is use.call.node), None)
        said = None if given is None else self.source.types.annotation(given, use.call.scope)
        return None if said is None else self.source.types.session_type(said)

    def _passed_on(self, provider: Scope) -> str | None:
        """Tell which kind of session a provider gives that takes it, under the name of one, from an iteration."""
        for node in provider.nodes():
            if not isinstance(node, (ast.AsyncFor, ast.For)) or not isinstance(node.target, ast.Name):
                continue
            name = node.target.id
            given = (inner.value for inner in ast.walk(node) if isinstance(inner, ast.Yield))
            if name in _SESSIONS and any(isinstance(each, ast.Name) and each.id == name for each in given):
                return "async" if isinstance(node, ast.AsyncFor) else "sync"
        return None
