"""Cancelled everywhere: at each await of SQLAlchemy's, and at each suspension of our own, once and from there on.

Afterwards no connection is open that nobody will close, no slot is lost, no backend works on, nothing is half done, and
the database goes on working.
"""

import asyncio
import contextlib

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import bindparam, event, select, text
from sqlalchemy.orm import Mapped, mapped_column

from tests.faults.rig import eventually
from tests.faults.service import Service
from verdigris import Base, Database, bulk
from verdigris.fastapi import ReadRouter, install
from verdigris.lean.transaction import lean_transaction

TAKE = text("UPDATE account SET balance = balance - 1 WHERE id = 1")
GIVE = text("UPDATE account SET balance = balance + 1 WHERE id = 2")


async def transfer(session):
    await session.execute(TAKE)
    await session.execute(GIVE)


async def a_unit(db):
    await db.transaction(transfer)


async def an_idempotent_unit(db):
    await db.transaction(transfer, idempotent=True)


async def a_begin_block(db):
    async with db.session.begin() as session:
        await transfer(session)


async def a_savepoint(db):
    async with db.session() as session:
        async with session.begin_nested():
            await transfer(session)
        await session.commit()


async def a_failing_unit(db):
    with contextlib.suppress(ZeroDivisionError):
        await db.transaction(_fail)


async def _fail(session):
    await transfer(session)
    raise ZeroDivisionError


async def reads(db):
    async with db.read() as session:
        await session.scalar(text("SELECT balance FROM account WHERE id = 1"))


class Account(Base):
    __tablename__ = "account"
    id: Mapped[int] = mapped_column(primary_key=True)
    balance: Mapped[int]


async def a_lean_transaction(db):
    """Committed, closed without a commit, in a block, and one that goes on to write: each with lean reads before."""
    async with db.session() as session:
        await session.get(Account, 1)
        await session.get(Account, 2)
        await session.commit()
    async with db.session() as session:
        await session.get(Account, 1)
    async with db.session.begin() as session:
        await session.get(Account, 1)
    async with db.session() as session:
        await session.get(Account, 1)
        await transfer(session)
        await session.commit()


async def _lean(db):
    for key in (1, 2, 1):  # the first of a shape is SQLAlchemy's
        async with db.session() as session:
            await session.get(Account, key)
            found = lean_transaction(session.sync_session)
    assert found is not None


a_lean_transaction.prepare = _lean


class AccountOut(BaseModel):
    id: int
    balance: int


_accounts = select(Account).order_by(Account.id)


async def json_reads(db):
    """A list, one object and None, as text and as objects."""
    await db.json(_accounts, list[AccountOut])
    await db.json(_accounts.where(Account.id == 1), AccountOut | None)
    await db.fetch(_accounts, list[AccountOut])


async def json_reads_together(db):
    """More at once than the pool has connections, so that those that wait go together."""
    read = db.json_read(select(Account).where(Account.id == bindparam("key")), AccountOut)
    await asyncio.gather(*[read(key=1 + number % 2) for number in range(12)])


def _get(path):
    async def request(db):
        app, reads = FastAPI(), ReadRouter(db)
        install(app, db)
        reads.get("/read", response_model=list[AccountOut])(lambda: _accounts)
        app.include_router(reads)
        app.get("/streamed")(lambda: db.json_stream(_accounts, list[AccountOut]))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            for _ in range(3):
                assert len((await client.get(path)).json()) == 2

    request.__name__ = f"a_request_{path[1:]}"
    return request


async def a_snapshot(db):
    async with db.read(snapshot=True) as session:
        await session.scalar(text("SELECT balance FROM account WHERE id = 1"))


async def a_stream(db):
    async with db.session() as session:
        async for _ in await session.stream(text("SELECT * FROM generate_series(1, 300)")):
            pass


async def side_by_side(db):
    await db.gather(transfer, transfer)


async def a_bulk_insert(db):
    async def rows(session):
        await bulk.insert(session, _entry, ({"id": number} for number in range(50)))

    await db.transaction(rows)


async def _nothing(db):
    pass


def _request(way):
    async def request(db):
        service = Service(db)
        service.work = transfer
        transport = httpx.ASGITransport(service.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            assert (await client.post(f"/{way}")).status_code == 200

    request.__name__ = f"a_request_{way}"
    return request


async def a_start(db):
    await db.start()


def _table():
    from sqlalchemy import Column, Integer, MetaData, Table

    return Table("entry", MetaData(), Column("id", Integer))


_entry = _table()

SCENARIOS = [
    a_unit,
    an_idempotent_unit,
    a_begin_block,
    a_savepoint,
    a_failing_unit,
    reads,
    a_lean_transaction,
    json_reads,
    json_reads_together,
    a_snapshot,
    a_stream,
    side_by_side,
    a_bulk_insert,
    a_start,
    *(_request(way) for way in ("plain", "route", "retried")),
    *(_get(path) for path in ("/read", "/streamed")),
]
FAST = {a_unit, a_begin_block, a_lean_transaction}


class Points:
    """The suspensions of a scenario and of the tasks it starts; at one of them, or from there on, it is cancelled."""

    def __init__(self, number, *, storms):
        self.number, self.storms = number, storms
        self.seen = 0
        self.task = None

    async def run(self, coroutine):
        """Run a scenario; what comes out of it comes out here."""
        loop = asyncio.get_running_loop()
        loop.set_task_factory(self._counted)
        try:
            self.task = asyncio.create_task(coroutine)
            await asyncio.wait({self.task}, timeout=20)
        finally:
            loop.set_task_factory(None)
        assert self.task.done(), f"still running after a cancellation at {self.number}"
        return self.task

    def _counted(self, loop, coroutine, **options):
        task = asyncio.Task(_drive(_Steps(self, coroutine)), loop=loop, **options)
        task.add_done_callback(lambda _: coroutine.close())  # cancelled before it began: then nobody has awaited it
        return task

    def pass_one(self):
        self.seen += 1
        if self.seen == self.number or (self.storms and self.seen > self.number):
            self.task.cancel()


class _Steps:
    def __init__(self, points, coroutine):
        self.points, self.coroutine = points, coroutine

    def __await__(self):
        step, value = self.coroutine.send, None
        while True:
            try:
                waiting = step(value)
            except StopIteration as ended:
                return ended.value
            self.points.pass_one()
            try:
                step, value = self.coroutine.send, (yield waiting)
            except BaseException as thrown:  # noqa: BLE001 - the cancellation, which the coroutine has to see
                step, value = self.coroutine.throw, thrown


async def _drive(steps):
    return await steps


class Watched:
    """A Database whose driver connections are counted, from the making to the closing."""

    def __init__(self, url):
        self.db = Database(url, pool_size=2, max_overflow=0, pool_timeout=2, connect_timeout=5)
        self.drivers = []
        event.listen(self.db.engine.sync_engine, "connect", self._connected)

    def _connected(self, connection, _):
        self.drivers.append(connection.driver_connection)

    async def left_behind(self, postgres, database):
        """Say what a cancelled scenario left; nothing if all is well."""
        db = self.db
        left = []

        async def quiet():
            return db.pool_status().in_use == 0 and not await postgres.backends(database, busy=True)

        try:
            await eventually(quiet, seconds=5)
        except TimeoutError:
            left.append(f"{db.pool_status().in_use} slots, {await postgres.backends(database, busy=True)}")
        balances = [row[0] for row in await postgres.run("SELECT balance FROM account ORDER BY id", database=database)]
        if sum(balances):
            left.append(f"half a transfer: {balances}")
        try:
            async with asyncio.timeout(5):
                await db.transaction(transfer)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
            left.append(f"the next unit failed: {error!r}")
        await db.dispose()
        if any(not driver.is_closed() for driver in self.drivers):
            left.append("a connection that nobody closes")

        async def gone():
            return not await postgres.backends(database)

        try:
            await eventually(gone, seconds=5)
        except TimeoutError:
            left.append("a backend that nobody ended")
        return left


def variants():
    for scenario in SCENARIOS:
        for warm in (True, False):
            for storms in (False, True):
                fast = scenario in FAST and warm
                yield pytest.param(
                    scenario,
                    warm,
                    storms,
                    id=f"{scenario.__name__}-{'warm' if warm else 'cold'}-{'storm' if storms else 'once'}",
                    marks=() if fast else pytest.mark.slow,
                )


@pytest.mark.parametrize(("scenario", "warm", "storms"), list(variants()))
async def test_a_cancellation_at_any_suspension_leaves_nothing_behind(
    postgres, database, admin, scenario, warm, storms
):
    await admin("CREATE TABLE entry (id int)")
    url = postgres.server.url_for(database, socket=True)
    findings, number = [], 0
    while True:
        number += 1
        watched = Watched(url)
        if warm:
            await watched.db.transaction(transfer)
            await getattr(scenario, "prepare", _nothing)(watched.db)
        points = Points(number, storms=storms)
        task = await points.run(scenario(watched.db))
        reached = points.seen >= number
        if reached and not task.cancelled():
            findings.append((number, f"not cancelled but {task.exception()!r}"))
        findings += [(number, each) for each in await watched.left_behind(postgres, database)]
        if not reached:
            break

    assert number > 3
    assert findings == []


@pytest.mark.slow
@pytest.mark.parametrize("scenario", [a_unit, a_begin_block, a_savepoint, reads, a_snapshot, side_by_side])
@pytest.mark.parametrize(
    ("warm", "cancels"), [(False, 1), (True, 1), (True, 2)], ids=["cold", "warm", "warm, cancelled twice"]
)
def test_sqlalchemys_own_sweep_finds_nothing_left_behind(postgres, database, scenario, warm, cancels):
    cancellation = pytest.importorskip("sqlalchemy.testing.cancellation", reason="came with SQLAlchemy 2.1")
    databases = {}

    def engine():
        db = Database(postgres.server.url_for(database, socket=True), pool_size=2, max_overflow=0, pool_timeout=1)
        databases[db.engine] = db
        return db.engine

    async def work(engine):
        await scenario(databases[engine])

    found = asyncio.run(cancellation.sweep(engine, work, warm=warm, cancels=cancels))

    assert len(databases) > 1  # one engine a point, and one for the whole; a warm read waits at one point only
    assert found == []
