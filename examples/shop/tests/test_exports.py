"""The export streams on a session of its own."""

import json

import httpx


async def test_an_export_has_one_line_per_order(client: httpx.AsyncClient, stocked):
    placed = [(await client.post("/orders", json=stocked.order(1))).json()["id"] for _ in range(3)]

    async with client.stream("GET", "/exports/orders") as answer:
        lines = [json.loads(line) async for line in answer.aiter_lines()]

    assert answer.headers["content-type"] == "application/x-ndjson"
    assert [line["id"] for line in lines] == placed
    assert lines[0]["customer"]["name"] == "Ada"


async def test_a_client_that_leaves_in_the_middle_leaves_no_connection_behind(served: str, stocked, db):
    async with httpx.AsyncClient(base_url=served) as client:
        await client.post("/orders", json=stocked.order(1))
        async with client.stream("GET", "/exports/orders"):
            pass

    assert db.pool().in_use == 0
