"""The shop on a PostgreSQL of its own: each test's writes are undone, and only the tests' databases are in reach."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from alembic import command
from alembic.config import Config
from verdigris import Database
from verdigris.testing import standing_in

from shop.models import Address, Category, Customer, Product, Tag

with pytest.MonkeyPatch.context() as patch:
    # Nobody listens there: what escapes the fixtures below reaches no database at all.
    patch.setenv("VERDIGRIS_DATABASE_URL", "postgresql://127.0.0.1:1/shop_test")
    from shop.database import db
    from shop.main import app


@pytest.fixture(scope="session")
def alembic() -> Callable[[str], Config]:
    """Alembic's configuration for the database of a URL."""

    def configure(url: str) -> Config:
        config = Config(Path(__file__).parents[1] / "alembic.ini")
        config.attributes["url"] = url
        return config

    return configure


@pytest.fixture(scope="session")
def verdigris_schema(alembic: Callable[[str], Config]) -> Callable[[str], None]:
    """Let the tests' databases hold what the migrations make."""
    return lambda url: command.upgrade(alembic(url), "head")


@pytest.fixture
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """The shop's database: a sandbox, or the database of its own that a test takes as `verdigris_database`."""
    own = "verdigris_database" in request.fixturenames
    substitute = request.getfixturevalue("verdigris_database" if own else "verdigris_sandbox")
    with standing_in(substitute, db):
        yield db


@pytest.fixture
async def client(database: Database) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the shop, without a network between."""
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.fixture
async def served(verdigris_database: Database, database: Database) -> AsyncIterator[str]:
    """The address of the shop, served over TCP: for streams that break off and for websockets."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - uvicorn offers nothing to wait for
        await asyncio.sleep(0.01)
    yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    server.should_exit = True
    await serving


@dataclass(frozen=True, slots=True)
class Stocked:
    """A customer with an address, and two products with ten pieces each: one for 20.00 and one for 50.00."""

    customer_id: int
    address_id: int
    product_ids: tuple[int, int]

    def order(self, *quantities: int) -> dict[str, Any]:
        """An order of so many pieces of the first product, and of the second."""
        lines = [
            {"product_id": product, "quantity": quantity}
            for product, quantity in zip(self.product_ids, quantities, strict=False)
        ]
        return {"customer_id": self.customer_id, "address_id": self.address_id, "lines": lines}


@pytest.fixture
async def stocked(database: Database) -> Stocked:
    home = Category(slug="home", name="Home")
    lamps = Category(slug="home-lamps", name="Lamps", parent=home)
    copper = Product(sku="L-1", name="copper lamp", price=Decimal(20), stock=10, category=lamps)
    oak = Product(sku="L-2", name="oak lamp", price=Decimal(50), stock=10, category=lamps, tags=[Tag(name="gift")])
    address = Address(street="Quay 1", city="Ghent", postcode="9000", country="BE")
    ada = Customer(email="buyer@example.com", name="Ada", addresses=[address])
    async with database.session.begin() as session:
        session.add(home)
        await session.flush()  # categories have ids in this order
        session.add_all([lamps, copper])
        await session.flush()
        session.add_all([oak, ada])
    return Stocked(ada.id, address.id, (copper.id, oak.id))
