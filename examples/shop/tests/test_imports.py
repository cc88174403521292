"""Products come in by CSV and NDJSON, all of a file or nothing of it."""

import httpx
import pytest

CSV = "text/csv"
NDJSON = "application/x-ndjson"
HEAD = "category,sku,name,price,stock\n"


async def send(client: httpx.AsyncClient, content: str | bytes, kind: str) -> httpx.Response:
    return await client.post("/imports/products", files={"file": ("products", content, kind)})


async def names(client: httpx.AsyncClient) -> list[str]:
    return [product["name"] for product in (await client.get("/products", params={"limit": 100})).json()]


async def test_a_csv_file_adds_its_products(client: httpx.AsyncClient, stocked):
    rows = "".join(f"home-lamps,C-{number},shade {number},9.90,5\n" for number in range(50))

    answer = await send(client, HEAD + rows, CSV)

    assert answer.status_code == 201
    assert answer.json()["rows"] == 50
    assert "shade 49" in await names(client)


async def test_an_ndjson_file_adds_its_products(client: httpx.AsyncClient, stocked):
    row = '{"category": "home-lamps", "sku": "N-1", "name": "wick", "price": "0.50", "stock": 900}\n'

    answer = await send(client, row, NDJSON)

    assert answer.json()["rows"] == 1
    assert "wick" in (await client.get("/products", params={"words": "wicks"})).text


@pytest.mark.parametrize(
    ("file", "status", "reason"),
    [
        ((HEAD + "home-lamps,X-1,fine,1.00,1\nhome-lamps,X-2,bad,one,1\n", CSV), 422, "product 2: price"),
        ((HEAD + "home-lamps,X-1,fine,1.00,1\nboats,X-2,bad,1.00,1\n", CSV), 422, "product 2: no category 'boats'"),
        ((HEAD + "home-lamps,X-1,fine,1.00,1\nhome-lamps,L-1,taken,1.00,1\n", CSV), 409, ""),
        (('{"category": "home-lamps"', NDJSON), 422, "unreadable after product 0"),
        ((b"\xff\xfe\x00", NDJSON), 422, "unreadable after product 0"),
        (("[]", "application/json"), 415, "application/json"),
    ],
)
async def test_a_file_with_one_wrong_product_adds_nothing(client: httpx.AsyncClient, stocked, file, status, reason):
    answer = await send(client, *file)

    assert answer.status_code == status
    assert reason in answer.text
    assert await names(client) == ["copper lamp", "oak lamp"]
