"""Tortoise ORM"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from tortoise import fields
from tortoise.contrib.fastapi import RegisterTortoise
from tortoise.models import Model

from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL


class Customer(Model):
    id = fields.IntField(primary_key=True)
    name = fields.TextField()
    email = fields.TextField()

    class Meta:
        table = "customer"


class Order(Model):
    id = fields.IntField(primary_key=True)
    number = fields.TextField()
    status = fields.TextField()
    placed_at = fields.DatetimeField()
    total = fields.DecimalField(10, 2)
    note = fields.TextField(null=True)
    customer: Any = fields.ForeignKeyField("models.Customer", related_name="orders", source_field="customer_id")
    lines: Any

    class Meta:
        table = "orders"


class Line(Model):
    id = fields.IntField(primary_key=True)
    order: Any = fields.ForeignKeyField("models.Order", related_name="lines", source_field="order_id")
    sku = fields.TextField()
    quantity = fields.IntField()
    unit_price = fields.DecimalField(10, 2)

    class Meta:
        table = "line"
        ordering = ("id",)


def app(url: str) -> FastAPI:
    address = f"{url.replace('postgresql+asyncpg', 'asyncpg')}?minsize={POOL}&maxsize={POOL}"

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with RegisterTortoise(app, db_url=address, modules={"models": [__name__]}, use_tz=True):
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int) -> Any:
        return await Order.get(id=id_)

    @app.get("/orders", response_model=list[OrderRow])
    async def page(after: int = 0, limit: int = 20) -> Any:
        return await Order.filter(id__gt=after).order_by("id").limit(limit)

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(after: int = 0, limit: int = 20) -> Any:
        found = Order.filter(id__gt=after).order_by("id").limit(limit)
        return await found.select_related("customer").prefetch_related("lines")

    return app
