"""A small service as people write them, with no word of verdigris: what the recorder is pointed at in tests."""

# ruff: noqa: A001, A002, BLE001, SIM105 - as people write them

import asyncio
import os
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, create_engine, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, joinedload, mapped_column, relationship, selectinload

URL = os.environ["DATABASE_URL"]
engine = create_async_engine(URL, pool_size=3, max_overflow=2, pool_timeout=0.5, pool_recycle=900, pool_pre_ping=True)
Session = async_sessionmaker(engine, expire_on_commit=False)


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str] = mapped_column(default="", deferred=True)
    lines: Mapped[list["Line"]] = relationship(back_populates="order")
    tags: Mapped[list["Tag"]] = relationship()
    strict: Mapped[list["Line"]] = relationship(lazy="raise_on_sql", viewonly=True)


class Line(Base):
    __tablename__ = "lines"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    order: Mapped[Order] = relationship(back_populates="lines")


class Tag(Base):
    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class LineOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class OrderOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    lines: list[LineOut]


class StrictOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    strict: list[LineOut]


async def get_db():
    async with Session() as session:
        yield session
        await session.commit()


Late = Annotated[AsyncSession, Depends(get_db)]
Early = Annotated[AsyncSession, Depends(get_db, scope="function")]


@asynccontextmanager
async def lifespan(_app):
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with Session.begin() as session:
        session.add_all(
            [Order(name=f"o{n}", lines=[Line() for _ in range(12)], tags=[Tag() for _ in range(12)]) for n in range(20)]
        )
    yield
    await engine.dispose()


app = FastAPI(lifespan=lifespan)
orders = APIRouter(prefix="/orders")
LEAKED = []


@orders.get("/{id}")
async def read(id: int, db: Late) -> OrderOut:
    return await db.scalar(select(Order).where(Order.id == id).options(selectinload(Order.lines)))


@orders.get("/{id}/lazy")
async def lazy(id: int, db: Late) -> OrderOut:
    return await db.get(Order, id)


@orders.get("/{id}/strict")
async def strict(id: int, db: Late) -> StrictOut:
    return await db.get(Order, id)


@orders.get("/{id}/note")
async def note(id: int, db: Late) -> str:
    order = await db.get(Order, id)
    return await db.run_sync(lambda _: order.note)


@orders.get("/{id}/again")
async def again(id: int, db: Late) -> str:
    order = await db.get(Order, id)
    await db.refresh(order)
    return order.name


@orders.get("")
async def loop(db: Late) -> int:
    ids = (await db.scalars(select(Order.id))).all()
    for id in ids:
        await db.scalar(select(Order.name).where(Order.id == id))
    return len(ids)


@orders.get("-touched")
async def touched(db: Late) -> int:
    found = (await db.scalars(select(Order))).all()
    count = 0
    for order in found:
        count += await db.run_sync(lambda _, order=order: len(order.lines))
    return count


@orders.get("-joined")
async def joined(db: Late) -> int:
    found = await db.scalars(select(Order).options(joinedload(Order.lines), joinedload(Order.tags)))
    return len(found.unique().all())


@orders.get("-pages")
async def pages(db: Late) -> int:
    for page in range(4):
        await db.scalars(select(Order.id).limit(5).offset(5 * page))
    return 4


@orders.post("")
async def create(name: str, db: Late) -> int:
    order = Order(name=name)
    db.add(order)
    await db.flush()
    return order.id


@orders.post("-early")
async def create_early(name: str, db: Early) -> int:
    order = Order(name=name)
    db.add(order)
    await db.flush()
    return order.id


@orders.post("-swallowed")
async def swallowed(db: Early) -> int:
    try:
        await db.execute(text("insert into orders (name, note) values ('o1', '')"))
    except Exception:
        pass
    return 1


@orders.get("-shared")
async def shared(db: Late) -> int:
    await asyncio.gather(db.execute(select(Order)), db.execute(select(Line)), return_exceptions=True)
    return 1


@orders.get("-leak")
async def leak() -> int:
    session = Session()
    LEAKED.append(session)
    await session.execute(text("select 1"))
    return 1


async def one() -> None:
    async with Session() as session:
        await session.execute(text("select pg_sleep(0.02)"))


@orders.get("-fan")
async def fan() -> int:
    await asyncio.gather(*(one() for _ in range(6)))
    return 1


@orders.get("-stream")
async def stream() -> StreamingResponse:
    async def rows():
        for id in range(1, 6):
            async with Session() as session:
                yield f"{await session.scalar(select(Order.name).where(Order.id == id))}\n"

    return StreamingResponse(rows())


@orders.post("-bulk")
async def bulk() -> int:
    async with engine.begin() as connection:
        raw = await connection.get_raw_connection()
        await raw.driver_connection.copy_records_to_table(
            "tags", records=[(10_000 + n, 1) for n in range(50)], columns=["id", "order_id"]
        )
        await connection.execute(insert(Tag), [{"id": 20_000 + n, "order_id": 1} for n in range(7)])
        await connection.rollback()
    async with Session() as session:
        for n in range(5):
            session.add(Tag(id=30_000 + n, order_id=1))
            await session.flush()
    return 1


@orders.get("-perrequest")
async def per_request() -> int:
    mine = create_async_engine(URL, pool_size=1)
    make = async_sessionmaker(mine)
    async with make() as session:
        count = await session.scalar(select(func.count()).select_from(Order))
    await mine.dispose()
    return count


@orders.get("-blocking")
async def blocking() -> int:
    with blocking_engine.connect() as connection:
        return connection.execute(text("select 1")).scalar_one()


blocking_engine = create_engine("sqlite://")


@orders.websocket("-socket")
async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    for _ in range(3):
        id = int(await websocket.receive_text())
        async with Session() as session:
            await websocket.send_text(await session.scalar(select(Order.name).where(Order.id == id)))
    await websocket.close()


app.include_router(orders)
