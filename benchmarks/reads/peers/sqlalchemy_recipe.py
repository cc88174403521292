"""SQLAlchemy ORM, the usual recipe"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload, selectinload

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL


def app(url: str, **engine_options: Any) -> FastAPI:
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0, **engine_options)
    maker = async_sessionmaker(engine, expire_on_commit=False)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with maker() as session:
            try:
                yield session
                await session.commit()
            except Exception:
                await session.rollback()
                raise

    app = FastAPI(lifespan=lifespan)
    SessionDep = Annotated[AsyncSession, Depends(get_session)]  # noqa: N806 - a type

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int, session: SessionDep) -> Any:
        return (await session.execute(select(Order).where(Order.id == id_))).scalar_one()

    @app.get("/orders", response_model=list[OrderRow])
    async def page(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(Order.id).limit(limit)
        return (await session.scalars(statement)).all()

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(Order.id).limit(limit)
        loads = (joinedload(Order.customer, innerjoin=True), selectinload(Order.lines))
        return (await session.scalars(statement.options(*loads))).all()

    return app
