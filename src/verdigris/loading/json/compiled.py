"""A statement as the text that PostgreSQL gets, and its arguments, without SQLAlchemy's execution around them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter, bindparam, literal_column
from sqlalchemy import exc as sa_exc

from verdigris.loading.json.schema import InPython
from verdigris.loading.json.statement import written

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import Select
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql.cache_key import CacheKey
    from sqlalchemy.sql.compiler import SQLCompiler

    from verdigris.loading.json.answer import Answer

#: How many limits of one statement get a text of their own, and up to which size.
LITERAL_LIMITS = 8
LARGEST_LITERAL = 10_000
TOO_DEEP = "its depth: the statement is nested more deeply than SQLAlchemy's compiler goes"


@dataclass(frozen=True, slots=True)
class Given:
    """What a select() brings of its values: its bound parameters in the order of its key, and `params()`."""

    parameters: Sequence[BindParameter[Any]] = ()
    params: Mapping[str, Any] | None = None

    def value(self, index: int, params: Mapping[str, Any]) -> Any:
        """Return the value of one parameter, given by name or by itself."""
        return value_of(self.parameters[index], params if self.params is None else {**self.params, **params})

    def name(self, index: int) -> str | None:
        """Return the name by which the value of one parameter has to be given, if it has no other."""
        parameter = self.parameters[index]
        return parameter.key if parameter.required and not parameter.unique and not self.params else None


@dataclass(frozen=True, slots=True)
class _Argument:
    """Where one positional argument comes from: a bound parameter of the select(), by its index, or the mapping."""

    index: int | None
    constant: Any
    process: Callable[[Any], Any] | None
    #: What says the value in the moment: the condition of a relationship may have `bindparam(callable_=...)`.
    asked: Callable[[], Any] | None = None

    def of(self, given: Given, params: Mapping[str, Any]) -> Any:
        if self.index is not None:
            value = given.value(self.index, params)
        else:
            value = self.constant if self.asked is None else self.asked()
        return value if self.process is None else self.process(value)


class Text:
    """One text and where its arguments come from."""

    def __init__(self, statement: Select[Any], dialect: Dialect, key: CacheKey) -> None:
        try:
            compiled: Any = statement.compile(dialect=dialect, cache_key=key)
        except sa_exc.SQLAlchemyError as error:  # an ORDER BY that names, as text, a column that is not among these
            raise InPython(f"the statement, which cannot be put into another ({error})") from error
        self.sql: str = compiled.string
        self.varies = bool(compiled.post_compile_params or compiled.literal_execute_params)
        self._compiled: Any = compiled if self.varies else None
        self._arguments = () if self.varies else tuple(_arguments(compiled, key))

    def call(self, given: Given, params: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the text and its arguments; `IN` with a list makes a text for each length of it."""
        if not self.varies:
            return self.sql, tuple([each.of(given, params) for each in self._arguments])
        values = self._compiled.construct_params(
            {**(given.params or {}), **params}, extracted_parameters=given.parameters, escape_names=False
        )
        state = self._compiled._process_parameters_for_postcompile(values)  # noqa: SLF001 - as SQLAlchemy's execution does
        processors: Any = {**self._compiled._bind_processors, **state.processors}  # noqa: SLF001
        names = state.positiontup or ()
        return state.statement, tuple(
            processors[name](state.additional_parameters.get(name, values.get(name)))
            if name in processors
            else state.additional_parameters.get(name, values.get(name))
            for name in names
        )

    def names(self, given: Given) -> tuple[str, ...] | None:
        """Return the names of the values that are the arguments as they are; None where there is more to it."""
        if self.varies:
            return None
        names = [None if each.index is None or each.process else given.name(each.index) for each in self._arguments]
        return tuple(name for name in names if name is not None) if None not in names else None


class Compiled:
    """A select() and a response type as texts: one, and one more for each of the first few literal limits.

    PostgreSQL prices a generic plan of `LIMIT $n` at a tenth of all rows and therefore plans each run anew. A limit
    that stands in the text is priced as it is, so that its own choice between generic and custom plans works again.
    Only the first limits get a text: a client that may choose its limit cannot fill the caches of prepared statements.
    """

    def __init__(self, statement: Select[Any], answer: Answer, dialect: Dialect, key: CacheKey) -> None:
        self.answer = answer
        self._statement = statement  # the first of this shape: later ones differ in the values of parameters only
        self._dialect = dialect
        self._key = key
        self._limit = self._index(statement._limit_clause)  # noqa: SLF001 - said in no other way
        self._offset = self._index(statement._offset_clause)  # noqa: SLF001
        self.locks = statement._for_update_arg is not None  # noqa: SLF001
        self._texts: dict[tuple[int | None, bool], Text] = {}
        self._version = self.version
        try:
            self.bound = self._compile(None, starts_at_zero=False)
        except RecursionError:
            raise InPython(TOO_DEEP) from None

    @property
    def sql(self) -> str:
        """The text with every parameter bound."""
        return self.bound.sql

    def call(self, given: Given, params: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return the text and the arguments for values of the select()'s bound parameters."""
        return self.text(given, params).call(given, params)

    def text(self, given: Given, params: Mapping[str, Any]) -> Text:
        """Return the text that serves these values."""
        if self.version is not self._version:  # known since the first connection
            self._version, self._texts = self.version, {}
            with suppress(RecursionError):  # further down the stack than at first: that text serves, too
                self.bound = self._compile(None, starts_at_zero=False)
        if self._limit is None and self._offset is None:
            return self.bound
        limit = None if self._limit is None else given.value(self._limit, params)
        if type(limit) is not int or not 0 <= limit <= LARGEST_LITERAL:
            limit = None
        first = self._offset is not None and given.value(self._offset, params) == 0
        found = self._texts.get((limit, first))
        if found is None:
            if len(self._texts) >= LITERAL_LIMITS:
                return self.bound
            try:
                found = self._compile(limit, starts_at_zero=first)
            except RecursionError:  # as above
                found = self.bound
            self._texts[limit, first] = found
        return found

    @property
    def version(self) -> object:
        """What the texts are for: another one when the server's version becomes known."""
        return self._dialect.server_version_info

    @property
    def is_offset(self) -> bool:
        """Whether the select() skips rows: a text of its own is for none."""
        return self._offset is not None

    def named_limit(self, given: Given) -> str | None:
        """Return the name of the parameter that limits the rows, if it has one."""
        return None if self._limit is None else given.name(self._limit)

    def _compile(self, limit: int | None, *, starts_at_zero: bool) -> Text:
        statement = self._statement
        if limit is not None:
            statement = statement.limit(literal_column(str(limit)))
        if starts_at_zero:
            statement = statement.offset(None)
        return Text(written(statement, self.answer, most=limit), self._dialect, self._key)

    def _index(self, clause: Any) -> int | None:
        return next((index for index, known in enumerate(self._key.bindparams) if known is clause), None)


class Call:
    """Calls of one select(), whose values come by name: what is the same in each is found out once."""

    def __init__(self, compiled: Compiled, given: Given) -> None:
        self._compiled = compiled
        self._given = given
        self._limit = compiled.named_limit(given)
        self._known: dict[Any, tuple[str, tuple[str, ...]]] = {}
        self._version = compiled.version

    def __call__(self, params: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        """Return what `Compiled.call` does."""
        if self._compiled.version is not self._version:  # the texts are others since
            self._known, self._version = {}, self._compiled.version
        try:
            text, names = self._known[None if self._limit is None else params[self._limit]]
            return text, tuple([params[name] for name in names])
        except (KeyError, TypeError):  # not known yet, or a value that is missing, or no limit at all
            return self._learn(params)

    def _learn(self, params: Mapping[str, Any]) -> tuple[str, tuple[Any, ...]]:
        compiled, given = self._compiled, self._given
        text = compiled.text(given, params)
        limit = None if self._limit is None else params.get(self._limit)
        names = text.names(given)
        if names is not None and not compiled.is_offset and (self._limit is None or text is not compiled.bound):
            self._known[limit] = text.sql, names
        return text.call(given, params)


def value_of(parameter: BindParameter[Any], params: Mapping[str, Any]) -> Any:
    """Return the value of a bound parameter, given by name or by itself."""
    if parameter.key in params and not parameter.unique:
        return params[parameter.key]
    if parameter.required:
        raise sa_exc.InvalidRequestError(f"A value is required for bind parameter {parameter.key!r}")
    return parameter.effective_value


def _arguments(compiled: SQLCompiler, key: CacheKey) -> list[_Argument]:
    """Learn where each positional argument comes from, by compiling with marks for values."""
    marks: list[Any] = [bindparam(None, _Mark(index)) for index in range(len(key.bindparams))]
    named = {each.key: mark.value for each, mark in zip(key.bindparams, marks, strict=True) if not each.unique}
    values = compiled.construct_params(named, extracted_parameters=marks, escape_names=False) or {}
    processors: Any = compiled._bind_processors  # noqa: SLF001 - what SQLAlchemy's execution applies
    found = []
    for name in compiled.positiontup or ():
        value, process = values[name], processors.get(name)
        index = value.index if isinstance(value, _Mark) else None
        asked = compiled.binds[name].callable if index is None else None
        found.append(_Argument(index, None if index is not None else value, process, asked))
    return found


@dataclass(frozen=True, slots=True)
class _Mark:
    index: int
