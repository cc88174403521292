"""The export streams on a session of its own."""

import asyncio
import json

import httpx
from verdigris import bulk

from shop.models import Order


async def test_an_export_has_one_line_per_order(client: httpx.AsyncClient, stocked):
    placed = [(await client.post("/orders", json=stocked.order(1))).json()["id"] for _ in range(3)]

    async with client.stream("GET", "/exports/orders") as answer:
        lines = [json.loads(line) async for line in answer.aiter_lines()]

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [line["id"] for line in lines] == placed
    assert lines[0]["customer"]["name"] == "Ada"


async def test_a_client_that_leaves_in_the_middle_leaves_no_connection_behind(served: str, stocked, database):
    order = {"customer_id": stocked.customer_id, "address_id": stocked.address_id, "total": 1}
    async with database.session.begin() as session:
        await bulk.insert(session, Order, (order for _ in range(20_000)))

    async with httpx.AsyncClient(base_url=served) as client, client.stream("GET", "/exports/orders") as answer:
        await anext(answer.aiter_lines())
        held = database.pool_status().in_use

    assert held == 1
    async with asyncio.timeout(5):
        while database.pool_status().in_use:  # noqa: ASYNC110 - the server ends on its own time
            await asyncio.sleep(0.01)
