"""What `Database` offers of the JSON read."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast, overload

from sqlalchemy import Select, inspect

from verdigris.errors import ConfigurationError, NotFoundError
from verdigris.loading.json.answer import answer, answer_of
from verdigris.loading.json.compiled import Call, Given
from verdigris.loading.json.planner import Options
from verdigris.loading.json.read import Found, Read, Reads
from verdigris.loading.json.response import JSONAnswer, TaggedAnswer
from verdigris.loading.json.rows import Columns, selected
from verdigris.loading.json.stream import StreamedAnswer, listed
from verdigris.loading.naming import type_name
from verdigris.loading.planner import DEPTH, plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Executable
    from sqlalchemy.ext.asyncio import AsyncSession
    from sqlalchemy.orm.util import AliasedClass
    from starlette.responses import Response

T = TypeVar("T")
OBJECTS = Options(purpose="load")


class JSONRead(Generic[T]):
    """A select() with bound parameters and a response type, compiled once, for hot routes.

    `read = db.json_read(select(Order).where(Order.id == bindparam("id")), OrderOut)`, then `await read(id=id)` for the
    response and `await read.fetch(id=id)` for the object. `fallback` is None where PostgreSQL writes the answer, else
    the reason why it is read by `load()`. Listeners of `do_orm_execute` are asked at each read.
    """

    def __init__(
        self, reads: Reads, statement: Executable, schema: Any, options: Options, *, etag: bool, together: bool = True
    ) -> None:
        self.schema = schema
        self.statement = statement
        self.etag = etag
        self.together = together
        self._reads = reads
        self._options = options
        self._known = self._found, self._given = reads.find(statement, schema, options)
        self._call = None if self._found.compiled is None else Call(self._found.compiled, self._given)
        self._of_objects: tuple[tuple[Found, Given], Call | None] | None = None

    @property
    def fallback(self) -> str | None:
        """Why the answer is read by `load()`; None where PostgreSQL writes it."""
        return self._found.reason

    @property
    def found(self) -> Found:
        """The shape that was compiled."""
        return self._found

    @property
    def listened(self) -> bool:
        """Whether listeners of the application have a say in what is read: then the text alone is not what to run."""
        return self._reads.listened

    @property
    def sql(self) -> str:
        """The statement with every parameter bound; empty with a fallback."""
        return self._found.compiled.sql if self._found.compiled is not None else ""

    def call(self, params: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the text for these parameters and its arguments in order, as the driver takes them.

        The text is the same for all values but the first few limits, if the limit is a parameter, and for lists of
        `IN`, for which `= any(...)` has one text. Raises RuntimeError with a fallback.
        """
        if self._call is None:
            raise RuntimeError(f"there is no text: the answer is read by load(), because of {self.fallback}")
        return self._call(params)

    def arguments(self, params: Mapping[str, Any]) -> tuple[Any, ...]:
        """Return the arguments of `sql`, in order."""
        if self._found.compiled is None:
            raise RuntimeError(f"there is no text: the answer is read by load(), because of {self.fallback}")
        return self._found.compiled.bound.call(self._given, params)[1]

    async def __call__(self, session: AsyncSession | None = None, /, **params: Any) -> Response:
        """Return the response: 404 as an exception where one row is asked for and there is none."""
        reads, call, found = self._reads, self._call, self._found
        written, body = False, None
        plain = session is None and call is not None and not reads.listened
        if plain and call is not None:
            written, body = await reads.sent(found, *call(params), together=self.together)
        if not written:
            asked = Read(self.statement, self.schema, self._options, session, self.together, params, self._known, call)
            body = await (reads.dumped(asked, found) if plain else reads.body(asked))
        return response(found, body, etag=self.etag)

    async def fetch(self, session: AsyncSession | None = None, /, **params: Any) -> T:
        """Return the objects; raises NotFoundError where one is asked for and there is none."""
        if self._of_objects is None:
            known = self._reads.find(self.statement, self.schema, OBJECTS)
            self._of_objects = known, None if known[0].compiled is None else Call(known[0].compiled, known[1])
        asked = Read(self.statement, self.schema, OBJECTS, session, self.together, params, *self._of_objects)
        value = await self._reads.value(asked)
        return cast("T", present(self._found, value))


class JSONReads:
    """The methods of a `Database` that read through a response model.

    Type checkers have no type for `OrderOut | None` and for an Annotated union as values: what is read into one of them
    is Any to them.
    """

    @cached_property
    def _reads(self) -> Reads:
        return Reads(self)  # type: ignore[arg-type]  # only Database is one of these

    async def json(
        self,
        statement: Executable,
        schema: Any,
        *,
        session: AsyncSession | None = None,
        etag: bool = False,
        together: bool = True,
        by_alias: bool = True,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> Response:
        """Return the rows of a select() as a JSON response that PostgreSQL wrote, equal to Pydantic's own output.

        `schema` is what the route answers with: `OrderOut` (404 where there is no row), `OrderOut | None` (null),
        `list[OrderOut]`, or a page: a model with a list of models and, optionally, `total`, `limit` and `offset`.
        It is one statement and one round trip, outside of any transaction; with `session` it runs in the session's own
        transaction, after a flush, and sees what that wrote. The options are Pydantic's, `by_alias` as FastAPI has it.
        With `etag` the response has one, and is 304 where the client has it already. Short reads of one statement that
        wait in the same moment go to the server together, where that pays; `together=False` sends this one alone.

        What SQL cannot express is read through `load()` and Pydantic; that is logged once, with the reason. Data that
        the model refuses raises pydantic.ValidationError, as on that way. Raises ConfigurationError where no row could
        ever become the model, and NotFoundError.
        """
        options = Options("dump", by_alias, exclude_none, exclude_unset)
        reads = self._reads
        body = await reads.body(Read(statement, schema, options, session, together))
        if body is None:
            return response(reads.find(statement, schema, options)[0], None, etag=etag)
        return TaggedAnswer(body) if etag else JSONAnswer(body)

    @overload
    async def fetch(
        self, statement: Executable, schema: type[T], *, session: AsyncSession | None = None, together: bool = True
    ) -> T: ...

    @overload
    async def fetch(
        self, statement: Executable, schema: Any, *, session: AsyncSession | None = None, together: bool = True
    ) -> Any: ...

    async def fetch(
        self, statement: Executable, schema: Any, *, session: AsyncSession | None = None, together: bool = True
    ) -> Any:
        """Return the rows of a select() as Pydantic objects, made from one JSON text instead of ORM instances.

        `schema`, the errors, `session` and `together` are as for `json()`. The models' own validators see JSON values.
        """
        reads = self._reads
        value = await reads.value(Read(statement, schema, OBJECTS, session, together))
        if value is None:
            present(reads.find(statement, schema, OBJECTS)[0], None)
        return value

    def json_stream(
        self,
        statement: Executable,
        schema: Any,
        *,
        by_alias: bool = True,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> Response:
        """Return a response that streams the rows of a select() as one JSON list, `schema` being `list[OrderOut]`.

        A cursor of the server gives some rows at a time, a quarter of a megabyte, so that memory does not grow with the
        list. One connection and one transaction are held until the client has it all. What fails before the first row
        is an answer; what fails later breaks the connection off. Raises ConfigurationError for a `schema` that is no
        list, and as `json()` does.
        """
        options = Options("dump", by_alias, exclude_none, exclude_unset)
        found, _ = self._reads.find(statement, schema, options)
        if found.answer.form != "many":
            raise ConfigurationError(
                f"json_stream() was asked for {type_name(found.type_)}, which is no list.",
                why="What is streamed are the items of one JSON list.",
                do=("db.json_stream(select(Order), list[OrderOut])",),
                page="loading/all-loaded",
            )
        return StreamedAnswer(listed(self._reads, statement, schema, options))

    @overload
    def json_read(
        self,
        statement: Executable,
        schema: type[T],
        *,
        etag: bool = False,
        together: bool = True,
        by_alias: bool = True,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> JSONRead[T]: ...

    @overload
    def json_read(
        self,
        statement: Executable,
        schema: Any,
        *,
        etag: bool = False,
        together: bool = True,
        by_alias: bool = True,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> JSONRead[Any]: ...

    def json_read(
        self,
        statement: Executable,
        schema: Any,
        *,
        etag: bool = False,
        together: bool = True,
        by_alias: bool = True,
        exclude_none: bool = False,
        exclude_unset: bool = False,
    ) -> JSONRead[Any]:
        """Compile a select() with `bindparam()`s once; the result is awaited with their values. See `json()`."""
        options = Options("dump", by_alias, exclude_none, exclude_unset)
        return JSONRead(self._reads, statement, schema, options, etag=etag, together=together)


def response(found: Found, body: bytes | None, *, etag: bool) -> Response:
    """Return the response of a body; raises NotFoundError for none where one row is asked for."""
    if body is None:
        present(found, None)
        body = b"null"
    return TaggedAnswer(body) if etag else JSONAnswer(body)


def present(found: Found, value: Any) -> Any:
    """Return a value; raises NotFoundError for None where one row is asked for."""
    if value is None and found.answer.form == "one":
        raise NotFoundError(f"no row became {found}: the statement found none.")
    return value


def explain_plan(entity: type[Any] | AliasedClass[Any] | Select[Any], schema: Any, *, depth: int = DEPTH) -> str:
    """Return how rows of `entity` become `schema`: the shape that PostgreSQL writes, or the reason why `load()` reads.

    `entity` is a mapped class, or a select() of columns. Raises ConfigurationError where no row could ever become the
    model.
    """
    rows: Any = selected(entity) if isinstance(entity, Select) else entity
    if isinstance(rows, Columns):
        columns = answer_of(rows, schema, Options())
        rows.refuse_missing(columns.models)
        return f"{rows} -> {type_name(schema)}: {columns}"
    mapped: type = inspect(rows).mapper.class_
    made = answer(mapped, schema, Options())
    made.refuse_no_model(mapped, schema)
    title = f"{mapped.__name__} -> {type_name(schema)}"
    if made.node is not None:
        return f"{title}: {made}"
    return f"{title}: {made}\n{plan(mapped, made.row, depth=depth)}"
