"""Which SQL writes a nested JSON page fastest, and which text of LIMIT keeps its plan.

    python benchmarks/bench_json_shapes.py [ROUNDS]

Every statement runs once a round, in an order of its own, prepared on one connection to one private server; answers are
compared first, up to white space. Printed are the median of each round's ratio to the statement that the library
writes, which is what survives a busy machine, and medians in milliseconds, which are not.
"""

# ruff: noqa: S608 - every text is put together from texts of this file
from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

import asyncpg

from verdigris import embedded

if TYPE_CHECKING:
    from collections.abc import Mapping

SCHEMA = """
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL);
CREATE TABLE orders (id int PRIMARY KEY, customer_id int NOT NULL REFERENCES customers, status text NOT NULL,
                     total numeric(10, 2) NOT NULL, note text, paid bool NOT NULL);
CREATE TABLE items (id int PRIMARY KEY, order_id int NOT NULL REFERENCES orders, sku text NOT NULL, qty int NOT NULL,
                    price numeric(10, 2) NOT NULL);
INSERT INTO customers SELECT i, 'Customer ' || i, 'c' || i || '@example.com' FROM generate_series(1, 1000) i;
INSERT INTO orders SELECT i, 1 + i % 1000, 'open', i * 1.25, CASE WHEN i % 3 > 0 THEN 'note "' || i || '"' END,
  i % 2 = 0 FROM generate_series(1, 20000) i;
INSERT INTO items SELECT i, 1 + i / 5, 'SKU-' || i, i % 7, i * 0.5 FROM generate_series(1, 99990) i;
CREATE INDEX ON items (order_id);
ANALYZE;
"""
PAGE = "SELECT * FROM orders ORDER BY id LIMIT {limit}"
CUSTOMER = """'{"id":' || c.id || ',"name":' || to_json(c.name) || ',"email":' || to_json(c.email) || '}'"""
ITEM = """'{"id":' || i.id || ',"sku":' || to_json(i.sku) || ',"qty":' || i.qty || ',"price":"' || i.price || '"}'"""
ORDER = """'{"id":' || o.id || ',"status":' || to_json(o.status) || ',"total":"' || o.total
  || '","note":' || coalesce(to_json(o.note)::text, 'null') || ',"paid":' || o.paid::text
  || ',"customer":' || %s || ',"items":[' || coalesce(%s, '') || ']}'"""
ONE = f"(SELECT coalesce({CUSTOMER}, chr(1)) FROM customers c WHERE c.id = o.customer_id)"
JOINED = f"(SELECT string_agg(coalesce({ITEM}, chr(1)), ',' ORDER BY i.id) FROM items i WHERE i.order_id = o.id)"
ARRAYED = f"array_to_string(array(SELECT {ITEM} FROM items i WHERE i.order_id = o.id ORDER BY i.id), ',')"
ROW = """SELECT o.id, o.status, o.total::text, o.note, o.paid,
  (SELECT row_to_json(y) FROM (SELECT c.id, c.name, c.email FROM customers c WHERE c.id = o.customer_id) y) AS customer,
  {items} AS items FROM ({page}) o"""
ROWS = """array_to_json(array(SELECT row_to_json(z) FROM (SELECT i.id, i.sku, i.qty, i.price::text FROM items i
  WHERE i.order_id = o.id ORDER BY i.id) z))"""
BUILT_ITEMS = """(SELECT coalesce(json_agg(json_build_object('id', i.id, 'sku', i.sku, 'qty', i.qty, 'price',
  i.price::text) ORDER BY i.id), '[]') FROM items i WHERE i.order_id = o.id)"""
BUILT = """json_build_object('id', o.id, 'status', o.status, 'total', o.total::text, 'note', o.note, 'paid', o.paid,
  'customer', (SELECT json_build_object('id', c.id, 'name', c.name, 'email', c.email) FROM customers c
  WHERE c.id = o.customer_id), 'items', {items})"""


def chained(page: str, *, customer: str = ONE, items: str = JOINED, more: str = "", send: bool = True) -> str:
    text = ORDER % (customer, items)
    whole = f"'[' || coalesce(string_agg(coalesce({text}, chr(1)), ','), '') || ']'"
    return f"SELECT {f'textsend({whole})' if send else whole} FROM ({page}) o {more}"


def shapes(limit: int) -> dict[str, str]:
    page = PAGE.format(limit=limit)
    built = f"SELECT json_agg({BUILT.format(items=BUILT_ITEMS)} ORDER BY o.id)::text FROM ({page}) o"
    grouped = f"""WITH o AS MATERIALIZED ({page}), l AS (SELECT i.order_id, string_agg({ITEM}, ',' ORDER BY i.id) AS t
      FROM items i WHERE i.order_id = ANY (array(SELECT id FROM o)) GROUP BY i.order_id)
      SELECT textsend('[' || string_agg({ORDER % (ONE, "l.t")}, ',' ORDER BY o.id) || ']')
      FROM o LEFT JOIN l ON l.order_id = o.id"""
    once = f"""WITH o AS MATERIALIZED (SELECT x.*, row_number() OVER () AS n FROM ({page}) x)
      SELECT textsend('[' || string_agg({ORDER % ("c.t", "l.t")}, ',' ORDER BY o.n) || ']') FROM o
      LEFT JOIN (SELECT c.id, {CUSTOMER} AS t FROM customers c
        WHERE c.id = ANY (array(SELECT customer_id FROM o)) OFFSET 0) c ON c.id = o.customer_id
      LEFT JOIN (SELECT i.order_id, string_agg({ITEM}, ',' ORDER BY i.id) AS t FROM items i
        WHERE i.order_id = ANY (array(SELECT id FROM o)) GROUP BY i.order_id) l ON l.order_id = o.id"""
    return {
        "|| and string_agg (the library's below 32)": chained(page),
        "  everything looked up at once (from 32 on)": once,
        "  json_scalar() for to_json() (PostgreSQL 17)": chained(page).replace("to_json", "json_scalar"),
        "  both": once.replace("to_json", "json_scalar"),
        "  fetched as text, not as bytes": chained(page, send=False),
        "  array_to_string(array()) for string_agg": chained(page, items=ARRAYED),
        "  single objects joined": chained(page, customer=CUSTOMER, more="JOIN customers c ON c.id = o.customer_id"),
        "  items in a lateral join": chained(page, items="l.t", more=f"LEFT JOIN LATERAL {JOINED} l(t) ON true"),
        "  items grouped once, then joined": grouped,
        "row_to_json, array_to_json(array())": (
            f"SELECT array_to_json(array(SELECT row_to_json(x) FROM ({ROW.format(items=ROWS, page=page)}) x))::text"
        ),
        "json_build_object, json_agg": built,
        "jsonb_build_object, jsonb_agg": built.replace("json_", "jsonb_"),
    }


def limits() -> Mapping[str, tuple[str, tuple[int, ...], str]]:
    """Return pages of 20 with the ways to say so: a text, its arguments, and the plan cache's mode."""
    keyed = "SELECT * FROM orders WHERE id > $1 ORDER BY id LIMIT {limit}"
    deep = "SELECT * FROM orders ORDER BY id LIMIT 20 OFFSET $1"
    text = ORDER % (ONE, JOINED)
    inside = f"SELECT {text} AS t FROM orders o ORDER BY id LIMIT 20 OFFSET $1"
    around = f"SELECT textsend(string_agg(x.t, ',')) FROM ({inside}) x"
    return {
        "LIMIT 20 (the library's)": (chained(keyed.format(limit=20)), (40,), "auto"),
        "LIMIT $2": (chained(keyed.format(limit="$2::int")), (40, 20), "auto"),
        "LIMIT $2, generic plans forced": (chained(keyed.format(limit="$2::int")), (40, 20), "force_generic_plan"),
        "OFFSET 400, texts around the page (the library's)": (chained(deep), (400,), "auto"),
        "OFFSET 400, texts inside the page": (around, (400,), "auto"),
    }


async def timed(calls: dict[str, Any], rounds: int) -> None:
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name in random.sample(list(calls), len(calls)):
            began = time.perf_counter()
            await calls[name]()
            times[name].append(time.perf_counter() - began)
    base = next(iter(times.values()))
    warm = rounds // 6  # the first runs are planned anew, whatever the text
    for name, each in times.items():
        ratio = statistics.median(one / other for one, other in zip(each[warm:], base[warm:], strict=True))
        print(f"  {name:52} x {ratio:4.2f}   {statistics.median(each[warm:]) * 1000:6.3f} ms")


async def main(url: str, rounds: int) -> None:
    connection = await asyncpg.connect(url.replace("+asyncpg", ""))
    await connection.execute(SCHEMA)
    for limit in (1, 20, 100):
        calls = {}
        answers = set()
        for name, text in shapes(limit).items():
            statement = await connection.prepare(text)
            found = await statement.fetchval()
            answers.add(json.dumps(json.loads(found), sort_keys=True))
            calls[name] = statement.fetchval
        if len(answers) != 1:
            sys.exit("the answers differ")
        print(f"{limit} orders of 5 items:")
        await timed(calls, rounds)
    print("20 orders of 5 items, by key and by offset:")
    calls = {}
    for name, (text, arguments, mode) in limits().items():
        own = await asyncpg.connect(url.replace("+asyncpg", ""), server_settings={"plan_cache_mode": mode})
        statement = await own.prepare(text)
        calls[name] = lambda statement=statement, arguments=arguments: statement.fetchval(*arguments)
    await timed(calls, rounds)


if __name__ == "__main__":
    with embedded.server(durable=False) as server:
        asyncio.run(main(server.url, int(sys.argv[1]) if len(sys.argv) > 1 else 120))
