"""Which of a database's errors an application handles on the way out."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.excepts import named
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import Assigned
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Scope

_WHOLE = {"SQLAlchemyError", "DBAPIError", "DatabaseError", "PostgresError"}


@dataclass(frozen=True, slots=True)
class Application(Subject):
    """A FastAPI application: the database's errors it has handlers for, and what `install` does for it."""

    key: str
    place: Place
    handled: tuple[str, ...]  # last names of classes
    everything: bool  # a handler for Exception, or for 500
    installed: bool | None  # install(app, db): with errors on, off; None: not installed
    open: str | None  # handlers that the source does not settle
    install: Place | None = None

    @property
    def covers(self) -> bool:
        """Tell whether errors of constraints and of connections are both handled as what they are."""
        return bool(_WHOLE & set(self.handled))


class Handlers:
    """Handlers of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source

    @cached_property
    def applications(self) -> list[Application]:
        """The FastAPI application that application code makes: of several, the one that mounts routers."""
        made = [
            call
            for call, _ in self.source.calls.outside({"fastapi"}, "FastAPI")
            if call.module.role is Role.APPLICATION
        ]
        mounts = {call.module.path for call in self.source.calls.named("include_router", "install")}
        made.sort(key=lambda call: (call.module.path not in mounts, call.module.path.count("/"), call.place))
        return [self._application(call) for call in made[:1]]

    def _application(self, call: Call) -> Application:
        classes: list[str] = []
        everything, opened = False, None
        for node, scope in [*self._given(call), *self._registered]:
            what = named(node, scope, self.source.names)
            classes += what.leaves
            everything = everything or what.all or ast.unparse(node) in {"500", "status.HTTP_500_INTERNAL_SERVER_ERROR"}
            meaning = self.source.names.resolve(node, scope)
            if isinstance(meaning, Assigned) and not what.database:
                opened = f"which errors `{ast.unparse(node)}` names is not settled by the source"
        given = keyword(call.node, "exception_handlers")
        if given is not None and not isinstance(given, ast.Dict):
            opened = f"what `{ast.unparse(given)[:40]}` handles is not settled by the source"
        installed, place = self._installed
        return Application(
            f"{call.scope.key}:FastAPI", call.place, tuple(classes), everything, installed, opened, place
        )

    def _given(self, call: Call) -> Iterator[tuple[ast.expr, Scope]]:
        given = keyword(call.node, "exception_handlers")
        if isinstance(given, ast.Dict):
            yield from ((key, call.scope) for key in given.keys if key is not None)

    @cached_property
    def _registered(self) -> list[tuple[ast.expr, Scope]]:
        """What is registered on applications, and what a middleware catches."""
        found: list[tuple[ast.expr, Scope]] = []
        for call in self.source.calls.named("exception_handler", "add_exception_handler"):
            if call.module.role is Role.APPLICATION and isinstance(call.node.func, ast.Attribute):
                given = call.node.args[0] if call.node.args else keyword(call.node, "exc_class_or_status_code")
                if given is not None:
                    found.append((given, call.scope))
        for function in self.source.functions:
            middleware = function.name == "dispatch" or any(
                "middleware" in ast.unparse(each) for each in function.decorators
            )
            clauses = (node for node in function.nodes() if isinstance(node, ast.ExceptHandler)) if middleware else ()
            found += [(clause.type, function) for clause in clauses if clause.type is not None]
        return found

    @cached_property
    def _installed(self) -> tuple[bool | None, Place | None]:
        for call, _ in self.source.calls.outside({"verdigris"}, "install"):
            if call.module.role is Role.APPLICATION:
                given = keyword(call.node, "errors")
                worth = self.source.evaluator.value(Argument(given, call.scope)) if given is not None else None
                return worth != Known(value=False), call.place
        return None, None

    @cached_property
    def named_clauses(self) -> list[Place]:
        """Where application code catches a database's errors by their own classes."""
        found = []
        for function in self.source.functions:
            clauses = (node for node in function.nodes() if isinstance(node, ast.ExceptHandler))
            known = (node for node in clauses if node.type is not None and self._names_database(node.type, function))
            found += [function.module.place(node) for node in known]
        return sorted(found)

    def _names_database(self, node: ast.expr, function: Scope) -> bool:
        return bool(named(node, function, self.source.names).database)
