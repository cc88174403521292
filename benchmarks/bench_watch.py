"""What watching costs: one-row session reads bare, under our timings, and under a pair of event listeners.

    python benchmarks/bench_watch.py [ROUNDS]

All variants run interleaved against one private server; a round is one batch of reads of each. Printed are the medians
over the rounds, and the median of each round's ratio to the bare engine, which is what survives a busy machine.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from typing import TYPE_CHECKING

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from verdigris import embedded
from verdigris.performance import instrument

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

READS = 300
STATEMENT = text("select 1")


def bare(url: str) -> AsyncEngine:
    return create_async_engine(url, pool_size=1, max_overflow=0)


def timed(url: str) -> AsyncEngine:
    engine = bare(url)
    instrument(engine)
    return engine


def listened(url: str) -> AsyncEngine:
    engine = bare(url)
    times: list[float] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def before(*_: object) -> None:
        times.append(time.perf_counter())

    @event.listens_for(engine.sync_engine, "after_cursor_execute")
    def after(*_: object) -> None:
        times.append(time.perf_counter() - times.pop())

    return engine


VARIANTS: dict[str, Callable[[str], AsyncEngine]] = {"bare": bare, "instrument()": timed, "two listeners": listened}


async def batch(engine: AsyncEngine) -> float:
    """Return microseconds a read."""
    began = time.perf_counter()
    for _ in range(READS):
        async with AsyncSession(engine) as session:
            await session.execute(STATEMENT)
    return (time.perf_counter() - began) / READS * 1e6


async def measure(url: str, rounds: int) -> dict[str, list[float]]:
    engines = {name: make(url) for name, make in VARIANTS.items()}
    warm: list[Awaitable[float]] = [batch(engine) for engine in engines.values()]
    for each in warm:
        await each
    found: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(rounds):
        for name, engine in engines.items():
            found[name].append(await batch(engine))
    for engine in engines.values():
        await engine.dispose()
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    with embedded.server(durable=False) as server:
        found = asyncio.run(measure(server.url, rounds))
    for name, times in found.items():
        ratio = statistics.median(mine / base for mine, base in zip(times, found["bare"], strict=True))
        print(f"{name:16} {statistics.median(times):8.1f} us a read   {ratio:5.3f} x bare   ({rounds} rounds)")


if __name__ == "__main__":
    main()
