"""Health is what the database says, and a database that is away is a quick 503."""

import httpx

from shop.main import app


async def test_a_healthy_shop_says_so(client: httpx.AsyncClient):
    assert (await client.get("/health")).json() == {"status": "ok"}


async def test_without_its_database_the_shop_asks_to_come_back_later():
    transport = httpx.ASGITransport(app)  # and no fixture that gives it a database
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as client:
        answers = [await client.get(path) for path in ("/health", "/orders/1", "/dashboard")]

    assert [answer.status_code for answer in answers] == [503] * 3
    assert all(int(answer.headers["Retry-After"]) > 0 for answer in answers)


async def test_the_pools_figures_are_there_to_be_scraped(client: httpx.AsyncClient):
    answer = await client.get("/metrics")

    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'verdigris_pool_in_use{database="shop"} ' in answer.text
