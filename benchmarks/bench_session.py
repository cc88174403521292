"""What a one-row read costs, from the bare driver to a request's session: time, CPU and round trips.

    python benchmarks/bench_session.py [ROUNDS] [--only NAME,NAME]

All variants run interleaved against one private server; a round is one batch of reads of each. Printed are medians over
the rounds: of microseconds a read, of this process's CPU, and of each round's ratio to a read through asyncpg's own
pool, which is what survives a busy machine. Round trips are counted on the wire, by a proxy that sees how often the
server says that it is ready for the next query.

Every variant reads the same row by its key; the answers are compared first. The ORM's give an instance in the session's
identity map, the driver's a record, the lane's a record.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import statistics
import struct
import time
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Self

import asyncpg
from sqlalchemy import func, select
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from verdigris import Base, Database, embedded
from verdigris.session.request import RequestUnit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

READS = 200
ROWS = 1_000
BASE = "asyncpg: pool"
TEXT = "SELECT id, number, status, total, note, customer_id, created_at, paid FROM orders WHERE id = $1"


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[str]
    status: Mapped[str]
    total: Mapped[Decimal]
    note: Mapped[str | None]
    customer_id: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    paid: Mapped[bool]


class Variants:
    """Every way to read one row; each method is one read."""

    def __init__(self, url: str) -> None:
        self.dsn = url.replace("+asyncpg", "")
        self.plain = create_async_engine(url, pool_size=1, max_overflow=0)
        self.pinged = create_async_engine(url, pool_size=1, max_overflow=0, pool_pre_ping=True)
        self.sessions = async_sessionmaker(self.plain, expire_on_commit=False)
        self.pinged_sessions = async_sessionmaker(self.pinged, expire_on_commit=False)
        self.autocommit = async_sessionmaker(self.plain.execution_options(isolation_level="AUTOCOMMIT"))
        self.db = Database(url, pool_size=1, max_overflow=0, slow_query=60)  # a busy machine is no slow query
        self.hoisted = select(Order).where(Order.id == 7)

    async def open(self) -> None:
        self.held = await asyncpg.connect(self.dsn)
        self.pool = await asyncpg.create_pool(self.dsn, min_size=1, max_size=1)

    async def close(self) -> None:
        await self.held.close()
        await self.pool.close()
        await self.plain.dispose()
        await self.pinged.dispose()
        await self.db.dispose()

    async def asyncpg_held(self, key: int) -> Any:
        return await self.held.fetchrow(TEXT, key)

    async def asyncpg_pool(self, key: int) -> Any:
        async with self.pool.acquire() as connection:
            return await connection.fetchrow(TEXT, key)

    async def asyncpg_transaction(self, key: int) -> Any:
        async with self.pool.acquire() as connection, connection.transaction():
            return await connection.fetchrow(TEXT, key)

    async def session_plain(self, key: int) -> Any:
        async with self.sessions() as session:
            return await session.scalar(select(Order).where(Order.id == key))

    async def session_commit(self, key: int) -> Any:
        async with self.sessions() as session:
            order = await session.scalar(select(Order).where(Order.id == key))
            await session.commit()
            return order

    async def session_pinged(self, key: int) -> Any:
        async with self.pinged_sessions() as session:
            return await session.scalar(select(Order).where(Order.id == key))

    async def session_autocommit(self, key: int) -> Any:
        async with self.autocommit() as session:
            return await session.scalar(select(Order).where(Order.id == key))

    async def lane(self, key: int) -> Any:
        return (await self.db.lane.fetch(TEXT, (key,)))[0]

    async def read(self, key: int) -> Any:
        async with self.db.read() as session:
            return await session.scalar(select(Order).where(Order.id == key))

    async def read_hoisted(self, key: int) -> Any:
        async with self.db.read() as session:
            return await session.scalar(self.hoisted)

    async def read_get(self, key: int) -> Any:
        async with self.db.read() as session:
            return await session.get(Order, key)

    async def read_executed(self, key: int) -> Any:
        async with self.db.read() as session:
            return (await session.execute(self.hoisted)).scalar_one()

    async def request(self, key: int) -> Any:
        async with RequestUnit(self.db, {}) as session:
            return await session.scalar(select(Order).where(Order.id == key))

    async def request_get(self, key: int) -> Any:
        async with RequestUnit(self.db, {}) as session:
            return await session.get(Order, key)

    async def request_executed(self, key: int) -> Any:
        async with RequestUnit(self.db, {}) as session:
            return (await session.execute(self.hoisted)).scalar_one()

    async def request_unused(self, key: int) -> Any:
        async with RequestUnit(self.db, {}):
            return None

    async def maker_unused(self, key: int) -> Any:
        async with self.sessions() as session:
            await session.commit()
            return None

    async def nothing(self, key: int) -> Any:
        async with _nothing():
            return None

    def all(self) -> dict[str, Callable[[int], Awaitable[Any]]]:
        return {
            "asyncpg: held connection": self.asyncpg_held,
            BASE: self.asyncpg_pool,
            "asyncpg: pool, a transaction": self.asyncpg_transaction,
            "lane: text, a record": self.lane,
            "db.read(): select() built each time": self.read,
            "db.read(): select() made once": self.read_hoisted,
            "db.read(): execute(), made once": self.read_executed,
            "db.read(): get()": self.read_get,
            "request's session: get(), committed": self.request_get,
            "request's session: execute(), made once": self.request_executed,
            "request's session: committed": self.request,
            "AsyncSession, AUTOCOMMIT": self.session_autocommit,
            "AsyncSession": self.session_plain,
            "AsyncSession, commit()": self.session_commit,
            "AsyncSession, pool_pre_ping": self.session_pinged,
            "request's session: unused": self.request_unused,
            "AsyncSession: unused, commit()": self.maker_unused,
            "a context manager that does nothing": self.nothing,
        }


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


class Wire:
    """A proxy that counts how often the server said that it is ready: one for each round trip."""

    def __init__(self, url: str) -> None:
        at = make_url(url)
        self.upstream = (at.host, at.port)
        self.trips = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection(*self.upstream)
        await asyncio.gather(self._requests(reader, forth), self._answers(back, writer))

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answered = False
        try:
            while True:
                kind = await reader.readexactly(1)
                if kind == b"N" and not answered:  # no TLS: an answer without a length
                    answered = True
                    writer.write(kind)
                    continue
                head = await reader.readexactly(4)
                writer.write(kind + head + await reader.readexactly(struct.unpack("!I", head)[0] - 4))
                self.trips += kind == b"Z"
        except asyncio.IncompleteReadError:
            writer.close()


async def trips(url: str, names: list[str]) -> dict[str, float]:
    """Return round trips a read, once everything is warm."""
    counted = {}
    async with Wire(url) as wire:
        variants = Variants(make_url(url).set(host="127.0.0.1", port=wire.port).render_as_string(hide_password=False))
        await variants.open()
        for name in names:
            read = variants.all()[name]
            for key in range(1, 4):
                await read(key)
            wire.trips = 0
            for key in range(4, 14):
                await read(key)
            counted[name] = wire.trips / 10
        await variants.close()
    return counted


def shown(found: Any) -> tuple[Any, ...]:
    values = dict(found) if isinstance(found, asyncpg.Record) else vars(found)
    return tuple(values[name] for name in ("id", "number", "status", "total", "note", "customer_id", "paid"))


async def check(variants: Variants, names: list[str]) -> None:
    """Compare the answers: a variant that reads something else is no peer."""
    expected = shown(await variants.asyncpg_pool(7))
    for name in names:
        found = await variants.all()[name](7)
        if found is not None and shown(found) != expected:
            raise SystemExit(f"{name} answers {shown(found)}, not {expected}")


@contextmanager
def collector_off() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


async def batch(read: Callable[[int], Awaitable[Any]]) -> tuple[float, float]:
    """Return microseconds a read, by the wall and of CPU."""
    with collector_off():
        wall, cpu = time.perf_counter(), time.process_time()
        for n in range(READS):
            await read(n % ROWS + 1)
        return (time.perf_counter() - wall) / READS * 1e6, (time.process_time() - cpu) / READS * 1e6


async def measure(url: str, names: list[str], rounds: int) -> dict[str, list[tuple[float, float]]]:
    variants = Variants(url)
    await variants.open()
    await check(variants, names)
    reads = {name: variants.all()[name] for name in names}
    for read in reads.values():
        await batch(read)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, read in reads.items():
            found[name].append(await batch(read))
    await variants.close()
    return found


async def fill(url: str) -> None:
    db = Database(url)
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with db.session.begin() as session:
        session.add_all(
            Order(
                number=f"2026-{n:06}",
                status="paid",
                total=Decimal("99.50"),
                note="leave it at the door",
                customer_id=n % 100,
                created_at=datetime(2026, 1, 1, tzinfo=UTC),
                paid=True,
            )
            for n in range(ROWS)
        )
    async with db.engine.connect() as connection:
        await (await connection.execution_options(isolation_level="AUTOCOMMIT")).exec_driver_sql("VACUUM ANALYZE")
    await db.dispose()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rounds", type=int, nargs="?", default=15)
    options.add_argument("--only", default="", help="variants whose names contain one of these, by commas")
    given = options.parse_args()
    wanted = [part for part in given.only.split(",") if part]
    with embedded.server(durable=False) as server:
        asyncio.run(fill(server.url))
        names = [name for name in Variants(server.url).all() if not wanted or any(part in name for part in wanted)]
        names = names if BASE in names else [BASE, *names]
        on_the_wire = asyncio.run(trips(server.url, names))
        found = asyncio.run(measure(server.url, names, given.rounds))
    print(f"{'':38} {'us':>8} {'CPU us':>8} {'x pool':>8} {'trips':>6}   ({given.rounds} rounds of {READS} reads)")
    for name, times in found.items():
        wall, cpu = (statistics.median(column) for column in zip(*times, strict=True))
        ratio = statistics.median(mine[0] / base[0] for mine, base in zip(times, found[BASE], strict=True))
        print(f"{name:38} {wall:8.1f} {cpu:8.1f} {ratio:8.2f} {on_the_wire[name]:6.1f}")


if __name__ == "__main__":
    main()
