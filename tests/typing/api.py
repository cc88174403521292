"""How the public names are used, for mypy and pyright to read; it is never run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, assert_type

from fastapi import APIRouter, Depends, FastAPI, Response
from pydantic import BaseModel
from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Load, Mapped, aliased, mapped_column

from verdigris import AsyncSession as OurSession
from verdigris import Base, Database, Retry, __version__, after_commit, bulk, embedded, errors, explain_plan, load
from verdigris.embedded import EmbeddedServer, Installation, Provider, Server
from verdigris.fastapi import Route, install, retrying
from verdigris.testing import QueryLog, Sandbox, standing_in

version: str = __version__


def a_server() -> None:
    with embedded.server(data=Path("data"), durable=False, settings={"work_mem": "8MB", "jit": False}) as running:
        assert_type(running, Server)
        assert_type(running.url, str)
        assert_type(running.url_for("shop", socket=True), str)
        assert_type(running.password, str | None)
        running.stop()
    assert_type(embedded.server(), EmbeddedServer)


async def an_async_server() -> str:
    async with embedded.server() as running:
        return running.url


class Elsewhere:
    def installation(self) -> Installation | None:
        return Installation("elsewhere", "18.6", Path("/opt/postgresql/bin"))


provider: Provider = Elsewhere()
embedded.server(provider=provider)


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)


class OrderOut(BaseModel):
    id: int


def a_database(engine: AsyncEngine) -> None:
    assert_type(Database.from_engine(engine, statement_timeout=None, commit_timeout=5, resolve_timeout=2), Database)
    assert_type(Database.from_engine(engine, explain_slow="analyze", expire_on_commit=False, retry=False), Database)
    Database.from_engine(engine, shortcuts=False)
    Database.from_engine(engine, statment_timeout=5)  # type: ignore[arg-type]  # misspelt: an editor says so
    assert_type(Database("postgresql+asyncpg://localhost/shop", workers=4).engine, AsyncEngine)
    Database(explain_slow="analyze", command_timeout=None)


class Audited(OurSession):
    async def audit(self) -> int:
        return 1


async def sessions_of_ones_own(engine: AsyncEngine) -> None:
    own = Database(session_class=Audited)
    assert_type(own, Database[Audited])
    assert_type(Database.from_engine(engine, session_class=Audited), Database[Audited])
    async with own.session() as session, own.read() as reading:
        assert_type(await session.audit() + await reading.audit(), int)

    async def work(session: Audited) -> int:
        return await session.audit()

    async def any_work(session: AsyncSession) -> str:
        return ""

    assert_type(await own.transaction(work), int)
    assert_type(await own.gather(work, any_work), tuple[int, str])
    anywhere: Database = own
    install(FastAPI(), anywhere)
    Database(session_class=AsyncSession)  # type: ignore[type-var]  # SQLAlchemy's lacks the guards


class UnitOfWork:
    """As services have it: annotated with SQLAlchemy's classes, which stay when the engine becomes a Database."""

    def __init__(self, factory: async_sessionmaker[AsyncSession]) -> None:
        self.session = factory()


async def factories_in_code_that_is_there() -> None:
    UnitOfWork(Database().session)
    own = Database(session_class=Audited)
    UnitOfWork(own.session)
    async with own.session.begin() as session:
        assert_type(session, Audited)
    assert_type(Database().session(), OurSession)


db = Database()


async def json_reads(session: AsyncSession) -> None:
    statement = select(Order).where(Order.id == bindparam("id"))
    assert_type(await db.json(statement, OrderOut, session=session, etag=True), Response)
    assert_type(await db.fetch(statement, OrderOut), OrderOut)
    assert_type(await db.fetch(select(Order), list[OrderOut]), list[OrderOut])
    perhaps: OrderOut | None = await db.fetch(statement, OrderOut | None)
    assert perhaps is None or perhaps.id
    await db.fetch(Order, OrderOut)  # type: ignore[call-overload]  # a class is no statement, nor is a text
    await db.json("SELECT id FROM orders", OrderOut)  # type: ignore[arg-type]
    assert_type(db.json_stream(select(Order), list[OrderOut]), Response)
    read = db.json_read(statement, OrderOut)
    assert_type(await read(id=1), Response)
    assert_type(await read.fetch(session, id=1), OrderOut)
    assert_type(await db.json_read(statement, OrderOut | None)(id=1), Response)
    assert_type(read.fallback, str | None)
    assert_type(read.arguments({"id": 1}), tuple[Any, ...])
    assert_type(explain_plan(Order, OrderOut), str)
    assert_type(explain_plan(select(Order.id), list[OrderOut]), str)
    assert_type(load(aliased(Order), OrderOut | None), Load)
    load(select(Order), OrderOut)  # type: ignore[arg-type]  # an option is of a class, and a statement takes it


SessionDep = Annotated[AsyncSession, Depends(db.request_session, scope="function")]


async def sessions() -> None:
    async with db.session() as session:
        assert_type(await session.scalar(select(Order).options(load(Order, OrderOut))), Order | None)
        await session.scalarz(select(Order))  # type: ignore[attr-defined]  # misspelt: an editor says so
    async with db.session.begin() as session:
        session.add(Order(id=1))
        after_commit(session, lambda: print("stored"))
    async with db.read() as session:
        assert_type((await session.scalars(select(Order.id))).all(), Sequence[int])
    async with db.lifespan():
        await db.dispose()
    await db.start()
    await db.stop()
    assert_type([replica.engine for replica in db.replicas], list[AsyncEngine])
    async with db.read(snapshot=True, after=await db.position(), max_lag=0.5) as session:
        assert_type((await session.scalars(select(Order.id))).all(), Sequence[int])


async def count(session: AsyncSession) -> int:
    return len((await session.scalars(select(Order))).all())


@db.transactional
async def place(session: AsyncSession, number: int) -> str:
    return f"{await count(session)} {number}"


@db.transactional(isolation_level="SERIALIZABLE", idempotent=True)
async def pay(session: AsyncSession, *, number: int) -> int:
    return await count(session) + number


async def units() -> None:
    assert_type(await db.transaction(count, isolation_level="SERIALIZABLE", deadline=2.0), int)
    assert_type(await db.transaction(count, resolve=True, idempotent=False), int)
    assert_type(await db.transaction(count, attempts=20), int)
    assert_type(Database(retry=Retry(attempts=5, conflict_budget=None)), Database)
    assert_type(await db.gather(count, count), tuple[int, int])
    assert_type(await db.gather(*[count]), tuple[int, ...])
    assert_type(await place(7), str)
    assert_type(await pay(number=7), int)
    await place("7")  # type: ignore[arg-type]  # the decorator keeps the parameters' types


async def many(session: AsyncSession) -> None:
    done = await bulk.insert(session, Order, ({"id": number} for number in range(10)), chunk=5)
    assert_type(done.rows, int)
    assert_type(done.seconds, float)


def faults(error: Exception) -> None:
    fault = errors.classify(error)
    assert_type(fault.name, str)
    assert_type(fault.status, int)
    assert_type(fault.sqlstate, str | None)


@retrying(isolation_level="SERIALIZABLE", resolve=True)
async def register(session: SessionDep, number: int) -> int:
    return await pay(number=number) + await count(session)


@retrying
async def look(session: SessionDep, number: int) -> int:
    return await count(session) + number


async def looked(session: AsyncSession) -> None:
    assert_type(await look(session, 3), int)


def an_app() -> FastAPI:
    app = FastAPI()
    app.post("/register")(register)
    install(app, db, errors=False)
    app.include_router(APIRouter(route_class=Route))
    return app


async def a_test(verdigris_sandbox: Sandbox, verdigris_queries: QueryLog) -> None:
    with verdigris_sandbox.standing_in(db), verdigris_queries.at_most(3):
        await place(1)
    with standing_in(verdigris_sandbox, db) as replaced:
        assert_type(replaced, Sandbox)
