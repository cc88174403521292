"""Visitors for a running, seeded shop: `python -m shop.traffic http://127.0.0.1:8000 [SECONDS]` drives every route."""

import asyncio
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import httpx
from websockets.asyncio.client import connect

Counts = dict[str, Counter[int]]
"""How often each route answered with each status; a websocket's accepted handshake is a 101."""

METHODS = ("delete", "get", "patch", "post", "put")


class UnexpectedAnswerError(Exception):
    """A route answered what the visitor had no reason to expect, or a route of the shop was never visited."""


@dataclass(slots=True)
class Visitor:
    """One client that knows the seeded shop and what each of its requests must be answered with."""

    client: httpx.AsyncClient
    draw: random.Random
    counts: Counts = field(default_factory=dict)

    async def call(self, route: str, path: str, expected: int = 200, **content: Any) -> Any:
        """Send one request and return the decoded body; `route` is the method and the path as the shop declares it."""
        response = await self.client.request(route.split(maxsplit=1)[0], path, **content)
        self.note(route, response.status_code)
        if response.status_code != expected:
            raise UnexpectedAnswerError(
                f"{route} answered {response.status_code} instead of {expected}: {response.text[:300]}"
            )
        return response.json() if response.headers.get("content-type") == "application/json" else None

    def note(self, route: str, status: int) -> None:
        self.counts.setdefault(route, Counter())[status] += 1

    def number(self, last: int) -> int:
        return self.draw.randint(1, last)

    def word(self) -> str:
        return uuid4().hex[:16]


async def register(visitor: Visitor) -> dict[str, Any]:
    address = {"street": "Quay 1", "city": "Ghent", "postcode": "9000", "country": "BE"}
    new = {"email": f"{visitor.word()}@example.com", "name": "Eve", "addresses": [address]}
    customer: dict[str, Any] = await visitor.call("POST /customers", "/customers", 201, json=new)
    return customer


async def place(visitor: Visitor, customer: dict[str, Any]) -> dict[str, Any]:
    products = await visitor.call("GET /products", "/products", params={"after": visitor.number(4_900), "limit": 5})
    lines = [{"product_id": product["id"], "quantity": 1} for product in products if product["stock"] > 100]
    new = {"customer_id": customer["id"], "address_id": customer["addresses"][0]["id"], "lines": lines}
    order: dict[str, Any] = await visitor.call("POST /orders", "/orders", 201, json=new)
    return order


async def customers(visitor: Visitor) -> None:
    customer = await register(visitor)
    path = f"/customers/{customer['id']}"
    await visitor.call("GET /customers/{id}", path)
    await visitor.call("PATCH /customers/{id}", path, json={"name": "Eve Moreau"})
    await visitor.call("GET /customers/{id}/orders", f"/customers/{visitor.number(10_000)}/orders")
    taken = {"email": customer["email"], "name": "Mallory"}
    await visitor.call("POST /customers", "/customers", 409, json=taken)


async def browse(visitor: Visitor) -> None:
    await visitor.call("GET /categories", "/categories")
    for filters in (
        {"words": "copper lamp"},
        {"category": "kitchen"},
        {"tag": "gift"},
        {"cheapest": 20, "dearest": 30},
    ):
        await visitor.call("GET /products", "/products", params={**filters, "after": visitor.number(2_000)})
    product = visitor.number(5_000)
    await visitor.call("GET /products/{id}", f"/products/{product}")
    await visitor.call("GET /products/{product_id}/reviews", f"/products/{product}/reviews")
    await visitor.call("GET /products/{id}", "/products/999999999", 404)


async def stock(visitor: Visitor) -> None:
    new = {"category": "office-lights-fine", "sku": visitor.word(), "name": "oak lamp", "price": "49.90", "stock": 500}
    product = await visitor.call("POST /products", "/products", 201, json=new)
    path = f"/products/{product['id']}"
    await visitor.call("PATCH /products/{id}", path, json={"price": "39.90"})
    await visitor.call("PUT /products/{id}/tags", f"{path}/tags", json={"tags": ["new", "handmade"]})
    customer = await register(visitor)
    review = {"customer_id": customer["id"], "rating": 5, "body": "Bright."}
    await visitor.call("POST /products/{product_id}/reviews", f"{path}/reviews", 201, json=review)
    await visitor.call("POST /products/{product_id}/reviews", f"{path}/reviews", 409, json=review)


async def deliver(visitor: Visitor) -> None:
    rows = [
        {"category": "bath-storage-fine", "sku": visitor.word(), "name": "tall rack", "price": "19.00", "stock": 40}
        for _ in range(50)
    ]
    ndjson = "".join(json.dumps(row) + "\n" for row in rows)
    file = ("products.ndjson", ndjson.encode(), "application/x-ndjson")
    await visitor.call("POST /imports/products", "/imports/products", 201, files={"file": file})
    csv = f"category,sku,name,price,stock\nbath-storage-fine,{visitor.word()},round tray,7.50,12\n"
    file = ("products.csv", csv.encode(), "text/csv")
    await visitor.call("POST /imports/products", "/imports/products", 201, files={"file": file})
    await visitor.call("POST /imports/products", "/imports/products", 409, files={"file": file})


async def buy(visitor: Visitor) -> None:
    customer = await register(visitor)
    order = await place(visitor, customer)
    path, payments = f"/orders/{order['id']}", "POST /orders/{order_id}/payments"
    payment = {"method": "card", "amount": "1.00", "reference": visitor.word()}
    await visitor.call(payments, f"{path}/payments", 201, json=payment)
    # The reference is taken: PostgreSQL says so at COMMIT only, and the answer is a 409 all the same.
    await visitor.call(payments, f"{path}/payments", 409, json=payment)
    await visitor.call("GET /orders/{id}", path)
    await visitor.call("POST /orders/{id}/cancel", f"{path}/cancel")
    await visitor.call("POST /orders/{id}/cancel", f"{path}/cancel", 409)


async def review_trade(visitor: Visitor) -> None:
    await visitor.call("GET /orders", "/orders", params={"status": "shipped", "after": visitor.number(32_000)})
    await visitor.call("GET /dashboard", "/dashboard")
    await visitor.call("GET /exports/orders", "/exports/orders", params={"days": 2})
    report = await visitor.call("POST /reports", "/reports", 202, json={"days": 7})
    await visitor.call("GET /reports/{id}", f"/reports/{report['id']}")
    await visitor.call("GET /health", "/health")


async def watch(visitor: Visitor) -> None:
    address = str(visitor.client.base_url).replace("http", "ws", 1).rstrip("/")
    async with connect(f"{address}/events") as socket:
        visitor.note("WEBSOCKET /events", 101)
        for order in (visitor.number(32_000), visitor.number(32_000)):
            await socket.send(json.dumps({"order": order}))
            told = json.loads(await socket.recv())
            if told.get("id") != order:
                raise UnexpectedAnswerError(f"WEBSOCKET /events told {told} when asked for order {order}")


VISITS: Sequence[Callable[[Visitor], Awaitable[None]]] = (
    customers,
    browse,
    stock,
    deliver,
    buy,
    review_trade,
    watch,
)


async def drive(base_url: str, *, seconds: float = 5.0, visitors: int = 8) -> Counts:
    """Let `visitors` use every route, concurrently, for about `seconds`, and return the answers by route and status.

    Raises UnexpectedAnswerError as soon as a route answers another status than it must, and at the end where the
    shop's own OpenAPI document has a route that nobody visited.
    """
    until = time.monotonic() + seconds
    limits = httpx.Limits(max_connections=visitors)
    async with httpx.AsyncClient(base_url=base_url, timeout=30.0, limits=limits) as client:
        everyone = [Visitor(client, random.Random(number)) for number in range(visitors)]
        try:
            async with asyncio.TaskGroup() as street:
                for number, visitor in enumerate(everyone):
                    street.create_task(stay(visitor, first=number, until=until))
        except ExceptionGroup as group:
            raise group.exceptions[0] from None
        counts = total(everyone)
        document = (await client.get("/openapi.json")).json()
    unvisited = declared(document) - counts.keys()
    if unvisited:
        raise UnexpectedAnswerError(f"nobody visited {', '.join(sorted(unvisited))}")
    return counts


async def stay(visitor: Visitor, *, first: int, until: float) -> None:
    """Make every visit once, starting with a different one per visitor, and go on until the time is up."""
    visits = [*VISITS[first % len(VISITS) :], *VISITS[: first % len(VISITS)]]
    while True:
        for visit in visits:
            await visit(visitor)
        if time.monotonic() >= until:
            return


def total(everyone: Sequence[Visitor]) -> Counts:
    counts: Counts = {}
    for visitor in everyone:
        for route, statuses in visitor.counts.items():
            counts.setdefault(route, Counter()).update(statuses)
    return dict(sorted(counts.items()))


def declared(document: dict[str, Any]) -> set[str]:
    return {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method in METHODS
        if method in operations
    }


def main() -> None:
    address = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 5.0
    for route, statuses in asyncio.run(drive(address, seconds=seconds)).items():
        answers = ", ".join(f"{status} × {times}" for status, times in sorted(statuses.items()))
        sys.stdout.write(f"{route:45} {answers}\n")


if __name__ == "__main__":
    main()
