"""What the faults strike: a unit of work that adds one, and a service that does it in each way of having a session."""

import asyncio
from typing import Annotated

import httpx
from fastapi import APIRouter, Depends, FastAPI
from sqlalchemy import text

from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession

ADD = text("UPDATE account SET balance = balance + 1 WHERE id = 1")
PID = text("SELECT pg_backend_pid()")


class Work:
    """Adds one to the first account; in the first attempt something may strike after that."""

    def __init__(self, strike=None):
        self.strike = strike
        self.pids = []  # of the backends that the attempts ran on

    async def __call__(self, session):
        self.pids.append(await session.scalar(PID))
        await session.execute(ADD)
        if self.strike is not None and len(self.pids) == 1:
            await self.strike(session)

    @property
    def attempts(self):
        return len(self.pids)


class Service:
    """One route for each way: the plain dependency, the route class, and a route that may be repeated."""

    def __init__(self, db):
        self.db = db
        self.work = None
        self.app = FastAPI()
        install(self.app, db)
        session = Annotated[AsyncSession, Depends(db.request_session, scope="function")]
        plain, routed = APIRouter(), APIRouter(route_class=Route)

        async def add(session: session) -> dict[str, bool]:
            return await self.work(session) or {"stored": True}

        def marked(**policy):
            async def endpoint(session: session) -> dict[str, bool]:
                return await add(session)

            return retrying(**policy)(endpoint)

        for way in (plain.get, plain.post):
            way("/plain", response_model=None)(add)
        routed.post("/route", response_model=None)(add)
        routed.post("/retried", response_model=None)(marked())
        routed.post("/idempotent", response_model=None)(marked(idempotent=True))
        self.app.include_router(plain)
        self.app.include_router(routed)

    async def ask(self, way, work, method="POST"):
        """Send a request that does this work, and return the answer."""
        self.work = work
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, f"/{way}")


def come_back(answer):
    """Say that an answer sends its client away for a moment, without a word of SQL or a value."""
    assert answer.status_code == 503, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert "UPDATE" not in answer.text
    return True


def name_of(answer):
    """Return the problem's name."""
    return answer.json()["type"].rpartition(":")[2]


async def driver_of(session):
    """Return the driver's connection under a session."""
    return (await (await session.connection()).get_raw_connection()).driver_connection


async def noticed(driver):
    """Wait until the driver has seen that its connection is gone."""
    async with asyncio.timeout(10):
        while not driver.is_closed():
            await asyncio.sleep(0.01)
