"""Who writes the answer: PostgreSQL, or the application from rows, and from which rows.

Every way reads the same pages on one connection of its own, without a server before it, and ends with the bytes of the
answer. The answers are compared first. In a round each way reads the same pages; printed are medians of each round's
ratio to the JSON read, and the CPU that the application and its PostgreSQL process used for an answer.
"""

# ruff: noqa: S608 - every text is put together from texts of the peers
from __future__ import annotations

import json
import random
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import asyncpg
import msgspec
import orjson
from sqlalchemy import bindparam, select

from reads import cpu
from reads.dataset import ORDERS
from reads.equality import UnequalError, plain
from reads.models import Order
from reads.peers.asyncpg_json import NESTED as WRITTEN
from reads.peers.asyncpg_orjson import COLUMNS, LINES, NESTED
from reads.schemas import OrderOut
from verdigris import Database

#: Of the key before the page and its length, to its JSON.
Way = Callable[[int, int], Awaitable[bytes]]
_PAGES = 20  # of each way and round

ORDERS_AS_TEXT = NESTED.replace("o.placed_at, o.total", "to_json(o.placed_at)#>>'{}' as placed_at, o.total::text")
LINES_AS_TEXT = LINES.replace("unit_price", "unit_price::text")
RECORDS = f"""
select {COLUMNS}, row(c.id, c.name, c.email) as customer,
    array(select row(l.id, l.sku, l.quantity, l.unit_price) from line l where l.order_id = o.id order by l.id) as lines
from orders o join customer c on c.id = o.customer_id where o.id > $1 order by o.id limit $2
"""
FLAT = f"""
select {COLUMNS}, c.id as customer_id, c.name, c.email, l.id as line_id, l.sku, l.quantity, l.unit_price
from (select * from orders o where o.id > $1 order by o.id limit $2) o
join customer c on c.id = o.customer_id left join line l on l.order_id = o.id order by o.id, l.id
"""
ONE_BY_ONE = WRITTEN.replace("coalesce(json_agg(row_to_json(r)), '[]')::text", "row_to_json(r)::text", 1)


class Customer(msgspec.Struct):
    id: int
    name: str
    email: str


class Line(msgspec.Struct):
    id: int
    sku: str
    quantity: int
    unit_price: Any


class OrderStruct(msgspec.Struct):
    id: int
    number: str
    status: str
    placed_at: Any
    total: Any
    note: str | None
    customer: Customer
    lines: list[Line]


@dataclass(slots=True)
class Measured:
    """What one way took for an answer, round by round, in seconds."""

    time: list[float] = field(default_factory=list)
    application: list[float] = field(default_factory=list)
    postgresql: list[float] = field(default_factory=list)


def _dumped(value: Any) -> bytes:
    return orjson.dumps(value, default=str)


def _dicts(orders: list[Any], lines: list[Any], dumps: Callable[[Any], bytes]) -> bytes:
    of: dict[int, list[Any]] = {order[0]: [] for order in orders}
    for order_id, *line in lines:
        of[order_id].append(_line(*line))
    return dumps([_order(*order, lines=of[order[0]]) for order in orders])


def _line(id_: int, sku: str, quantity: int, unit_price: Any) -> dict[str, Any]:
    return {"id": id_, "sku": sku, "quantity": quantity, "unit_price": unit_price}


def _order(*columns: Any, lines: list[Any]) -> dict[str, Any]:
    id_, number, status, placed_at, total, note, customer_id, name, email = columns
    return {
        "id": id_,
        "number": number,
        "status": status,
        "placed_at": placed_at,
        "total": total,
        "note": note,
        "customer": {"id": customer_id, "name": name, "email": email},
        "lines": lines,
    }


def _structs(orders: list[Any], lines: list[Any]) -> bytes:
    of: dict[int, list[Line]] = {order[0]: [] for order in orders}
    for order_id, *line in lines:
        of[order_id].append(Line(*line))
    return msgspec.json.encode([OrderStruct(*order[:6], Customer(*order[6:]), of[order[0]]) for order in orders])


def _grouped(rows: list[Any]) -> bytes:
    found: dict[int, dict[str, Any]] = {}
    for row in rows:
        order = found.get(row[0])
        if order is None:
            order = found[row[0]] = _order(*row[:9], lines=[])
        if row[9] is not None:
            order["lines"].append(_line(*row[9:]))
    return _dumped(list(found.values()))


async def _rows(
    connection: asyncpg.Connection, after: int, limit: int, orders_of: str = NESTED, lines_of: str = LINES
) -> tuple[list[Any], list[Any]]:
    orders = await connection.fetch(orders_of, after, limit)
    return orders, await connection.fetch(lines_of, [order[0] for order in orders])


async def _orjson_of_dicts(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return _dicts(*await _rows(connection, after, limit), dumps=_dumped)


async def _orjson_of_texts(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return _dicts(*await _rows(connection, after, limit, ORDERS_AS_TEXT, LINES_AS_TEXT), dumps=_dumped)


async def _msgspec_of_dicts(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return _dicts(*await _rows(connection, after, limit), dumps=msgspec.json.encode)


async def _msgspec_of_structs(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return _structs(*await _rows(connection, after, limit))


async def _orjson_of_records(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    rows = await connection.fetch(RECORDS, after, limit)
    return _dumped([_order(*row[:6], *row[6], lines=[_line(*line) for line in row[7]]) for row in rows])


async def _orjson_of_flat_rows(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return _grouped(await connection.fetch(FLAT, after, limit))


async def _texts_joined(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    return f"[{','.join([row[0] for row in await connection.fetch(ONE_BY_ONE, after, limit)])}]".encode()


async def _json_agg(connection: asyncpg.Connection, after: int, limit: int) -> bytes:
    text: str = await connection.fetchval(WRITTEN, after, limit)
    return text.encode()


BY_HAND: dict[str, Callable[[asyncpg.Connection, int, int], Awaitable[bytes]]] = {
    "`json_agg()` of `row_to_json()`": _json_agg,
    "`row_to_json()` for each order, joined by the application": _texts_joined,
    "two statements, dictionaries, orjson": _orjson_of_dicts,
    "– decimals and times as PostgreSQL's texts": _orjson_of_texts,
    "– msgspec for orjson": _msgspec_of_dicts,
    "– structs of msgspec for dictionaries": _msgspec_of_structs,
    "one statement, nested records decoded from binary, orjson": _orjson_of_records,
    "one statement, a row for each line, grouped, orjson": _orjson_of_flat_rows,
}


async def measured(url: str, limit: int, rounds: int) -> dict[str, Measured]:
    """Measure each way to a page of so many orders; raises UnequalError where two answer otherwise."""
    async with AsyncExitStack() as stack:
        db = Database(url, pool_size=1, max_overflow=0)
        stack.push_async_callback(db.dispose)
        page = select(Order).where(Order.id > bindparam("after")).order_by(Order.id).limit(bindparam("limit"))
        read = db.json_read(page, list[OrderOut])

        async def json_read(after: int, limit: int) -> bytes:
            return bytes((await read(after=after, limit=limit)).body)

        ways: dict[str, tuple[Way, int]] = {
            "the JSON read": (json_read, await db.lane.fetchval("SELECT pg_backend_pid()"))
        }
        for name, way in BY_HAND.items():
            connection = await asyncpg.connect(url.replace("+asyncpg", ""))
            stack.push_async_callback(connection.close)
            ways[name] = (partial(way, connection), connection.get_server_pid())
        await _compare(ways, limit)
        found = {name: Measured() for name in ways}
        for _ in range(rounds):
            pages = [random.randint(1, ORDERS - 200) for _ in range(_PAGES)]
            for name in random.sample(list(ways), len(ways)):
                await _round(*ways[name], pages, limit, found[name])
    return found


async def _compare(ways: dict[str, tuple[Way, int]], limit: int) -> None:
    for after in (0, 7, ORDERS - limit, ORDERS):
        expected, *others = [plain(json.loads(await way(after, limit))) for way, _ in ways.values()]
        for name, other in zip(list(ways)[1:], others, strict=True):
            if other != expected:
                raise UnequalError(f"{name} answers otherwise than the JSON read after {after}")


async def _round(way: Way, backend: int, pages: list[int], limit: int, into: Measured) -> None:
    before, own, began = cpu.of_process(backend), time.process_time(), time.perf_counter()
    for after in pages:
        await way(after, limit)
    into.time.append((time.perf_counter() - began) / len(pages))
    into.application.append((time.process_time() - own) / len(pages))
    into.postgresql.append((cpu.of_process(backend) - before) / len(pages))


async def show(url: str, rounds: int) -> None:
    """Print a table for pages of 1, 20 and 100 orders."""
    for limit in (1, 20, 100):
        print(f"\n| {limit} with customer and lines | time | application's CPU µs | PostgreSQL's CPU µs |")
        print("| --- | --: | --: | --: |")
        found = await measured(url, limit, rounds)
        base = found[next(iter(found))].time
        for name, each in found.items():
            ratio = statistics.median(one / other for one, other in zip(each.time, base, strict=True))
            spent = [statistics.median(seconds) * 1e6 for seconds in (each.application, each.postgresql)]
            print(f"| {name} | {ratio:.2f} | {spent[0]:,.0f} | {spent[1]:,.0f} |")
