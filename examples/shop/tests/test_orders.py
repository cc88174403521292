"""Orders are placed and cancelled as a whole or not at all."""

import asyncio

import httpx


async def stock(client: httpx.AsyncClient, stocked) -> list[int]:
    return [(await client.get(f"/products/{product}")).json()["stock"] for product in stocked.product_ids]


async def test_an_order_takes_its_pieces_from_stock(client: httpx.AsyncClient, stocked):
    placed = await client.post("/orders", json=stocked.order(3, 1))

    assert placed.status_code == 201
    assert placed.json()["total"] == "110.00"
    assert [(line["product"]["name"], line["quantity"]) for line in placed.json()["lines"]] == [
        ("copper lamp", 3),
        ("oak lamp", 1),
    ]
    assert await stock(client, stocked) == [7, 9]
    assert (await client.get(f"/orders/{placed.json()['id']}")).json() == placed.json()


async def test_an_order_for_more_than_there_is_takes_nothing(client: httpx.AsyncClient, stocked):
    refused = await client.post("/orders", json=stocked.order(3, 11))

    assert refused.status_code == 409
    assert await stock(client, stocked) == [10, 10]
    assert (await client.get("/orders")).json() == []


async def test_an_order_names_known_things(client: httpx.AsyncClient, stocked):
    order = stocked.order(1)

    assert (await client.post("/orders", json={**order, "address_id": 0})).status_code == 422
    assert (await client.post("/orders", json={**order, "customer_id": 0})).status_code == 422
    assert (await client.post("/orders", json={**order, "lines": order["lines"] * 2})).status_code == 422
    assert (await client.get("/orders/1")).status_code == 404
    assert (await client.post("/orders/1/cancel")).status_code == 404


async def test_an_order_is_read_with_all_that_belongs_to_it_in_one_query(
    client: httpx.AsyncClient, stocked, verdigris_queries
):
    placed = (await client.post("/orders", json=stocked.order(1, 1))).json()

    with verdigris_queries.at_most(1):
        read = (await client.get(f"/orders/{placed['id']}")).json()

    assert read["customer"]["name"] == "Ada"
    assert read["address"]["city"] == "Ghent"
    assert read["payments"] == []


async def test_a_cancelled_order_puts_its_pieces_back_once(client: httpx.AsyncClient, stocked):
    placed = (await client.post("/orders", json=stocked.order(3, 1))).json()

    cancelled = await client.post(f"/orders/{placed['id']}/cancel")
    again = await client.post(f"/orders/{placed['id']}/cancel")

    assert cancelled.json()["status"] == "cancelled"
    assert again.status_code == 409
    assert await stock(client, stocked) == [10, 10]


async def test_orders_are_listed_by_status(client: httpx.AsyncClient, stocked):
    kept, dropped = [(await client.post("/orders", json=stocked.order(1))).json()["id"] for _ in range(2)]
    await client.post(f"/orders/{dropped}/cancel")

    pending = (await client.get("/orders", params={"status": "pending"})).json()

    assert [order["id"] for order in pending] == [kept]
    assert [order["id"] for order in (await client.get("/orders")).json()] == [dropped, kept]


async def test_orders_that_race_for_one_product_all_succeed(
    client: httpx.AsyncClient, stocked, verdigris_database, caplog
):
    """Under SERIALIZABLE all but one of them lose at first; each loser runs again from its first statement."""
    caplog.set_level("INFO", logger="verdigris")

    answers = await asyncio.gather(*(client.post("/orders", json=stocked.order(2)) for _ in range(3)))

    assert [answer.status_code for answer in answers] == [201] * 3
    assert (await stock(client, stocked))[0] == 4
    assert "runs again after serialization" in caplog.text
