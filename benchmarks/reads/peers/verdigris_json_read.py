"""verdigris: db.json_read(), made once"""

from __future__ import annotations

from fastapi import FastAPI, Response
from sqlalchemy import bindparam, select

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL
from verdigris import Database
from verdigris.fastapi import install


def app(url: str) -> FastAPI:
    db = Database(url, pool_size=POOL, max_overflow=0)
    app = FastAPI()
    install(app, db)
    some = select(Order).where(Order.id > bindparam("after")).order_by(Order.id).limit(bindparam("limit"))
    read_row = db.json_read(select(Order).where(Order.id == bindparam("id")), OrderRow)
    read_page = db.json_read(some, list[OrderRow])
    read_nested = db.json_read(some, list[OrderOut])

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int) -> Response:
        return await read_row(id=id_)

    @app.get("/orders", response_model=list[OrderRow])
    async def page(after: int = 0, limit: int = 20) -> Response:
        return await read_page(after=after, limit=limit)

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(after: int = 0, limit: int = 20) -> Response:
        return await read_nested(after=after, limit=limit)

    return app
