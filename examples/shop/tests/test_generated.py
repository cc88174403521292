"""Requests made up from the shop's own OpenAPI document, the same each time: no answer is a 5xx.

Three of four values are plausible, so that requests reach the database; the others are what clients should not send.
`make fuzz` has schemathesis do the same for longer.
"""

import json
import random
from typing import Any

import httpx

from shop.main import app
from shop.seed import Trade, seed

ROUNDS = 30  # requests for each operation
PLAUSIBLE = {
    "email": "eve{}@example.com",
    "category": "kitchen-lights",
    "country": "BE",
    "price": "9.50",
    "amount": "1.00",
    "words": "copper lamp",
    "tags": "gift",
    "reference": "ref-{}",
}
STRINGS = ("", " ", "\0", "a\0b", "x" * 5_000, "' OR 1=1 --", "%_\\", "\ud800", "1e400", "NaN", "-1", "é漢🙂")
INTEGERS = (-1, 0, 2**31 - 1, 2**31, 2**63 - 1, 2**63, 10**30)
DOCUMENT = app.openapi()
OPERATIONS = [(method, path, it) for path, item in DOCUMENT["paths"].items() for method, it in item.items()]


class Client:
    """Makes up what a schema describes, and now and then what it does not."""

    def __init__(self, draw: random.Random) -> None:
        self.draw = draw

    def value(self, schema: dict[str, Any], name: str = "") -> Any:
        match schema:
            case {"$ref": reference}:
                return self.value(DOCUMENT["components"]["schemas"][reference.rpartition("/")[2]], name)
            case {"anyOf": alternatives}:
                return self.value(self.draw.choice(alternatives), name)
            case {"enum": values}:
                return self.draw.choice(values)
            case {"type": "object", "properties": properties}:
                required = schema.get("required", ())
                present = [each for each in properties if each in required or self.draw.random() < 0.6]
                return {each: self.value(properties[each], each) for each in present}
            case {"type": "array", "items": items}:
                return [self.value(items, name) for _ in range(self.draw.choice((0, 1, 2, 3)))]
            case {"type": "integer"}:
                plausible = self.draw.randint(
                    max(1, int(schema.get("minimum", 1))), min(20, int(schema.get("maximum", 20)))
                )
                return self.either(plausible, INTEGERS)
            case {"type": "boolean"}:
                return self.draw.choice((True, False))
            case {"type": "null"}:
                return None
        return self.either(PLAUSIBLE.get(name, "word-{}").format(self.draw.randint(1, 10**6)), STRINGS)

    def either(self, plausible: Any, others: tuple[Any, ...]) -> Any:
        return plausible if self.draw.random() < 0.75 else self.draw.choice(others)

    def request(self, method: str, path: str, operation: dict[str, Any]) -> httpx.Request:
        query: dict[str, str] = {}
        for parameter in operation.get("parameters", ()):
            made = str(self.value(parameter["schema"], parameter["name"])).encode("utf-8", "replace").decode()
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", made)
            elif parameter.get("required") or self.draw.random() < 0.5:
                query[parameter["name"]] = made
        body = operation.get("requestBody", {}).get("content", {})
        url = httpx.URL("http://shop", path=path)
        if "multipart/form-data" in body:
            lines = [self.draw.choice(STRINGS[:-4]) for _ in range(3)]
            rows = [json.dumps(self.value({"$ref": "ProductIn"})) for _ in range(3)]
            file = (self.draw.choice(("a.csv", "a.ndjson", "a")), "\n".join([*rows, *lines]).encode(errors="replace"))
            return httpx.Request(method, url, params=query, files={"file": file})
        content = json.dumps(self.value(body["application/json"]["schema"])) if "application/json" in body else None
        return httpx.Request(method, url, params=query, content=content, headers={"content-type": "application/json"})


async def test_no_request_that_can_be_made_up_is_answered_with_a_5xx(database, client):
    await seed(database, trade=Trade(customers=20, products=30, orders=40, reviews=35))
    client._transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    draw = random.Random(1)
    maker, answers = Client(draw), []

    for method, path, operation in draw.sample(OPERATIONS * ROUNDS, len(OPERATIONS) * ROUNDS):
        request = maker.request(method, path, operation)
        sent = await request.aread()
        answers.append(((await client.send(request)).status_code, method, request.url, sent[:300]))

    assert [answer for answer in answers if answer[0] >= 500] == []
    assert {200, 201, 404, 409, 422} <= {answer[0] for answer in answers}  # it got through to the database
