"""verdigris: request_session, load()"""

from typing import Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL
from verdigris import Database, load
from verdigris.fastapi import install


def app(url: str) -> FastAPI:
    db = Database(url, pool_size=POOL, max_overflow=0)
    app = FastAPI()
    install(app, db)
    SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]  # noqa: N806 - a type

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int, session: SessionDep) -> Any:
        return await session.scalar(select(Order).where(Order.id == id_).options(load(Order, OrderRow)))

    @app.get("/orders", response_model=list[OrderRow])
    async def page(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(Order.id).limit(limit)
        return (await session.scalars(statement.options(load(Order, OrderRow)))).all()

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(Order.id).limit(limit)
        return (await session.scalars(statement.options(load(Order, OrderOut)))).all()

    return app
