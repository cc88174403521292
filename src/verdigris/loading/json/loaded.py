"""The other way to the same answer: `load()`, the ORM and Pydantic, for what SQL cannot write."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import BindParameter, Select, select

from verdigris.loading.json.answer import adapter
from verdigris.loading.json.compiled import value_of
from verdigris.loading.json.listeners import as_listeners_make_it, rewriting
from verdigris.loading.json.rows import Columns
from verdigris.loading.json.schema import InPython
from verdigris.loading.json.statement import counted, defers, plain
from verdigris.loading.options import load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sqlalchemy.ext.asyncio import AsyncSession

    from verdigris.loading.json.answer import Answer, PageMember
    from verdigris.loading.json.planner import Options
    from verdigris.loading.json.read import Found

#: Rows that are in memory at once while a list is streamed.
CHUNK = 500


def loading(statement: Any, entity: Any, answer: Answer) -> Any:
    """Return the statement with the option that loads what the response models read, instead of its own.

    Own options that say what is loaded, and not only when, stay alone: they may contradict any other. Those that leave
    out a column say what an object holds, where that is what is answered with.
    """
    if answer.holds_objects and defers(statement):
        return statement
    whole = isinstance(statement, Select) and not (
        statement._for_update_arg is not None or statement._group_by_clauses or statement._distinct  # noqa: SLF001
    )
    if isinstance(entity, Columns):
        options = tuple(entity.options(answer.models))
    else:
        options = (load(entity, answer.row, for_update=not whole),)
    try:
        return plain(statement).options(*options)
    except InPython:
        return statement


async def objects(session: AsyncSession, statement: Any, params: Mapping[str, Any], found: Found) -> Any:
    """Return what Pydantic makes of the statement's rows; None where one row is asked for and there is none.

    Raises pydantic.ValidationError where a row does not fit the response model.
    """
    result = _unique(await session.execute(loading(statement, found.entity, found.answer), params))
    rows: Any = result.scalars() if _are_single(found) else result
    match found.answer.form:
        case "many":
            return adapter(found.type_).validate_python(rows.all(), from_attributes=True)
        case "page":
            value = await _page(session, statement, params, found)
            value[_items(found.answer).name] = rows.all()
            return adapter(found.type_).validate_python(value, from_attributes=True, by_name=True)
        case _:
            row = result.first()
            if row is None:
                return None
            one = row[0] if _are_single(found) else row
            return adapter(found.type_).validate_python(one, from_attributes=True)


def _unique(result: Any) -> Any:
    """Return a result with each object once where SQLAlchemy asks for that: of own joins that fill a collection."""
    return result if result._unique_filter_state is None else result.unique()  # noqa: SLF001 - asked in no other way


def _are_single(found: Found) -> bool:
    """Whether a row is the one thing that it holds."""
    return found.answer.is_scalar or not isinstance(found.entity, Columns)


def dumped(value: Any, type_: Any, options: Options) -> bytes:
    """Return an object as Pydantic writes it."""
    return adapter(type_).dump_json(
        value, by_alias=options.by_alias, exclude_none=options.exclude_none, exclude_unset=options.exclude_unset
    )


async def lines(session: AsyncSession, statement: Any, found: Found, options: Options) -> AsyncGenerator[bytes]:
    """Yield the rows of a list as Pydantic writes them, some hundred at a time."""
    made = loading(statement, found.entity, found.answer)
    if made is statement or rewriting(session) is not None:
        # options of its own may fill a collection from several rows, and an execute() of a team's own has to be asked
        if value := await objects(session, statement, {}, found):
            yield dumped(value, found.type_, options)[1:-1]
        return
    result: Any = await session.stream(made.execution_options(yield_per=CHUNK))
    async for part in (result.scalars() if _are_single(found) else result).partitions():
        yield dumped(adapter(found.type_).validate_python(part, from_attributes=True), found.type_, options)[1:-1]


def _items(answer: Answer) -> PageMember:
    return next(member for member in answer.page if member.part == "items")


async def _page(session: AsyncSession, statement: Any, params: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """Return the numbers of a page."""
    value: dict[str, Any] = {}
    with suppress(InPython):
        if rewriting(session) is not None:  # the rows that are counted are those of the statement that it makes
            statement = await as_listeners_make_it(session, statement)
    for member in found.answer.page:
        match member.part:
            case "total":
                value[member.name] = (await session.execute(select(counted(statement)), params)).scalar()
            case "limit":
                value[member.name] = _number(statement._limit_clause, params)  # noqa: SLF001 - said in no other way
            case "offset":
                value[member.name] = _number(statement._offset_clause, params, 0)  # noqa: SLF001
            case _:
                pass
    return value


def _number(clause: Any, params: Mapping[str, Any], otherwise: int | None = None) -> Any:
    if isinstance(clause, BindParameter):
        clause = value_of(clause, params)
    return otherwise if clause is None else clause
