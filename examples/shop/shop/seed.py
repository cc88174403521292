"""A year of trade, the same each time: `python -m shop.seed` fills an empty, migrated database with 275,000 rows."""

import asyncio
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

from sqlalchemy import Table, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from verdigris import Base, Database, bulk

from shop.database import db
from shop.models import (
    Address,
    Category,
    Customer,
    Order,
    OrderLine,
    OrderStatus,
    Payment,
    PaymentMethod,
    Product,
    Review,
    Tag,
    product_tags,
)

Row = dict[str, Any]
Progress = Callable[[int, int], None]
"""Called with the rows that are stored and the rows there will be."""

FIRST = ("Ada", "Barbara", "Chen", "Dilan", "Edsger", "Farida", "Grace", "Hedy", "Ivan", "Joan", "Kofi", "Lin")
LAST = ("Abara", "Bloch", "Castro", "Dubois", "Eriksen", "Fuentes", "Goto", "Hopper", "Ito", "Jansen", "Khan")
CITIES = (("Ghent", "BE"), ("Porto", "PT"), ("Turku", "FI"), ("Graz", "AT"), ("Lyon", "FR"), ("Brno", "CZ"))
ROOMS = ("kitchen", "garden", "office", "bath", "nursery", "workshop")
KINDS = ("tools", "lights", "storage", "textiles")
GRADES = ("everyday", "fine")
LOOKS = ("blue", "copper", "folding", "heavy", "oak", "plain", "round", "silent", "tall", "woven")
THINGS = ("basket", "bench", "clock", "hook", "jar", "kettle", "lamp", "rack", "shelf", "stool", "tray", "vase")
TAGS = ("bargain", "fragile", "gift", "handmade", "new", "organic", "outdoor", "recycled", "small", "spare")
STATUSES = (OrderStatus.PENDING, OrderStatus.CANCELLED, *[OrderStatus.PAID] * 6, *[OrderStatus.SHIPPED] * 12)
PAID = (OrderStatus.PAID, OrderStatus.SHIPPED)


@dataclass(slots=True)
class Trade:
    """The shop's past: its size, and the baskets and totals on which orders, lines and payments must agree."""

    customers: int = 10_000
    products: int = 5_000
    orders: int = 32_000
    reviews: int = 15_000
    until: datetime = field(default_factory=lambda: datetime.now(UTC))
    prices: list[Decimal] = field(init=False)
    baskets: list[dict[int, int]] = field(init=False)
    """Of each order, the number of pieces by the product's index."""

    def __post_init__(self) -> None:
        draw = random.Random(1)
        self.prices = [Decimal(draw.randrange(99, 20_000)) / 100 for _ in range(self.products)]
        self.baskets = [
            {int(draw.random() ** 2 * self.products): draw.randint(1, 4) for _ in range(3 + order % 5)}
            for order in range(self.orders)
        ]

    def total(self, order: int) -> Decimal:
        return sum((self.prices[product] * pieces for product, pieces in self.baskets[order].items()), Decimal())

    def status(self, order: int) -> OrderStatus:
        return STATUSES[order % len(STATUSES)]

    def placed_at(self, order: int) -> datetime:
        return self.until - timedelta(days=365) * ((self.orders - order) / self.orders)

    def size(self) -> int:
        """The number of rows that `tables` yields."""
        lines = sum(len(basket) for basket in self.baskets)
        paid = sum(self.status(order) in PAID for order in range(self.orders))
        tags = sum(product % 5 for product in range(1, self.products + 1))
        categories = sum(1 for _ in category_rows())
        people = self.customers + self.customers // 2 + self.customers
        return people + categories + len(TAGS) + self.products + tags + self.orders + lines + paid + self.reviews

    def tables(self) -> Iterator[tuple[type[Base] | Table, Iterable[Row]]]:
        """What goes into each table, referenced tables first."""
        yield Customer, self.customer_rows()
        yield Address, self.address_rows()
        yield Category, category_rows()
        yield Tag, ({"id": key, "name": name} for key, name in enumerate(TAGS, start=1))
        yield Product, self.product_rows()
        yield product_tags, self.product_tag_rows()
        yield Order, self.order_rows()
        yield OrderLine, self.line_rows()
        yield Payment, self.payment_rows()
        yield Review, self.review_rows()

    def customer_rows(self) -> Iterator[Row]:
        draw = random.Random(2)
        for key in range(1, self.customers + 1):
            first, last = draw.choice(FIRST), draw.choice(LAST)
            joined_at = self.until - timedelta(days=draw.randint(366, 2_000))
            email = f"{first}.{last}.{key}@example.com".lower()
            yield {"id": key, "email": email, "name": f"{first} {last}", "joined_at": joined_at}

    def address_rows(self) -> Iterator[Row]:
        """Every customer has an address of the same id; every second one has another, which no order uses."""
        draw = random.Random(3)
        customers = [*range(1, self.customers + 1), *range(2, self.customers + 1, 2)]
        for key, customer_id in enumerate(customers, start=1):
            city, country = draw.choice(CITIES)
            street, postcode = f"Market Street {draw.randint(1, 200)}", f"{draw.randint(1_000, 9_999)}"
            yield {
                "id": key,
                "customer_id": customer_id,
                "street": street,
                "city": city,
                "postcode": postcode,
                "country": country,
            }

    def product_rows(self) -> Iterator[Row]:
        draw = random.Random(4)
        leaves = [row["id"] for row in category_rows() if row["slug"].endswith(GRADES)]
        for index, price in enumerate(self.prices):
            name = f"{draw.choice(LOOKS)} {draw.choice(THINGS)} {index}"
            yield {
                "id": index + 1,
                "category_id": draw.choice(leaves),
                "sku": f"SKU-{index:06}",
                "name": name,
                "price": price,
                "stock": draw.randint(0, 5_000),
            }

    def product_tag_rows(self) -> Iterator[Row]:
        for product_id in range(1, self.products + 1):
            for step in range(product_id % 5):
                yield {"product_id": product_id, "tag_id": 1 + (product_id + step * 3) % len(TAGS)}

    def order_rows(self) -> Iterator[Row]:
        for order in range(self.orders):
            buyer = 1 + (order * 7_919) % self.customers
            yield {
                "id": order + 1,
                "customer_id": buyer,
                "address_id": buyer,
                "status": self.status(order),
                "total": self.total(order),
                "placed_at": self.placed_at(order),
            }

    def line_rows(self) -> Iterator[Row]:
        ids = count(1)
        for order, basket in enumerate(self.baskets):
            for product, pieces in basket.items():
                yield {
                    "id": next(ids),
                    "order_id": order + 1,
                    "product_id": product + 1,
                    "quantity": pieces,
                    "unit_price": self.prices[product],
                }

    def payment_rows(self) -> Iterator[Row]:
        ids = count(1)
        methods = list(PaymentMethod)
        for order in range(self.orders):
            if self.status(order) in PAID:
                yield {
                    "id": next(ids),
                    "order_id": order + 1,
                    "method": methods[order % len(methods)],
                    "amount": self.total(order),
                    "reference": f"seed-{order + 1}",
                    "paid_at": self.placed_at(order) + timedelta(minutes=20),
                }

    def review_rows(self) -> Iterator[Row]:
        draw = random.Random(5)
        for index in range(self.reviews):
            again, product = divmod(index, self.products)
            yield {
                "id": index + 1,
                "product_id": product + 1,
                "customer_id": 1 + (product + again * 7_919) % self.customers,
                "rating": draw.choice((1, 2, 3, 4, 4, 5, 5, 5)),
                "body": f"{draw.choice(LOOKS).capitalize()} as promised, and it still works.",
                "written_at": self.until - timedelta(minutes=self.reviews - index),
            }


def category_rows() -> Iterator[Row]:
    """Six rooms, four kinds in each, two grades of each kind."""
    ids = count(1)
    for room in ROOMS:
        top = next(ids)
        yield {"id": top, "parent_id": None, "slug": room, "name": room.capitalize()}
        for kind in KINDS:
            middle = next(ids)
            yield {"id": middle, "parent_id": top, "slug": f"{room}-{kind}", "name": kind.capitalize()}
            for grade in GRADES:
                slug = f"{room}-{kind}-{grade}"
                yield {"id": next(ids), "parent_id": middle, "slug": slug, "name": f"{grade.capitalize()} {kind}"}


async def seed(database: Database, *, trade: Trade | None = None, progress: Progress | None = None) -> int:
    """Store a year of trade in one transaction, by COPY, and return the number of rows."""
    trade = trade or Trade()
    expected, stored = trade.size(), 0
    async with database.session.begin() as session:
        for table, rows in trade.tables():
            done = await bulk.insert(session, table, rows)
            stored += done.rows
            if progress is not None:
                progress(stored, expected)
        await continue_identities(session)
        await session.execute(text("ANALYZE"))
    return stored


async def continue_identities(session: AsyncSession) -> None:
    """Let each table's next id follow the ids that were written by hand."""
    await session.execute(
        select(
            *(
                func.setval(
                    func.pg_get_serial_sequence(table.name, "id"), select(func.max(table.c.id)).scalar_subquery()
                )
                for table in Base.metadata.sorted_tables
                if "id" in table.c
            )
        )
    )


def show(stored: int, expected: int) -> None:
    sys.stderr.write(f"\r{stored:,} of {expected:,} rows")


async def main() -> None:
    await seed(db, progress=show)
    await db.dispose()


if __name__ == "__main__":
    asyncio.run(main())
