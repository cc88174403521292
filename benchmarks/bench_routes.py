"""What a route costs with the usual recipe, with a request's session and with `db.read()`, the answers being equal.

    python benchmarks/bench_routes.py [ROUNDS] [--scenarios row,page20,nested20,nested100]

The applications are those of `benchmarks/reads` (models, schemas, routes, data), asked in process: no server, no socket
to a client; PostgreSQL is a private one. Every application has its batch in each round, each round beginning with
another; printed are medians over the rounds of this process's CPU for a request, and of each round's ratio to the
recipe. What a server and its clients add is the same for all, and measured there.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import json
import statistics
import time
from typing import TYPE_CHECKING, Any

from asgi import scope
from reads import dataset
from reads.scenarios import SCENARIOS, Scenario
from verdigris import embedded

if TYPE_CHECKING:
    from fastapi import FastAPI

PEERS = ("sqlalchemy_recipe", "verdigris_request", "verdigris_read")
REQUESTS = 40
_POSTGRES = {"max_connections": 600, "autovacuum": False}


async def receive() -> dict[str, Any]:
    return {"type": "http.request", "body": b"", "more_body": False}


async def ask(app: FastAPI, path: str) -> bytes:
    """Return the body of an answer."""
    where, _, query = path.partition("?")
    body = bytearray()

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit(f"{path} was answered with {message['status']}")
        body.extend(message.get("body", b""))

    await app(scope(where, query), receive, send)
    return bytes(body)


async def batch(app: FastAPI, paths: list[str]) -> float:
    """Return the CPU that a request took, in microseconds."""
    gc.collect()
    gc.disable()
    try:
        began = time.process_time()
        for path in paths:
            await ask(app, path)
        return (time.process_time() - began) / len(paths) * 1e6
    finally:
        gc.enable()


async def measure(apps: dict[str, FastAPI], scenario: Scenario, rounds: int) -> None:
    paths, names = scenario.paths()[:REQUESTS], list(apps)
    expected = [json.loads(await ask(apps[names[0]], path)) for path in paths[:5]]
    for name in names:
        if [json.loads(await ask(apps[name], path)) for path in paths[:5]] != expected:
            raise SystemExit(f"{name} answers something else")
        await batch(apps[name], paths)
    taken: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            taken[name].append(await batch(apps[name], paths))
    print(f"{scenario.title}: CPU of one request, median of {rounds} rounds of {len(paths)}")
    for name, times in taken.items():
        ratio = statistics.median(mine / base for mine, base in zip(times, taken[names[0]], strict=True))
        print(f"  {name:20} {statistics.median(times):9.1f} µs  x {ratio:.2f}")


async def run(url: str, scenarios: list[str], rounds: int) -> None:
    apps = {name: importlib.import_module(f"reads.peers.{name}").app(url) for name in PEERS}
    async with contextlib.AsyncExitStack() as stack:
        for app in apps.values():
            await stack.enter_async_context(app.router.lifespan_context(app))
        for name in scenarios:
            await measure(apps, SCENARIOS[name], rounds)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("rounds", type=int, nargs="?", default=9)
    options.add_argument("--scenarios", default=",".join(SCENARIOS), help="by commas")
    given = options.parse_args()
    with embedded.server(durable=False, settings=_POSTGRES) as server:
        asyncio.run(dataset.fill(server.url.replace("+asyncpg", "")))
        asyncio.run(run(server.url, given.scenarios.split(","), given.rounds))


if __name__ == "__main__":
    main()
