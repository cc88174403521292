"""A page of a known size: what its rows lead to is found for all of them at once, and the answer stays the same."""

from __future__ import annotations

import pytest
from pydantic import BaseModel
from sqlalchemy import bindparam, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.orm import aliased, with_loader_criteria
from tests.library.loading.json.models import Box, Employee, Line, Order
from tests.library.loading.json.test_read import ChiefOut, EmployeeOut, OrderOut, Page, PaidOut, by_loading

AT_ONCE = "MATERIALIZED"
alias = aliased(Order)


class BoxOut(BaseModel):
    id: int
    shelf: ShelfOut | None


class ShelfOut(BaseModel):
    hall: int
    row: int


@pytest.mark.parametrize(
    ("statement", "schema"),
    [
        (select(Order).order_by(Order.status.desc(), Order.note, Order.id).limit(40), OrderOut),
        (select(Order).where(Order.id > 3).order_by(Order.id.desc()).limit(40).offset(2), OrderOut),
        (select(alias).join(alias.customer).order_by(alias.customer_id, alias.id).limit(40), OrderOut),
        (select(Order).order_by(Order.id).limit(40).options(with_loader_criteria(Line, Line.sku != "SKU-1")), OrderOut),
        (select(Order).join(Order.lines).order_by(Order.id, Line.id).limit(40), OrderOut),
        (select(Order).join(Order.lines).distinct().order_by(Order.id).limit(40), OrderOut),
        (select(Order).order_by(Order.id).limit(40), PaidOut),
        (select(Employee).order_by(Employee.name).limit(40), EmployeeOut),
        (select(Employee).order_by(Employee.name).limit(40), ChiefOut),
    ],
    ids=["sorted", "offset", "alias", "criteria", "multiplied", "distinct", "union", "tree", "chain"],
)
async def test_a_page_that_is_looked_up_at_once_equals_what_is_loaded(db, statement, schema):
    read = db.json_read(statement, list[schema])

    assert AT_ONCE in read.call({})[0]
    assert (await read()).body == await by_loading(db, statement, list[schema])


async def test_the_rows_of_a_page_with_a_total_keep_their_order(db):
    statement = select(Order).order_by(Order.note.desc().nulls_first(), Order.id).limit(50)
    read = db.json_read(statement, Page[OrderOut])

    assert AT_ONCE in read.call({})[0]
    items = await by_loading(db, statement, list[OrderOut])
    assert (await read()).body == b'{"items":' + items + b',"total":30,"limit":50,"offset":0}'


async def test_a_relationship_of_two_columns_is_looked_up_for_each_row(db):
    statement = select(Box).order_by(Box.id).limit(40)
    read = db.json_read(statement, list[BoxOut])

    assert AT_ONCE not in read.call({})[0]
    assert (await read()).body == await by_loading(db, statement, list[BoxOut])


@pytest.mark.parametrize("limit", [31, 1001])
async def test_few_rows_and_very_many_are_looked_up_one_by_one(db, limit):
    read = db.json_read(select(Order).order_by(Order.id).limit(limit), list[OrderOut])

    assert AT_ONCE not in read.call({})[0]


async def test_limits_that_come_by_name_have_texts_of_their_own_and_a_missing_value_is_an_error(db):
    statement = select(Order).order_by(Order.id).limit(bindparam("limit")).where(Order.id > bindparam("after"))
    read = db.json_read(statement, list[PaidOut])

    texts = [read.call({"limit": limit, "after": 3}) for limit in (2, 40, 2, 40)]

    assert [AT_ONCE in sql for sql, _ in texts] == [False, True, False, True]
    assert texts[0] == texts[2]
    assert all(3 in arguments for _, arguments in texts)
    with pytest.raises(InvalidRequestError, match="after"):
        read.call({"limit": 2})
    with pytest.raises(InvalidRequestError, match="limit"):
        read.call({"after": 3})
