"""From the application's select() and the shape of an answer to the one statement that PostgreSQL runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Select, Text, cast, func, inspect, literal_column, select
from sqlalchemy.orm.strategy_options import _AbstractLoad
from sqlalchemy.orm.util import LoaderCriteriaOption
from sqlalchemy.types import LargeBinary

from verdigris.loading.json.builder import Builder, chain, in_order, key_text, listed, merged
from verdigris.loading.json.page import LARGEST, SMALLEST, PageRow
from verdigris.loading.json.rows import Columns, selected
from verdigris.loading.json.schema import InPython
from verdigris.loading.json.sources import RootColumns, RootRow
from verdigris.loading.json.types.values import REFUSED, word

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, FromClause
    from sqlalchemy.orm import Mapper

    from verdigris.loading.json.answer import Answer

#: One text for the whole answer, or a text for each row (a stream).
Delivery = Literal["whole", "rows"]
#: Strategies that change what is loaded, not only when.
_OWN_CONTENT = frozenset({"noload", "write_only", "dynamic"})


def written(
    statement: Select[Any], answer: Answer, delivery: Delivery = "whole", *, most: int | None = None
) -> Select[Any]:
    """Return the statement that writes an answer from the rows of a select(), as bytes in the client's encoding.

    `most` is how many rows there are at most, if that is known: see `verdigris.loading.json.page`.
    """
    if answer.node is None:
        raise InPython(answer.reason or "")
    if answer.holds_objects and defers(statement):
        raise InPython("a loader option of the statement, which leaves columns out of objects that are answers")
    criteria = criteria_of(statement)
    at_once = most is not None and SMALLEST <= most <= LARGEST and delivery == "whole" and answer.is_list
    root = _root(selected(statement), at_once=at_once)
    text = Builder(criteria).row(answer.node, root, may_be_none=answer.form == "optional")
    keys = root.identity() if isinstance(root, RootRow) else []
    rows: FromClause
    order: list[ColumnElement[Any]] = []
    if isinstance(root, PageRow) and root.joins:
        rows, order = root.whole(_rows(statement, root)), [root.place]
    else:
        rows = _rows(statement, root).subquery(RootRow.name)
    if delivery == "rows":
        made = select(_sent(text), *keys)
    elif answer.form in {"one", "optional"}:
        made = select(_sent(text)).limit(literal_column("1"))
    else:
        items = listed(in_order(text, order))
        made = select(_sent(chain(*merged(_page(statement, answer, items))) if answer.page else items))
    return made.select_from(rows).options(*criteria)  # options of a sub-select are not heard: only the outermost's


def criteria_of(statement: Select[Any]) -> list[LoaderCriteriaOption]:
    """Return the row-level criteria that a statement carries: what loads its relationships has to keep them."""
    return [option for option in statement._with_options if isinstance(option, LoaderCriteriaOption)]  # noqa: SLF001


def plain(statement: Select[Any]) -> Select[Any]:
    """Return the statement without its loader options, which say when something is loaded and not what."""
    options = tuple(option for option in statement._with_options if not _is_about_loading(option))  # noqa: SLF001
    stripped = statement._clone()  # noqa: SLF001 - options can be added only by public means
    stripped._with_options = options  # noqa: SLF001
    return stripped


def defers(statement: Any) -> bool:
    """Whether loader options of a statement leave columns out of its objects (defer, load_only)."""
    options = (option for option in statement._with_options if isinstance(option, _AbstractLoad))  # noqa: SLF001
    elements = (element for option in options for element in getattr(option, "context", ()))
    return any(dict(element.strategy or ()).get("deferred") for element in elements)


def _root(rows: Any, *, at_once: bool) -> RootRow | RootColumns:
    if isinstance(rows, Columns):
        return RootColumns(rows.selected)
    return PageRow(rows) if at_once else RootRow(rows)


def _rows(statement: Select[Any], root: RootRow | RootColumns) -> Select[Any]:
    """Return the application's select() with the columns that the answer uses."""
    if statement._distinct or statement._group_by_clauses:  # noqa: SLF001 - what is distinct are whole rows
        root.keep()
    columns = [expression.label(name) for name, expression in root.columns.items()]
    return plain(statement).with_only_columns(*columns)


def _page(statement: Select[Any], answer: Answer, items: ColumnElement[Any]) -> Iterable[str | ColumnElement[Any]]:
    separator = "{"
    for member in answer.page:
        yield f"{separator}{key_text(member.key)}:"
        separator = ","
        match member.part:
            case "items":
                yield items
            case "total":
                yield counted(statement)
            case "limit":
                yield _number(statement._limit_clause, word("null") if member.nullable else REFUSED)  # noqa: SLF001 - the select() says it in no other way
            case "offset":
                yield _number(statement._offset_clause, word("0"))  # noqa: SLF001
            case "constant":
                yield member.text
    yield "}"


def counted(statement: Select[Any]) -> ColumnElement[int]:
    """Return the number of rows of a select() without its limit and offset."""
    whole = plain(statement).with_only_columns(*_counted(statement)).limit(None).offset(None)
    if not statement._distinct_on:  # noqa: SLF001 - whose order says which row of several stays
        whole = whole.order_by(None)
    return select(func.count()).select_from(whole.subquery()).scalar_subquery()


def _counted(statement: Select[Any]) -> list[Any]:
    """Return the columns without which the rows of a select() would be others in number."""
    rows = selected(statement)
    if isinstance(rows, Columns):
        return list(rows.selected.values())
    mapper: Mapper[Any] = inspect(rows).mapper
    if statement._distinct or statement._group_by_clauses:  # noqa: SLF001
        return [getattr(rows, attribute.key) for attribute in mapper.column_attrs if not attribute.deferred]
    return [getattr(rows, mapper.get_property_by_column(column).key) for column in mapper.primary_key]


def _number(clause: ColumnElement[Any] | None, otherwise: ColumnElement[str]) -> ColumnElement[Any]:
    return otherwise if clause is None else func.coalesce(cast(clause, Text), otherwise)


def _sent(text: ColumnElement[Any]) -> ColumnElement[bytes]:
    """Return a text as the bytes that go over the wire: `textsend` is what the server does anyway."""
    return func.textsend(text, type_=LargeBinary())


def _is_about_loading(option: Any) -> bool:
    """Whether an option only says when something is loaded; raises InPython where it says what."""
    if not isinstance(option, _AbstractLoad):
        return False
    for element in getattr(option, "context", ()):
        strategy = dict(element.strategy or ())
        if getattr(element, "_extra_criteria", ()):
            raise InPython("a loader option of the statement has criteria of its own")
        if "eager_from_alias" in element.local_opts or "query_expression" in strategy:
            raise InPython("the statement's own joins or expressions fill what it loads (contains_eager, ...)")
        if strategy.get("lazy") in _OWN_CONTENT:
            raise InPython("a loader option of the statement leaves a relationship empty")
    return True
