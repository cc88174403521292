"""Piccolo"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from piccolo.columns import ForeignKey, Integer, Numeric, Text, Timestamptz
from piccolo.engine.postgres import PostgresEngine
from piccolo.table import Table

from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL

DB = PostgresEngine(config={"dsn": os.environ["DATABASE_URL"].replace("+asyncpg", "")})


class Customer(Table, tablename="customer", db=DB):
    id = Integer(primary_key=True)
    name = Text()
    email = Text()


class Order(Table, tablename="orders", db=DB):
    id = Integer(primary_key=True)
    number = Text()
    status = Text()
    placed_at = Timestamptz()
    total = Numeric(digits=(10, 2))
    note = Text(null=True)
    customer = ForeignKey(Customer, db_column_name="customer_id")


class Line(Table, tablename="line", db=DB):
    id = Integer(primary_key=True)
    order = ForeignKey(Order, db_column_name="order_id")
    sku = Text()
    quantity = Integer()
    unit_price = Numeric(digits=(10, 2))


PLAIN = (Order.id, Order.number, Order.status, Order.placed_at, Order.total, Order.note)
ROW = (*PLAIN, Order.customer.as_alias("customer_id"))
NESTED = (*PLAIN, Order.customer.id, Order.customer.name, Order.customer.email)


def app(url: str) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await DB.start_connection_pool(min_size=POOL, max_size=POOL)
        yield
        await DB.close_connection_pool()

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int) -> Any:
        return await Order.select(*ROW).where(Order.id == id_).first()

    @app.get("/orders", response_model=list[OrderRow])
    async def page(after: int = 0, limit: int = 20) -> Any:
        return await Order.select(*ROW).where(Order.id > after).order_by(Order.id).limit(limit)

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(after: int = 0, limit: int = 20) -> Any:
        found = await Order.select(*NESTED).where(Order.id > after).order_by(Order.id).limit(limit).output(nested=True)
        lines = await Line.select().where(Line.order.is_in([order["id"] for order in found])).order_by(Line.id)
        of: dict[int, list[Any]] = defaultdict(list)
        for line in lines:
            of[line["order_id"]].append(line)
        for order in found:
            order["customer"] = order.pop("customer_id")  # Piccolo nests under the name in the database
            order["lines"] = of[order["id"]]
        return found

    return app
