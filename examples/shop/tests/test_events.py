"""The websocket answers each message on a session of its own."""

import json

import httpx
from websockets.asyncio.client import connect


async def test_a_socket_tells_where_an_order_stands(served: str, stocked):
    async with httpx.AsyncClient(base_url=served) as client:
        order = (await client.post("/orders", json=stocked.order(1))).json()["id"]

    async with connect(f"{served.replace('http', 'ws')}/events") as socket:
        answers = []
        for message in (json.dumps({"order": order}), '{"order": 0}', "hello"):
            await socket.send(message)
            answers.append(json.loads(await socket.recv()))

    assert answers[0]["status"] == "pending"
    assert answers[1] == {"error": "no order 0"}
    assert answers[2] == {"error": 'send {"order": <id>}'}


async def test_an_idle_socket_holds_no_connection(served: str, database):
    async with connect(f"{served.replace('http', 'ws')}/events") as socket:
        await socket.send('{"order": 1}')
        await socket.recv()

        assert database.pool_status().in_use == 0
