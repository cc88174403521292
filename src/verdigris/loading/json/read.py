"""Runs a read: finds what was compiled, sends it on the lane or in a session, takes the other way where it must."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from sqlalchemy import Executable, Select, inspect
from sqlalchemy.exc import SQLAlchemyError

from verdigris.errors import ConfigurationError, sqlstate_of
from verdigris.lean.shapes import is_select, shape_of
from verdigris.loading.json import loaded
from verdigris.loading.json.answer import Answer, adapter, answer, answer_of, spelled
from verdigris.loading.json.compiled import Call, Compiled, Given
from verdigris.loading.json.listeners import (
    Listening,
    as_listeners_make_it,
    has_listeners,
    minds_pending,
    rewriting,
    translation,
    who_has_a_say,
)
from verdigris.loading.json.rows import Columns, selected
from verdigris.loading.json.schema import InPython
from verdigris.loading.naming import type_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from sqlalchemy.ext.asyncio import AsyncSession

    from verdigris.database import Database
    from verdigris.loading.json.planner import Options

log = logging.getLogger("verdigris.loading")
_KEPT = 1000
#: Classes of SQLSTATE in which the same read may succeed by the other way: a sum that is out of range, a wrong text.
_OF_THE_VALUES, _OF_THE_STATEMENT = "22", "42"
#: The class of SQLSTATE for what is larger than the server can handle.
_OF_SIZE = "54"
_TOO_LARGE = "One answer is one text, of 1 GB at most: db.json_stream() sends a long list in parts."
_REFUSED = 1  # the byte that SQL prints for what it cannot say; no JSON document holds it


@dataclass(frozen=True, slots=True)
class Found:
    """The shape of a select() and a response type: compiled, or why not."""

    entity: Any
    type_: Any
    answer: Answer
    compiled: Compiled | None
    reason: str | None

    def __str__(self) -> str:
        rows = self.entity if isinstance(self.entity, Columns) else inspect(self.entity).mapper.class_.__name__
        return f"{rows} -> {type_name(self.type_)}"


@dataclass(frozen=True, slots=True)
class _Shaped:
    """What serves statements of one shape, which is found in a tenth of the time that SQLAlchemy's own key takes."""

    found: Found
    places: tuple[int, ...]  # of the values in the order of SQLAlchemy's key among those of the shape
    witness: Any  # keeps alive what the shape's key identifies


_TRANSLATED = InPython("a schema_translate_map")


@dataclass(slots=True)
class Read:
    """One read: what is asked, of whom, and with which values."""

    statement: Any
    type_: Any
    options: Options
    session: AsyncSession | None = None
    together: bool = True  # with other reads that wait in the same moment
    params: Mapping[str, Any] = field(default_factory=dict)
    #: What `find` gave for the statement before, and what calls it.
    known: tuple[Found, Given] | None = None
    call: Call | None = None


class Reads:
    """The JSON reads of one database, each compiled once for each shape of a statement."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._found: dict[Any, Found] = {}
        self._shaped: dict[Any, _Shaped] = {}
        self._said: set[str] = set()
        self._probe = database.session().sync_session  # never used: it knows who listens to its class
        self._listening = Listening(self._probe)

    def find(self, statement: Any, type_: Any, options: Options, *, translated: bool = False) -> tuple[Found, Given]:
        """Return what serves a statement, and the values that the statement brings itself.

        Raises ConfigurationError where the statement's rows are not those of one mapped class, or none can ever become
        the response model.
        """
        shape = shape_of(statement) if is_select(type(statement)) else None
        if shape is None:
            return self._find(statement, type_, options, translated=translated)
        simple = (shape[0], type_, spelled(type_), options, translated)
        shaped = self._shaped.get(simple)
        if shaped is None:
            found, given = self._find(statement, type_, options, translated=translated)
            if len(self._shaped) >= _KEPT:
                self._shaped.clear()
            places = _places(given.parameters, shape[1])
            if places is not None:
                self._shaped[simple] = _Shaped(found, places, statement)
            return found, given
        binds = shape[1]
        return shaped.found, Given([binds[place] for place in shaped.places])

    def _find(self, statement: Any, type_: Any, options: Options, *, translated: bool) -> tuple[Found, Given]:
        refuse_no_statement(statement)
        translated = translated or bool(translation(statement))
        key = statement._generate_cache_key()  # noqa: SLF001 - SQLAlchemy's own key of a statement's shape
        if key is None:
            return self._made(statement, type_, options, None, translated=translated), Given()
        known = (key.key, type_, spelled(type_), options, translated)
        found = self._found.get(known)
        if found is None:
            if len(self._found) >= _KEPT:
                self._found.pop(next(iter(self._found)))
            found = self._made(statement, type_, options, key, translated=translated)
            self._found[known] = found
        return found, Given(key.bindparams, getattr(key, "params", None))

    def _made(self, statement: Any, type_: Any, options: Options, key: Any, *, translated: bool) -> Found:
        try:
            entity = selected(statement)
        except InPython as reason:
            raise _no_names(str(reason)) from None
        if isinstance(entity, Columns):
            made = answer_of(entity, type_, options)
            entity.refuse_missing(made.models)
        else:
            made = answer(inspect(entity).mapper.class_, type_, options)
            made.refuse_no_model(inspect(entity).mapper.class_, type_)
        loaded.loading(statement, entity, made)  # refuses an impossible pair here, and not in the first request
        try:
            if translated or translation(self.database.engine.sync_engine):
                raise _TRANSLATED
            _refuse_rewriting(self.database.session.class_)
            compiled = self._compiled(statement, made, key)
        except InPython as reason:
            found = Found(entity, type_, made, None, str(reason))
            self._say(f"{found} is read by load(), because of {reason}")
            return found
        return Found(entity, type_, made, compiled, None)

    def _compiled(self, statement: Any, made: Answer, key: Any) -> Compiled:
        if not isinstance(statement, Select):
            raise InPython("the statement, which is no plain select()")
        if key is None:
            raise InPython("a part of it that SQLAlchemy cannot cache")
        return Compiled(statement, made, self.database.engine.dialect, key)

    async def body(self, asked: Read) -> bytes | None:
        """Return the answer's bytes; None where one row is asked for and there is none."""
        if asked.session is None and self.listened and self._has_a_say():
            async with self.database.session() as own:
                return await self.body(replace(asked, session=own))
        found, written, body = await self._written(asked)
        return body if written else await self.dumped(asked, found)

    async def dumped(self, asked: Read, found: Found) -> bytes | None:
        """Return what `body` does by the other way: `load()`, and Pydantic."""
        value = await self._objects(asked, found)
        if value is None and found.answer.form in {"one", "optional"}:
            return None
        return loaded.dumped(value, asked.type_, asked.options)

    async def value(self, asked: Read) -> Any:
        """Return the answer as Pydantic's objects, made from the same text; None as `body` does."""
        if asked.session is None and self.listened and self._has_a_say():
            async with self.database.session() as own:
                return await self.value(replace(asked, session=own))
        found, written, body = await self._written(asked)
        if written and body is None:
            return None
        if written and body is not None:
            try:
                return adapter(asked.type_).validate_json(body, by_alias=False, by_name=True)
            except ValidationError:  # as it sees the text: what it says of the instances is what counts
                self._say(f"{found}: an answer was read by load(), for a value that its model refuses as JSON")
        return await self._objects(asked, found)

    async def _written(self, asked: Read) -> tuple[Found, bool, bytes | None]:
        """Return what serves the statement, whether PostgreSQL wrote the answer, and the answer."""
        call: Call | None = None
        if asked.session is None and not self.listened:  # nothing can change the statement
            found, given = asked.known or self.find(asked.statement, asked.type_, asked.options)
            call = asked.call
        else:
            try:
                found, given = await self._found_for(asked)
            except InPython as reason:
                found, _ = self.find(asked.statement, asked.type_, asked.options)
                self._say(f"{found} is read by load(), because of {reason}")
                return found, False, None
        if found.compiled is None:
            return found, False, None
        text, arguments = call(asked.params) if call else found.compiled.call(given, asked.params)
        written, body = await self.sent(found, text, arguments, asked.session, together=asked.together)
        return found, written, body

    async def sent(
        self,
        found: Found,
        text: str,
        arguments: tuple[Any, ...],
        session: AsyncSession | None = None,
        *,
        together: bool = True,
    ) -> tuple[bool, bytes | None]:
        """Send the text and return whether it gave the answer, and the answer."""
        body: bytes | None
        try:
            if session is None:
                lane = self.database.lane
                alone = not together or found.compiled is None or found.compiled.locks
                body = await (lane.fetchval if alone else lane.fetchval_together)(text, arguments)
            else:
                body = await _run(text, arguments, session)
        except SQLAlchemyError as error:
            if (sqlstate_of(error) or "").startswith(_OF_SIZE):
                error.add_note(_TOO_LARGE)
            sqlstate = sqlstate_of(error) or ""
            if session is not None or not sqlstate.startswith((_OF_THE_VALUES, _OF_THE_STATEMENT)):
                raise  # in a session the transaction is over: there is no other way any more
            if sqlstate.startswith(_OF_THE_VALUES):  # a client's parameter, or some row: nothing that the service lacks
                self._say(f"{found}: an answer was read by load(), for a value ({sqlstate})", logging.DEBUG)
            else:
                first = str(error).split("\n", 1)[0]  # the lines behind it are the statement
                self._say(f"{found} is read by load(), because the statement failed: {first}")
            return False, None
        if body is not None and _REFUSED in body:
            self._say(
                f"{found}: an answer was read by load(), for a value that SQL does not write or the model refuses"
            )
            return False, None
        return True, body

    async def _found_for(self, asked: Read) -> tuple[Found, Given]:
        if asked.session is not None:
            _refuse_rewriting(asked.session)
        if asked.session is None and not has_listeners(self._probe):
            return asked.known or self.find(asked.statement, asked.type_, asked.options)
        translated = asked.session is not None and await _translates(asked.session)
        heard = await self.heard(asked.statement, asked.session)
        return self.find(heard, asked.type_, asked.options, translated=translated)

    async def _objects(self, asked: Read, found: Found) -> Any:
        if asked.session is not None:
            return await loaded.objects(asked.session, asked.statement, asked.params, found)
        async with self.reading() as own:
            return await loaded.objects(own, asked.statement, asked.params, found)

    @property
    def listened(self) -> bool:
        """Whether the application hears of statements or transactions and may change what they read."""
        return self._listening.to(self.database.engine.sync_engine)

    def _has_a_say(self) -> bool:
        who = who_has_a_say(self._probe, self.database.engine.sync_engine)
        if who is not None:
            self._say(f"reads run in a session and a transaction of their own each, because of {who}")
        return who is not None

    def reading(self) -> AbstractAsyncContextManager[AsyncSession]:
        """Open a session on the primary: of the class that the application's listeners listen to, if there are any."""
        return self.database.session() if has_listeners(self._probe) else self.database.read(max_lag=0)

    async def heard(self, statement: Any, session: AsyncSession | None) -> Any:
        """Return the statement as the listeners of the session, or of the database's own, leave it."""
        if session is not None and (has_listeners(session.sync_session) or minds_pending(session.sync_session)):
            return await as_listeners_make_it(session, statement)
        if session is None and has_listeners(self._probe):
            async with self.reading() as own:
                return await as_listeners_make_it(own, statement)
        return statement

    def _say(self, text: str, level: int = logging.WARNING) -> None:
        if text not in self._said:
            self._said.add(text)
            log.log(level, "%s", text)


def _places(parameters: Sequence[Any], binds: Sequence[Any]) -> tuple[int, ...] | None:
    """Return where each parameter is among the values of a shape; None if there are others."""
    at = {id(bind): place for place, bind in enumerate(binds)}
    places = tuple(at[id(parameter)] for parameter in parameters if id(parameter) in at)
    return places if len(places) == len(parameters) == len(binds) else None


def _refuse_rewriting(session: AsyncSession | type[AsyncSession]) -> None:
    """Raise InPython where a team's own class of sessions runs statements in a way of its own."""
    method = rewriting(session)
    if method is not None:
        raise InPython(method)


async def _run(text: str, arguments: tuple[Any, ...], session: AsyncSession) -> bytes | None:
    if session.sync_session.autoflush:
        await session.flush()
    connection = await session.connection()
    body: bytes | None = (await connection.exec_driver_sql(text, arguments)).scalar()
    return body


async def _translates(session: AsyncSession) -> bool:
    return bool(translation((await session.connection()).sync_connection))


def refuse_no_statement(given: object) -> None:
    """Raise ConfigurationError for what is no statement of SQLAlchemy's: a text, or a mapped class."""
    if isinstance(given, Executable):
        return
    kind = f"the class {given.__name__}" if isinstance(given, type) else f"a {type(given).__name__}"
    name = given.__name__ if isinstance(given, type) else "Order"
    raise ConfigurationError(
        f"a JSON read was given {kind} in the place of a statement.",
        why="What is read into the response model is a select() of SQLAlchemy's.",
        do=(f"await db.json(select({name}), list[{name}Out])",),
        page="docs/json-read.md",
    )


def _no_names(reason: str) -> ConfigurationError:
    return ConfigurationError(
        f"this statement cannot be read into a response model: {reason}.",
        why="A field of the model is read from what has its name: an attribute of a mapped class, or a column.",
        do=("select(Order)", 'or select(Order.status, func.count().label("orders"))'),
        page="loading/all-loaded",
    )
