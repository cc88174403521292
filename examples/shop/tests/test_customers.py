"""Customers, their addresses and their orders."""

import httpx

ADA = {
    "email": "ada@example.com",
    "name": "Ada",
    "addresses": [{"street": "Quay 1", "city": "Ghent", "postcode": "9000", "country": "BE"}],
}


async def test_a_new_customer_is_stored_with_its_addresses(client: httpx.AsyncClient):
    created = await client.post("/customers", json=ADA)

    read = await client.get(f"/customers/{created.json()['id']}")
    assert created.status_code == 201
    assert read.json() == created.json()
    assert [address["city"] for address in read.json()["addresses"]] == ["Ghent"]


async def test_an_email_address_that_is_known_is_a_conflict(client: httpx.AsyncClient):
    await client.post("/customers", json=ADA)

    again = await client.post("/customers", json=ADA)

    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert "ada@example.com" not in again.text


async def test_a_customer_can_be_renamed(client: httpx.AsyncClient):
    path = f"/customers/{(await client.post('/customers', json=ADA)).json()['id']}"

    changed = await client.patch(path, json={"name": "Ada King"})

    assert changed.status_code == 200
    assert (await client.get(path)).json()["name"] == "Ada King"


async def test_an_unknown_customer_is_not_found(client: httpx.AsyncClient):
    assert (await client.get("/customers/1")).status_code == 404
    assert (await client.patch("/customers/1", json={"name": "Nobody"})).status_code == 404


async def test_an_id_that_no_bigint_can_hold_is_the_clients_fault(client: httpx.AsyncClient):
    assert (await client.get(f"/customers/{2**70}")).status_code == 422


async def test_the_orders_of_a_customer_come_newest_first_page_by_page(client: httpx.AsyncClient, stocked):
    placed = [(await client.post("/orders", json=stocked.order(1))).json()["id"] for _ in range(3)]

    first = await client.get(f"/customers/{stocked.customer_id}/orders", params={"limit": 2})
    second = await client.get(first.links["next"]["url"])

    assert [order["id"] for order in first.json()] == [placed[2], placed[1]]
    assert [order["id"] for order in second.json()] == [placed[0]]
    assert "next" not in second.links
