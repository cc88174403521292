"""The seeded year of trade is the same each time and agrees with itself."""

from decimal import Decimal

from sqlalchemy import func, select

from shop.models import Order, OrderLine, Payment, Product
from shop.seed import Trade, seed

SMALL = {"customers": 20, "products": 30, "orders": 40, "reviews": 35}


async def test_what_is_announced_is_stored(database):
    told: list[tuple[int, int]] = []

    stored = await seed(database, trade=Trade(**SMALL), progress=lambda done, expected: told.append((done, expected)))

    assert stored == Trade(**SMALL).size()
    assert told[-1] == (stored, stored)


async def test_totals_are_the_sums_of_their_lines_and_payments(database):
    await seed(database, trade=Trade(**SMALL))

    async with database.session() as session:
        lines = await session.scalar(select(func.sum(OrderLine.quantity * OrderLine.unit_price)))
        total = await session.scalar(select(func.sum(Order.total)))
        paid = await session.scalar(select(func.sum(Payment.amount)))
        owed = await session.scalar(select(func.sum(Order.total)).where(Order.status.in_(("pending", "cancelled"))))

    assert lines == total
    assert paid + (owed or Decimal()) == total


async def test_what_is_added_next_follows_the_seed(database):
    await seed(database, trade=Trade(**SMALL))

    async with database.session.begin() as session:
        added = Product(category_id=1, sku="next", name="next", price=Decimal(1), stock=1)
        session.add(added)

    assert added.id == SMALL["products"] + 1


def test_the_seed_is_the_same_each_time():
    until = Trade(**SMALL).until

    first, second = ([list(rows) for _, rows in Trade(**SMALL, until=until).tables()] for _ in range(2))

    assert first == second


def test_a_full_year_has_more_than_two_hundred_thousand_rows():
    assert Trade().size() > 200_000
