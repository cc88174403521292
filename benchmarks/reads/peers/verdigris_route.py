"""verdigris: ReadRouter"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from sqlalchemy import select

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL
from verdigris import Database
from verdigris.fastapi import ReadRouter, install


def app(url: str, **options: Any) -> FastAPI:
    db = Database(url, pool_size=POOL, max_overflow=0)
    app = FastAPI()
    install(app, db)
    reads = ReadRouter(db, **options)

    @reads.get("/orders/{id_}", response_model=OrderRow)
    def row(id_: int) -> Any:
        return select(Order).where(Order.id == id_)

    @reads.get("/orders", response_model=list[OrderRow])
    def page(after: int = 0, limit: int = 20) -> Any:
        return select(Order).where(Order.id > after).order_by(Order.id).limit(limit)

    @reads.get("/nested", response_model=list[OrderOut])
    def nested(after: int = 0, limit: int = 20) -> Any:
        return select(Order).where(Order.id > after).order_by(Order.id).limit(limit)

    app.include_router(reads)
    return app
