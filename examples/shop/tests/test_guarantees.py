"""What the library promises the shop, where the shop's own routes never go: errors that a handler hides."""

from contextlib import suppress

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, StreamingResponse
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from verdigris.fastapi import Route, install

from shop.database import SessionDep, db
from shop.models import Customer

careless = APIRouter(route_class=Route)


@careless.post("/swallow")
async def swallow(session: SessionDep) -> str:
    session.add_all([Customer(email="same@example.com", name="A"), Customer(email="same@example.com", name="B")])
    with suppress(IntegrityError):
        await session.flush()
    return "stored"


@careless.post("/refuse")
async def refuse(session: SessionDep) -> JSONResponse:
    session.add(Customer(email="refused@example.com", name="C"))
    await session.flush()
    return JSONResponse({"detail": "on second thoughts"}, status_code=409)


@careless.get("/stream")
async def stream(session: SessionDep) -> StreamingResponse:
    async def body():
        yield str(await session.scalar(select(func.count()).select_from(Customer)))

    return StreamingResponse(body())


@pytest.fixture
async def client(database):
    app = FastAPI()
    install(app, db)
    app.include_router(careless)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://careless") as client:
        yield client


async def customers() -> int:
    async with db.session() as session:
        return await session.scalar(select(func.count()).select_from(Customer)) or 0


async def test_a_swallowed_error_is_a_500_that_says_nothing_was_stored(client: httpx.AsyncClient):
    answer = await client.post("/swallow")

    assert answer.status_code == 500
    assert "nothing" in answer.text.lower()
    assert await customers() == 0


async def test_a_refusal_that_is_returned_stores_nothing(client: httpx.AsyncClient):
    answer = await client.post("/refuse")

    assert answer.status_code == 409
    assert await customers() == 0


async def test_a_stream_on_the_requests_session_is_told_what_to_use(client: httpx.AsyncClient):
    answer = await client.get("/stream")

    assert answer.status_code == 500
