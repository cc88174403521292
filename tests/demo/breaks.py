"""One edit of the shop for each box: what a hurried colleague might write, in one place."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Break:
    """Replace `old` by `new` in one file of the shop; an empty `old` appends."""

    box: str
    file: str
    old: str
    new: str
    also: tuple[str, ...] = ()  # what cannot hold either where this box fails

    def apply(self, shop: Path) -> None:
        path = shop / self.file
        text = path.read_text("utf-8")
        if self.old:
            assert text.count(self.old) >= 1, f"{self.file} has no {self.old!r} any more"
            text = text.replace(self.old, self.new, 1)
        else:
            text += self.new
        path.write_text(text, "utf-8")


DATABASE = "db = Database("
BREAKS = (
    Break(
        "engine/async-engine",
        "shop/routes/dashboard.py",
        "",
        """

from sqlalchemy.orm import Session


async def newest(session: Session) -> int:
    return session.scalar(select(func.max(Order.id)))
""",
    ),
    Break(
        "engine/async-driver",
        "shop/database.py",
        DATABASE,
        'db = Database("postgresql+psycopg2://localhost/shop", ',
    ),
    Break("engine/pre-ping", "shop/database.py", DATABASE, "db = Database(pool_pre_ping=False, "),
    Break("engine/pool-size", "shop/database.py", DATABASE, "db = Database(pool_size=200, max_overflow=100, "),
    Break("engine/recycle", "shop/database.py", DATABASE, "db = Database(pool_recycle=-1, "),
    Break(
        "session/async-sessionmaker",
        "shop/jobs.py",
        "",
        """

from sqlalchemy.orm import sessionmaker

makers = sessionmaker(db.engine, class_=AsyncSession, expire_on_commit=False)
""",
    ),
    Break("session/expire-on-commit", "shop/database.py", DATABASE, "db = Database(expire_on_commit=True, "),
    Break(
        "session/autoflush",
        "shop/jobs.py",
        "",
        """

async def reset(id: int) -> None:
    async with db.session(autoflush=False) as session:
        report = await session.get_one(SalesReport, id)
        report.state = ReportState.QUEUED
        await session.refresh(report)
        await session.commit()
""",
    ),
    Break(
        "session/single-factory",
        "shop/routes/reports.py",
        "    report = await session.get(SalesReport, id)\n",
        """    from sqlalchemy.ext.asyncio import async_sessionmaker

    from shop.database import db

    own = async_sessionmaker(db.engine, expire_on_commit=False)
    async with own() as other:
        report = await other.get(SalesReport, id)
""",
    ),
    Break(
        "models/mapped",
        "shop/models.py",
        "    postcode: Mapped[str] = mapped_column(String(12))",
        "    postcode = mapped_column(String(12))",
    ),
    Break(
        "models/mapped-column",
        "shop/models.py",
        "    postcode: Mapped[str] = mapped_column(String(12))",
        "    postcode: Mapped[str] = Column(String(12))",
    ),
    Break(
        "models/explicit-lazy",
        "shop/models.py",
        'customer: Mapped[Customer] = relationship(back_populates="addresses", lazy="raise_on_sql")',
        '__unnamed_lazy__ = "off"\n    customer: Mapped[Customer] = relationship(back_populates="addresses")',
        also=("models/lazy-raise",),
    ),
    Break(
        "models/lazy-raise",
        "shop/models.py",
        'relationship(back_populates="addresses", lazy="raise_on_sql")',
        'relationship(back_populates="addresses", lazy=True)',
    ),
    Break(
        "bulk/add-all",
        "shop/seed.py",
        "",
        """

async def keep(session: AsyncSession, customers: Sequence[Customer]) -> None:
    for customer in customers:
        session.add(customer)
        await session.flush()
""",
    ),
    Break(
        "bulk/chunked",
        "shop/seed.py",
        "",
        """

async def keep(session: AsyncSession, names: Sequence[str]) -> None:
    from sqlalchemy import insert

    rows = [{"name": name} for name in names]
    await session.execute(insert(Tag).values(rows))
""",
    ),
    Break(
        "bulk/flush-between",
        "shop/seed.py",
        "",
        """

async def keep(session: AsyncSession, names: list[str]) -> None:
    for first in range(0, len(names), 1_000):
        session.add_all([Tag(name=name) for name in names[first : first + 1_000]])
""",
    ),
    Break(
        "bulk/batch-tuned",
        "shop/routes/imports.py",
        "bulk.insert(session, Product, rows(file, categories))",
        "bulk.insert(session, Product, rows(file, categories), chunk=137)",
    ),
    Break(
        "concurrency/session-per-task",
        "shop/routes/reports.py",
        "    background.add_task(sales_report, report.id)\n",
        """    import asyncio

    from shop.jobs import compute_with

    asyncio.create_task(compute_with(session, report.id))
""",
    ),
    Break(
        "concurrency/no-scoped-session",
        "shop/jobs.py",
        "",
        """

from sqlalchemy.ext.asyncio import async_scoped_session

current = async_scoped_session(db.session, scopefunc=lambda: 0)
""",
    ),
    Break(
        "concurrency/separate-sessions",
        "shop/routes/dashboard.py",
        "    statuses, best_sellers, waiting = await db.gather(by_status, most_sold, oldest_unpaid)\n",
        """    import asyncio

    async with db.session() as session:
        statuses, best_sellers, waiting = await asyncio.gather(
            by_status(session), most_sold(session), oldest_unpaid(session)
        )
""",
    ),
    Break(
        "concurrency/pool-for-load",
        "shop/jobs.py",
        "",
        """

async def audit(id: int) -> None:
    async with db.session() as session:
        report = await session.get(SalesReport, id)
        async with db.session.begin() as other:
            await other.execute(update(SalesReport).values(days=report.days if report else 0))
""",
    ),
    Break(
        "performance/indexed",
        "shop/models.py",
        "    postcode: Mapped[str] = mapped_column(String(12))",
        """    postcode: Mapped[str] = mapped_column(String(12))
    shared_with: Mapped[int | None] = mapped_column(ForeignKey("customers.id"), index=False)""",
    ),
    Break("performance/explained", "shop/database.py", DATABASE, "db = Database(explain_slow=False, "),
    Break("performance/pool-metrics", "shop/database.py", DATABASE, "db = Database(pool_metrics=False, "),
    Break("performance/query-times", "shop/database.py", DATABASE, "db = Database(time_queries=False, "),
    Break(
        "loading/selectin-collections",
        "shop/routes/orders.py",
        "select(Order).where(Order.id == id).options(load(Order, OrderOut))",
        "select(Order).where(Order.id == id).options(load(Order, OrderOut), joinedload(Order.lines))",
    ),
    Break(
        "loading/joined-single",
        "shop/routes/catalogue.py",
        "    rows = (await session.scalars(select(Category).order_by(Category.slug))).all()\n",
        """    from sqlalchemy.orm import joinedload

    whole = select(Category).options(joinedload(Category.parent, innerjoin=True))
    rows = (await session.scalars(whole.order_by(Category.slug))).all()
""",
    ),
    Break(
        "loading/all-loaded",
        "shop/routes/orders.py",
        "select(Order).where(Order.id == id).options(load(Order, OrderOut))",
        "select(Order).where(Order.id == id)",
    ),
    Break(
        "loading/no-n-plus-one",
        "shop/routes/dashboard.py",
        "    return [OrderSummary.model_validate(order) for order in rows]\n",
        """    orders = rows.all()
    for order in orders:
        await session.get(Product, order.id)
    return [OrderSummary.model_validate(order) for order in orders]
""",
    ),
    Break(
        "fastapi/async-with",
        "shop/database.py",
        "",
        """

async def own_session():
    session = db.session()
    yield session
    await session.close()


OwnDep = Annotated[AsyncSession, Depends(own_session, scope="function")]
""",
    ),
    Break(
        "fastapi/yielded",
        "shop/database.py",
        "",
        """

async def own_session() -> AsyncSession:
    async with db.session() as session:
        return session


OwnDep = Annotated[AsyncSession, Depends(own_session, scope="function")]
""",
    ),
    Break("fastapi/commit-or-rollback", "shop/database.py", ', scope="function")', ")"),
    Break(
        "fastapi/closed",
        "shop/routes/reports.py",
        "    background.add_task(sales_report, report.id)\n",
        """    from shop.jobs import compute_with

    background.add_task(compute_with, session, report.id)
""",
    ),
    Break("errors/handled", "shop/main.py", "install(app, db)", "install(app, db, errors=False)"),
    Break(
        "errors/rollback-then-raise",
        "shop/jobs.py",
        "",
        """

async def forget(session: AsyncSession, id: int) -> None:
    try:
        await session.execute(update(SalesReport).where(SalesReport.id == id).values(days=0))
    except Exception:
        session.rollback()
        raise
""",
    ),
    Break(
        "errors/connection-errors",
        "shop/database.py",
        "statement_timeout=10.0",
        "statement_timeout=None, command_timeout=None",
    ),
    Break("errors/retry-transient", "shop/database.py", DATABASE, "db = Database(retry=False, "),
    Break(
        "testing/test-database",
        "tests/conftest.py",
        "postgresql://127.0.0.1:1/shop_test",
        "postgresql://db.internal/shop",
    ),
    Break(
        "testing/rolled-back",
        "tests/conftest.py",
        "",
        """

@pytest.fixture
async def kept() -> AsyncIterator[Any]:
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

    engine = create_async_engine("postgresql+asyncpg://127.0.0.1:1/shop_test")
    async with engine.connect() as connection, connection.begin() as outer:
        yield AsyncSession(connection, join_transaction_mode="control_fully")
        await outer.rollback()
""",
    ),
    Break("testing/async-fixtures", "pyproject.toml", 'asyncio_mode = "auto"', 'asyncio_mode = "strict"'),
    Break(
        "testing/isolated",
        "tests/conftest.py",
        "@pytest.fixture\nasync def stocked",
        '@pytest.fixture(scope="session")\nasync def stocked',
    ),
)
