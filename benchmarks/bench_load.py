"""What `load()` costs beside the same options written by hand: making the option, and whole reads with it.

    python benchmarks/bench_load.py [ROUNDS]

Reads run interleaved against one private server, a page of 20 orders with customer and lines through a session; the
ratio is the median of each round's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING, Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import joinedload, selectinload

from reads import dataset
from reads.models import Order
from reads.schemas import OrderOut
from verdigris import embedded, load

if TYPE_CHECKING:
    from collections.abc import Callable

READS = 60
CALLS = 2000


def by_hand() -> tuple[Any, ...]:
    return joinedload(Order.customer, innerjoin=True), selectinload(Order.lines)


def by_plan() -> tuple[Any, ...]:
    return (load(Order, OrderOut),)


VARIANTS: dict[str, Callable[[], tuple[Any, ...]]] = {"options by hand": by_hand, "load()": by_plan}


def microseconds(make: Callable[[], object]) -> float:
    """Return the least time of a call, over some batches."""
    batches = []
    for _ in range(7):
        began = time.perf_counter()
        for _ in range(CALLS):
            make()
        batches.append((time.perf_counter() - began) / CALLS)
    return min(batches) * 1e6


async def batch(maker: async_sessionmaker[Any], options: Callable[[], tuple[Any, ...]]) -> float:
    """Return milliseconds a read."""
    began = time.perf_counter()
    for number in range(READS):
        async with maker() as session:
            statement = select(Order).where(Order.id > number * 50).order_by(Order.id).limit(20)
            (await session.scalars(statement.options(*options()))).all()
    return (time.perf_counter() - began) / READS * 1e3


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    await dataset.fill(url.replace("+asyncpg", ""))
    engine = create_async_engine(url, pool_size=1, max_overflow=0)
    maker = async_sessionmaker(engine, expire_on_commit=False)
    found: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for number in range(rounds + 1):
        for name, options in VARIANTS.items():
            took = await batch(maker, options)
            if number:  # the first fills the caches
                found[name].append(took)
    await engine.dispose()
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with embedded.server(durable=False) as server:
        found = asyncio.run(measure(server.url, rounds))
    for name, times in found.items():
        ratio = statistics.median(mine / hand for mine, hand in zip(times, found["options by hand"], strict=True))
        made = microseconds(VARIANTS[name])
        print(f"{name:16} {made:7.2f} us to make   {statistics.median(times):6.2f} ms a read   {ratio:5.3f} x by hand")


if __name__ == "__main__":
    main()
