"""verdigris: db.json()"""

from __future__ import annotations

from fastapi import FastAPI, Response
from sqlalchemy import select

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL
from verdigris import Database
from verdigris.fastapi import install


def app(url: str) -> FastAPI:
    db = Database(url, pool_size=POOL, max_overflow=0)
    app = FastAPI()
    install(app, db)

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int) -> Response:
        return await db.json(select(Order).where(Order.id == id_), OrderRow)

    @app.get("/orders", response_model=list[OrderRow])
    async def page(after: int = 0, limit: int = 20) -> Response:
        return await db.json(select(Order).where(Order.id > after).order_by(Order.id).limit(limit), list[OrderRow])

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(after: int = 0, limit: int = 20) -> Response:
        return await db.json(select(Order).where(Order.id > after).order_by(Order.id).limit(limit), list[OrderOut])

    return app
