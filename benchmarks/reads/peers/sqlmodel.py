"""SQLModel"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from sqlalchemy import DateTime
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import joinedload, selectinload
from sqlmodel import Field, Relationship, SQLModel, col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from reads.settings import POOL


class CustomerBase(SQLModel):
    id: int = Field(primary_key=True)
    name: str
    email: str


class Customer(CustomerBase, table=True):
    __tablename__ = "customer"


class OrderBase(SQLModel):
    id: int = Field(primary_key=True)
    number: str
    status: str
    placed_at: datetime = Field(sa_type=DateTime(timezone=True))
    total: Decimal = Field(max_digits=10, decimal_places=2)
    note: str | None = None


class Order(OrderBase, table=True):
    __tablename__ = "orders"

    customer_id: int = Field(foreign_key="customer.id", index=True)
    customer: Customer = Relationship()
    lines: list["Line"] = Relationship(sa_relationship_kwargs={"order_by": "Line.id"})


class LineBase(SQLModel):
    id: int = Field(primary_key=True)
    sku: str
    quantity: int
    unit_price: Decimal = Field(max_digits=10, decimal_places=2)


class Line(LineBase, table=True):
    __tablename__ = "line"

    order_id: int = Field(foreign_key="orders.id", index=True)


class OrderRow(OrderBase):
    customer_id: int


class OrderOut(OrderBase):
    customer: CustomerBase
    lines: list[LineBase]


def app(url: str) -> FastAPI:
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await engine.dispose()

    async def get_session() -> AsyncIterator[AsyncSession]:
        async with AsyncSession(engine, expire_on_commit=False) as session:
            yield session

    app = FastAPI(lifespan=lifespan)
    SessionDep = Annotated[AsyncSession, Depends(get_session)]  # noqa: N806 - a type

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int, session: SessionDep) -> Any:
        return await session.get(Order, id_)

    @app.get("/orders", response_model=list[OrderRow])
    async def page(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(col(Order.id)).limit(limit)
        return (await session.exec(statement)).all()

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(session: SessionDep, after: int = 0, limit: int = 20) -> Any:
        statement = select(Order).where(Order.id > after).order_by(col(Order.id)).limit(limit)
        loads = (joinedload(Order.customer, innerjoin=True), selectinload(Order.lines))
        return (await session.exec(statement.options(*loads))).all()

    return app
