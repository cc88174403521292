"""json_agg over asyncpg, by hand"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
from fastapi import FastAPI, Response

from reads.settings import POOL

# A numeric is a text in the answer, as Pydantic writes it: PostgreSQL's own JSON would make it a number.
COLUMNS = "o.id, o.number, o.status, o.placed_at, o.total::text as total, o.note"
ROW = f"select row_to_json(r)::text from (select {COLUMNS}, o.customer_id from orders o where o.id = $1) r"
PAGE = f"""
select coalesce(json_agg(row_to_json(r)), '[]')::text
from (select {COLUMNS}, o.customer_id from orders o where o.id > $1 order by o.id limit $2) r
"""
NESTED = f"""
select coalesce(json_agg(row_to_json(r)), '[]')::text from (
    select {COLUMNS},
        (select row_to_json(b) from (select c.id, c.name, c.email) b) as customer,
        (select coalesce(json_agg(row_to_json(x)), '[]') from (
            select l.id, l.sku, l.quantity, l.unit_price::text as unit_price
            from line l where l.order_id = o.id order by l.id
        ) x) as lines
    from orders o join customer c on c.id = o.customer_id where o.id > $1 order by o.id limit $2
) r
"""


def answer(text: str) -> Response:
    return Response(text, media_type="application/json")


def app(url: str) -> FastAPI:
    pool: asyncpg.Pool

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal pool
        async with asyncpg.create_pool(url.replace("+asyncpg", ""), min_size=POOL, max_size=POOL) as pool:
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders/{id_}")
    async def row(id_: int) -> Response:
        return answer(await pool.fetchval(ROW, id_))

    @app.get("/orders")
    async def page(after: int = 0, limit: int = 20) -> Response:
        return answer(await pool.fetchval(PAGE, after, limit))

    @app.get("/nested")
    async def nested(after: int = 0, limit: int = 20) -> Response:
        return answer(await pool.fetchval(NESTED, after, limit))

    return app
