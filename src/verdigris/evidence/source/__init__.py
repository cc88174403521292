"""The source evidence: an index over a tree of files that boxes ask questions of. Nothing of the tree is imported."""

from __future__ import annotations

import ast
import re
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from verdigris.evidence.judgement import Population, Subject
from verdigris.evidence.source.concurrency.blocking import BlockingUse, blocking_uses
from verdigris.evidence.source.concurrency.held import (
    GlobalSession,
    HeldSession,
    ScopedSession,
    global_sessions,
    held_sessions,
    scoped_sessions,
)
from verdigris.evidence.source.concurrency.reach import Reaches
from verdigris.evidence.source.concurrency.tasks import FanOut, Tasks
from verdigris.evidence.source.engine.configs import urls_of
from verdigris.evidence.source.engine.configured import not_followed
from verdigris.evidence.source.engine.drivers import is_async
from verdigris.evidence.source.engine.engines import NONE_MADE, Engine, engines
from verdigris.evidence.source.engine.factories import Factory, factories, made_outside
from verdigris.evidence.source.engine.limits import TimeLimits
from verdigris.evidence.source.engine.poolers import Poolers
from verdigris.evidence.source.engine.urls import Urls
from verdigris.evidence.source.engine.watchers import Watcher, watchers
from verdigris.evidence.source.fastapi.handlers import Application, Handlers
from verdigris.evidence.source.fastapi.schemas import Schemas
from verdigris.evidence.source.fastapi.web import Route, Web
from verdigris.evidence.source.flow import Flow
from verdigris.evidence.source.models.models import Models
from verdigris.evidence.source.models.relations import Relations
from verdigris.evidence.source.reading import files as _files
from verdigris.evidence.source.reading import unseen
from verdigris.evidence.source.reading.calls import Calls
from verdigris.evidence.source.reading.evaluate import Evaluator
from verdigris.evidence.source.reading.files import Files, Role, Unread
from verdigris.evidence.source.reading.names import Names
from verdigris.evidence.source.reading.types import Types
from verdigris.evidence.source.session.bodies import Bodies
from verdigris.evidence.source.session.containers import Containers
from verdigris.evidence.source.session.dependencies import Dependencies, SessionDependency
from verdigris.evidence.source.session.escapes import Escape, Escapes
from verdigris.evidence.source.session.expiry import Expiry
from verdigris.evidence.source.session.handed_out import LateCommit, handed_out, late_commits
from verdigris.evidence.source.session.holders import Holders
from verdigris.evidence.source.session.lifetimes import Lifetimes
from verdigris.evidence.source.session.openings import Openings
from verdigris.evidence.source.session.origins import Origins
from verdigris.evidence.source.session.streamed import Streamed
from verdigris.evidence.source.statements.filters import Filters, Sought
from verdigris.evidence.source.statements.loops import Loops, RowQuery
from verdigris.evidence.source.statements.statements import LoaderOption, Statements
from verdigris.evidence.source.statements.writes import BulkWrite, ChunkLoop, Writer, Writes
from verdigris.evidence.source.testing.fixtures import Suite, Tests
from verdigris.evidence.source.testing.leftovers import Leftovers
from verdigris.evidence.source.testing.targets import Targets
from verdigris.evidence.source.transactions.clauses import Clauses
from verdigris.evidence.source.transactions.connections import Connections
from verdigris.evidence.source.transactions.polling import Polling
from verdigris.evidence.source.transactions.retries import Retries
from verdigris.evidence.source.transactions.transactions import Transactions
from verdigris.evidence.source.transactions.uncommitted import Uncommitted
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from verdigris.evidence.source.models.mapped import Model
    from verdigris.evidence.source.reading.modules import Scope

S = TypeVar("S", bound=Subject)
_DRIVERS = {"asyncpg", "psycopg", "psycopg2", "aiosqlite", "aiomysql", "asyncmy"}
_EXECUTES = re.compile(
    r"\s*explain\s*(\([^)]*analyze[^)]*\)|analyze)\s*(verbose\s+)?(insert|update|delete|merge)", re.IGNORECASE
)


class Source:
    """What a code base's files say. Every view is computed once, when first asked."""

    def __init__(self, files: Files) -> None:
        """Index files that were read."""
        self.files = files
        self.names = Names(files)
        self.types = Types(self.names)
        self.evaluator = Evaluator(self.names, self.types)
        self.calls = Calls(self.names, self.types, self.evaluator)
        self.urls = Urls(self)
        self.reaches = Reaches(self)
        self.origins = Origins(self)
        self.expiry = Expiry(self)
        self.web = Web(self)
        self.models = Models(self)
        self.transactions = Transactions(self)
        self.uncommitted = Uncommitted(self)
        self.lifetimes = Lifetimes(self)
        self.escaping = Escapes(self)
        self.bodies = Bodies(self)
        self.handlers = Handlers(self)
        self.openings = Openings(self)
        self.dependencies = Dependencies(self)
        self.containers = Containers(self)
        self.holders = Holders(self)
        self.clauses = Clauses(self)
        self.connections = Connections(self)
        self.limits = TimeLimits(self)
        self.polling = Polling(self)
        self.poolers = Poolers(self)
        self.retries = Retries(self)
        self.tests = Tests(self)
        self.targets = Targets(self.tests)
        self.leftovers = Leftovers(self.tests)
        self.filters = Filters(self)
        self.relations = Relations(self)
        self.statements = Statements(self)
        self.schemas = Schemas(self)
        self.flow = Flow(self)
        self.tasks = Tasks(self)
        self.writes = Writes(self)
        self.loops = Loops(self)

    @classmethod
    def read(cls, root: Path, exclude: Iterable[str] = ()) -> Source:
        """Read and index a directory or a single file."""
        return cls(_files.read(root, exclude))

    @property
    def unread(self) -> list[Unread]:
        """The files that could not be read."""
        return self.files.unread

    @cached_property
    def packages(self) -> frozenset[str]:
        """What application code imports from outside, by first name."""
        found: set[str] = set()
        for module in self.names.modules:
            if module.role is Role.APPLICATION:
                for scope in module.scope.walk():
                    for bindings in scope.bindings.values():
                        found.update(b.origin[0].partition(".")[0] for b in bindings if b.origin is not None)
        return frozenset(found)

    @property
    def uses_sqlalchemy(self) -> bool:
        """Tell whether application code imports SQLAlchemy, SQLModel or this library."""
        return bool(self.packages & {"sqlalchemy", "sqlmodel", "verdigris"})

    @cached_property
    def uses_async(self) -> bool:
        """Tell whether application code uses SQLAlchemy's asyncio extension, directly or through another library."""
        if self.packages & {"verdigris", "asyncpg", "aiosqlite", "aiomysql", "asyncmy"}:
            return True
        return any(
            binding.origin is not None
            and (
                binding.origin[0].startswith(("sqlalchemy.ext.asyncio", "sqlmodel.ext.asyncio"))
                or binding.origin[1] == "AsyncSession"
            )
            for scope in self.scopes
            for bindings in scope.bindings.values()
            for binding in bindings
        )

    def population(
        self, subjects: Iterable[S], *gaps: str, roles: frozenset[Role] = frozenset({Role.APPLICATION})
    ) -> Population[S]:
        """Make a population of subjects; files of these roles that were not read leave gaps in it."""
        unread = tuple(f"{file.path} was not read: {file.reason}" for file in self.unread if file.role in roles)
        return Population(tuple(subjects), tuple(dict.fromkeys(unread + gaps)))

    @cached_property
    def scopes(self) -> tuple[Scope, ...]:
        """Every scope of application code."""
        modules = (module for module in self.names.modules if module.role is Role.APPLICATION)
        return tuple(scope for module in modules for scope in module.scope.walk())

    @property
    def functions(self) -> Iterator[Scope]:
        """Every function of application code."""
        return (scope for scope in self.scopes if scope.is_function)

    @property
    def classes(self) -> Iterator[Scope]:
        """Every class of application code."""
        return (scope for scope in self.scopes if scope.is_class)

    @cached_property
    def class_names(self) -> frozenset[str]:
        """The names of all classes of application code: what strings in relationships refer to."""
        return frozenset(scope.name for scope in self.classes)

    @cached_property
    def session_dependencies(self) -> Population[SessionDependency]:
        """Every provider of sessions that FastAPI calls."""
        found = self.dependencies.every
        unknown = tuple(
            f"{use.place}: what `{use.call.module.text(use.call.node)}` provides is not settled by the source"
            for use in self.web.depends
            if not found and use.call.module.role is Role.APPLICATION and self.dependencies.may_be_one(use)
        )
        others = (*handed_out(self), *self.containers.not_followed())
        return self.population(_distinct(found), *(others or unknown)[:1])

    @cached_property
    def late_commits(self) -> list[LateCommit]:
        """Every configuration of advanced-alchemy that commits requests' sessions behind the answers."""
        return _distinct(late_commits(self, moved=self.transactions.exits_after_response))

    @cached_property
    def escapes(self) -> list[Escape]:
        """Every session of a request that something uses after it."""
        found = [*self.escaping.every, *Streamed(self).every()]
        return _distinct(sorted(found, key=lambda escape: escape.place))

    @cached_property
    def test_suite(self) -> Population[Suite]:
        """The tests, as one subject."""
        found = [self.tests.suite] if self.tests.suite is not None else []
        gaps = ("no tests are among the files",) if self.uses_sqlalchemy and not self.tests.exist else ()
        return self.population(found, *gaps, roles=frozenset({Role.TEST}))

    @cached_property
    def applications(self) -> Population[Application]:
        """Every FastAPI application, unless nothing in the project speaks to a database that could fail it."""
        if not any(
            package in _DRIVERS | {"sqlmodel", "verdigris"} or "alchemy" in package for package in self.packages
        ):
            return self.population(())
        found = self.handlers.applications
        gaps = (
            ("no FastAPI application is made in the application's own files, though there are routes",)
            if self.web.routes and not found
            else ()
        )
        return self.population(_distinct(found), *gaps)

    @cached_property
    def mapped_classes(self) -> Population[Model]:
        """Every mapped class of application code that has a table."""
        imperative = list(self.calls.named("map_imperatively", "automap_base"))
        gaps = tuple(
            f"{call.place}: classes mapped by {call.module.text(call.node.func)}() are not read"
            for call in imperative[:1]
        )
        return self.population(_distinct(self.models.every), *gaps)

    @cached_property
    def declaring_classes(self) -> Population[Model]:
        """Every declarative class that declares columns or has a table: models, their mixins and bases."""
        models = self.mapped_classes.where(lambda model: model.style == "declarative")
        return Population((*models, *_distinct(self.models.mixins)), models.gaps)

    @cached_property
    def fan_outs(self) -> Population[FanOut]:
        """Every place that runs coroutines at the same time."""
        return self.population(_distinct(self.tasks.fan_outs))

    @cached_property
    def loader_options(self) -> Population[LoaderOption]:
        """Every eager loader option."""
        return self.population(_distinct(self.statements.options))

    @cached_property
    def global_sessions(self) -> Population[GlobalSession]:
        """Sessions that live as long as the program."""
        return self.population(_distinct(global_sessions(self)))

    @cached_property
    def held_sessions(self) -> Population[HeldSession]:
        """Sessions that are held while another opens, or while nothing happens."""
        return self.population(_distinct(held_sessions(self)))

    @cached_property
    def scoped_sessions(self) -> Population[ScopedSession]:
        """Scoped registries."""
        return self.population(_distinct(scoped_sessions(self)))

    @cached_property
    def writers(self) -> Population[Writer]:
        """Every function that inserts rows."""
        return self.population(_distinct(self.writes.writers))

    @cached_property
    def row_queries(self) -> Population[RowQuery]:
        """Every query that a loop over rows awaits."""
        return self.population(_distinct(self.loops.row_queries))

    @cached_property
    def bulk_writes(self) -> Population[BulkWrite]:
        """Every statement that carries many rows."""
        return self.population(_distinct(self.writes.bulk))

    @cached_property
    def chunk_loops(self) -> Population[ChunkLoop]:
        """Every loop over chunks that writes."""
        return self.population(_distinct(self.writes.chunk_loops))

    @cached_property
    def sought_columns(self) -> Population[Sought]:
        """Every foreign key and every column that statements filter by."""
        return self.population(_distinct(self.filters.sought), *self.mapped_classes.gaps, *self.filters.gaps)

    @cached_property
    def on_mysql(self) -> bool:
        """Tell whether the application's drivers are MySQL's only."""
        return bool(self.packages & {"aiomysql", "asyncmy", "pymysql", "MySQLdb"} or self.mentions("mysql+")) and not (
            self.packages & {"asyncpg", "psycopg", "psycopg2"} or self.mentions("postgresql")
        )

    def mentions(self, text: str) -> bool:
        """Tell whether application code or a settings file contains a text."""
        modules = (module for module in self.names.modules if module.role is Role.APPLICATION)
        return any(text in module.file.text for module in modules) or any(
            text in each for each in self.files.settings.values()
        )

    @cached_property
    def _watchers(self) -> list[Watcher]:
        return list(watchers(self))

    def watchers(self, what: str) -> list[Watcher]:
        """Return what application code measures the pool or query times with, or exports the library's figures."""
        return [watcher for watcher in self._watchers if watcher.what == what]

    @cached_property
    def executing_explains(self) -> list[Place]:
        """Where application code sends `EXPLAIN ANALYZE` of a statement that writes."""
        found = []
        for call in self.calls.named("text", "execute", "exec_driver_sql", "fetch"):
            for node in call.node.args[:1]:
                sql = node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""
                if call.module.role is Role.APPLICATION and _EXECUTES.match(sql):
                    found.append(call.place)
        return found

    @cached_property
    def routes(self) -> Population[Route]:
        """Every decorated handler."""
        return self.population(_distinct(self.web.routes))

    @cached_property
    def engines(self) -> Population[Engine]:
        """Every engine that application code makes."""
        found = [engine for engine in engines(self) if engine.role is Role.APPLICATION]
        missing = self.uses_sqlalchemy and not found
        gaps = [NONE_MADE] if missing else []
        gaps += [*not_followed(self), *unseen.passed_on(self, *unseen.ENGINES)]
        gaps += unseen.unresolved(self, *unseen.ENGINES[:2])
        return self.population(_distinct(found), *gaps, *made_outside(self, list(self.factories)))

    @cached_property
    def migration_engines(self) -> list[Engine]:
        """Asynchronous engines of migrations whose URL the source settles; the others are nobody's business."""
        found = [engine for engine in engines(self) if engine.role is Role.MIGRATION and engine.mode == "async"]
        return [
            each
            for each in _distinct(found)
            if (texts := urls_of(self, each)) and all(is_async(text.scheme or "?") is not None for text in texts)
        ]

    @cached_property
    def pooled_engines(self) -> Population[Engine]:
        """The engines whose connections wait in a pool between uses, or may do so."""
        return self.engines.where(lambda engine: engine.pooled != Known(value=False))

    @cached_property
    def factories(self) -> Population[Factory]:
        """Every session factory of application code, and every session that it makes without one."""
        found = [factory for factory in factories(self) if factory.role is Role.APPLICATION]
        missing = not any(factory.mode == "async" for factory in found) and self.opens_async_sessions
        gaps = (
            ("no session factory is made in the application's own files, though it uses AsyncSession",)
            if missing
            else ()
        )
        passed = unseen.passed_on(self, *unseen.FACTORIES)
        return self.population(_distinct(made for made in found if made.form != "connection"), *gaps, *passed)

    @cached_property
    def refreshes(self) -> list[Place]:
        """Where application code loads objects again over what they hold: refresh() and populate_existing."""
        calls = [call for call in self.calls.named("refresh") if isinstance(call.node.func, ast.Attribute)]
        on_sessions = [call for call in calls if self.types.session(call.node.func.value, call.scope) == "async"]  # type: ignore[attr-defined]  # filtered above
        return sorted(
            call.place
            for call in [*on_sessions, *self.calls.with_keyword("populate_existing")]
            if call.module.role is Role.APPLICATION
        )

    @cached_property
    def blocking_uses(self) -> list[BlockingUse]:
        """Every async function that waits for a synchronous driver."""
        return _distinct(blocking_uses(self))

    @cached_property
    def opens_async_sessions(self) -> bool:
        """Tell whether application code imports AsyncSession."""
        return any(
            binding.origin is not None and binding.origin[1] in {"AsyncSession", "async_sessionmaker"}
            for scope in self.scopes
            for bindings in scope.bindings.values()
            for binding in bindings
        )


def _distinct(subjects: Iterable[S]) -> list[S]:
    """Number subjects that would share a key, in the order of their places."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    result: list[S] = []
    for subject in subjects:
        seen[subject.key] = seen.get(subject.key, 0) + 1
        count = seen[subject.key]
        result.append(subject if count == 1 else replace(subject, key=f"{subject.key}#{count}"))  # type: ignore[type-var]
    return result
