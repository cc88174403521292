"""asyncpg and orjson, by hand"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import orjson
from fastapi import FastAPI, Response

from reads.settings import POOL

COLUMNS = "o.id, o.number, o.status, o.placed_at, o.total, o.note"
ROW = f"select {COLUMNS}, o.customer_id from orders o where o.id = $1"
PAGE = f"select {COLUMNS}, o.customer_id from orders o where o.id > $1 order by o.id limit $2"
NESTED = f"""
select {COLUMNS}, c.id as customer_id, c.name, c.email
from orders o join customer c on c.id = o.customer_id where o.id > $1 order by o.id limit $2
"""
LINES = "select order_id, id, sku, quantity, unit_price from line where order_id = any($1::int[]) order by id"


def answer(value: Any) -> Response:
    return Response(orjson.dumps(value, default=str), media_type="application/json")


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
        return answer(dict(await pool.fetchrow(ROW, id_)))

    @app.get("/orders")
    async def page(after: int = 0, limit: int = 20) -> Response:
        return answer([dict(order) for order in await pool.fetch(PAGE, after, limit)])

    @app.get("/nested")
    async def nested(after: int = 0, limit: int = 20) -> Response:
        async with pool.acquire() as connection:
            orders = await connection.fetch(NESTED, after, limit)
            lines = await connection.fetch(LINES, [order["id"] for order in orders])
        of: dict[int, list[Any]] = {order["id"]: [] for order in orders}
        for order_id, id_, sku, quantity, unit_price in lines:
            of[order_id].append({"id": id_, "sku": sku, "quantity": quantity, "unit_price": unit_price})
        return answer(
            [
                {
                    "id": id_,
                    "number": number,
                    "status": status,
                    "placed_at": placed_at,
                    "total": total,
                    "note": note,
                    "customer": {"id": customer_id, "name": name, "email": email},
                    "lines": of[id_],
                }
                for id_, number, status, placed_at, total, note, customer_id, name, email in orders
            ]
        )

    return app
