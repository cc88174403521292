"""Payments, and a constraint that speaks at COMMIT only."""

import httpx
import pytest

CARD = {"method": "card", "amount": "20.00", "reference": "r-1"}


@pytest.fixture
async def order(client: httpx.AsyncClient, stocked) -> str:
    """The path of an order of 40.00."""
    return f"/orders/{(await client.post('/orders', json=stocked.order(2))).json()['id']}"


async def test_an_order_is_paid_when_nothing_is_owed(client: httpx.AsyncClient, order):
    first = await client.post(f"{order}/payments", json=CARD)
    half = (await client.get(order)).json()["status"]
    await client.post(f"{order}/payments", json={**CARD, "reference": "r-2"})

    paid = (await client.get(order)).json()
    assert first.status_code == 201
    assert half == "pending"
    assert paid["status"] == "paid"
    assert [payment["reference"] for payment in paid["payments"]] == ["r-1", "r-2"]


async def test_a_reference_that_was_used_before_is_a_conflict_found_at_commit(client: httpx.AsyncClient, order):
    await client.post(f"{order}/payments", json=CARD)

    again = await client.post(f"{order}/payments", json=CARD)

    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    read = (await client.get(order)).json()
    assert read["status"] == "pending"
    assert len(read["payments"]) == 1


async def test_more_than_is_owed_is_refused(client: httpx.AsyncClient, order):
    assert (await client.post(f"{order}/payments", json={**CARD, "amount": "40.01"})).status_code == 409


async def test_a_cancelled_order_takes_no_payment(client: httpx.AsyncClient, order):
    await client.post(f"{order}/cancel")

    assert (await client.post(f"{order}/payments", json=CARD)).status_code == 409


async def test_an_unknown_order_takes_no_payment(client: httpx.AsyncClient):
    assert (await client.post("/orders/1/payments", json=CARD)).status_code == 404
