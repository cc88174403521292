"""The category tree, products, tags and reviews."""

import httpx
import pytest


async def test_the_categories_come_as_a_tree(client: httpx.AsyncClient, stocked):
    tree = (await client.get("/categories")).json()

    assert [(top["slug"], [below["slug"] for below in top["children"]]) for top in tree] == [("home", ["home-lamps"])]


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"words": "copper lamps"}, ["copper lamp"]),
        ({"words": "anvil"}, []),
        ({"category": "home"}, ["copper lamp", "oak lamp"]),
        ({"category": "garden"}, []),
        ({"tag": "gift"}, ["oak lamp"]),
        ({"cheapest": "30"}, ["oak lamp"]),
        ({"dearest": "30"}, ["copper lamp"]),
        ({"cheapest": "10", "dearest": "20", "words": "lamp"}, ["copper lamp"]),
    ],
)
async def test_a_search_narrows_products(client: httpx.AsyncClient, stocked, filters, found):
    answer = await client.get("/products", params=filters)

    assert [product["name"] for product in answer.json()] == found


async def test_pages_of_a_search_show_each_product_once(client: httpx.AsyncClient, stocked):
    first = await client.get("/products", params={"words": "lamp", "limit": 1})
    second = await client.get(first.links["next"]["url"])
    third = await client.get(second.links["next"]["url"])

    assert [page.json()[0]["name"] for page in (first, second)] == ["copper lamp", "oak lamp"]
    assert third.json() == []


async def test_a_page_of_products_takes_two_queries_however_long_it_is(
    client: httpx.AsyncClient, stocked, verdigris_queries
):
    with verdigris_queries.at_most(2):
        await client.get("/products")


async def test_a_new_product_has_its_category_and_no_tags(client: httpx.AsyncClient, stocked):
    new = {"category": "home-lamps", "sku": "L-3", "name": "paper lamp", "price": "5.00", "stock": 1}

    created = await client.post("/products", json=new)

    assert created.status_code == 201
    assert created.json()["category"]["slug"] == "home-lamps"
    assert created.json()["tags"] == []
    assert (await client.get(f"/products/{created.json()['id']}")).json() == created.json()


async def test_a_product_needs_a_known_category_and_a_free_sku(client: httpx.AsyncClient, stocked):
    new = {"category": "home-lamps", "sku": "L-1", "name": "paper lamp", "price": "5.00", "stock": 1}

    assert (await client.post("/products", json=new)).status_code == 409
    assert (await client.post("/products", json={**new, "category": "boats"})).status_code == 422


async def test_a_price_can_be_changed(client: httpx.AsyncClient, stocked):
    path = f"/products/{stocked.product_ids[0]}"

    changed = await client.patch(path, json={"price": "21.50"})

    assert changed.json()["price"] == "21.50"
    assert (await client.patch(path, json={"price": "-1"})).status_code == 422
    assert (await client.get(path)).json()["price"] == "21.50"


async def test_tags_are_replaced_and_new_ones_are_added(client: httpx.AsyncClient, stocked):
    path = f"/products/{stocked.product_ids[1]}"

    tagged = await client.put(f"{path}/tags", json={"tags": ["new", "gift", "oak"]})
    replaced = await client.put(f"{path}/tags", json={"tags": ["oak"]})

    assert [tag["name"] for tag in tagged.json()["tags"]] == ["gift", "new", "oak"]
    assert [tag["name"] for tag in replaced.json()["tags"]] == ["oak"]
    assert (await client.get(path)).json() == replaced.json()


async def test_an_unknown_product_is_not_found(client: httpx.AsyncClient):
    assert (await client.get("/products/1")).status_code == 404
    assert (await client.patch("/products/1", json={"stock": 1})).status_code == 404
    assert (await client.put("/products/1/tags", json={"tags": []})).status_code == 404


async def test_a_customer_reviews_a_product_once(client: httpx.AsyncClient, stocked):
    path = f"/products/{stocked.product_ids[0]}/reviews"
    review = {"customer_id": stocked.customer_id, "rating": 5, "body": "Bright."}

    written = await client.post(path, json=review)
    again = await client.post(path, json=review)

    assert written.status_code == 201
    assert again.status_code == 409
    assert (await client.get(path)).json() == [written.json()]


async def test_a_review_by_nobody_is_a_conflict(client: httpx.AsyncClient, stocked):
    review = {"customer_id": 0, "rating": 5, "body": "Bright."}

    assert (await client.post(f"/products/{stocked.product_ids[0]}/reviews", json=review)).status_code == 409
