"""Lean reads are SQLAlchemy's own in everything but the way to the driver: each is compared with a plain session."""

import asyncio
import gc
import logging
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum

import pytest
from pydantic import BaseModel
from sqlalchemy import (
    JSON,
    ForeignKey,
    Numeric,
    Row,
    Select,
    String,
    TypeDecorator,
    and_,
    bindparam,
    event,
    func,
    literal,
    or_,
    select,
    text,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, PendingRollbackError, StatementError
from sqlalchemy.ext.asyncio import AsyncSession as PlainSession
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    aliased,
    column_property,
    configure_mappers,
    defer,
    immediateload,
    joinedload,
    load_only,
    mapped_column,
    raiseload,
    relationship,
    selectin_polymorphic,
    selectinload,
    subqueryload,
    undefer,
    with_loader_criteria,
    with_polymorphic,
)

from verdigris import Base, Database, load
from verdigris.errors import ReadOnlyError, SessionClosedError
from verdigris.lean import plans as plans_module
from verdigris.lean import shapes
from verdigris.lean.reads import LeanReads
from verdigris.lean.shapes import _lasting, shape_of


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Shouted(TypeDecorator):
    impl = String
    cache_ok = True

    def process_bind_param(self, value, dialect):
        if value == "refused":
            raise ValueError(value)
        return value.lower()

    def process_result_value(self, value, dialect):
        return value.upper()


class Shelf(Base):
    __tablename__ = "shelves"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="shelf", order_by="Book.id", lazy="raise_on_sql")


class Book(Base):
    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf_id: Mapped[int] = mapped_column(ForeignKey("shelves.id"))
    title: Mapped[str] = mapped_column(Shouted)
    kind: Mapped[str]
    colour: Mapped[Colour]
    price: Mapped[Decimal]
    printed: Mapped[datetime]
    notes: Mapped[dict] = mapped_column(JSON)
    blurb: Mapped[str | None] = mapped_column(deferred=True)
    shelf: Mapped[Shelf] = relationship(back_populates="books", lazy="raise_on_sql")
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "book"}  # noqa: RUF012


class Reader(Base):
    __tablename__ = "readers"
    id: Mapped[int] = mapped_column(primary_key=True)
    age: Mapped[int]
    loans: Mapped[list["Loan"]] = relationship(lazy="selectin")


class Loan(Base):
    __tablename__ = "loans"
    id: Mapped[int] = mapped_column(primary_key=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id"))


class Grown(Base):
    __table__ = select(Reader.__table__).where(Reader.__table__.c.age > 17).subquery()
    id: Mapped[int]
    age: Mapped[int]
    __mapper_args__ = {"primary_key": [__table__.c.id]}  # noqa: RUF012


Book.double = column_property(Book.price * 2)


class Atlas(Book):
    scale: Mapped[int | None]
    __mapper_args__ = {"polymorphic_identity": "atlas"}  # noqa: RUF012


TABLES = [each.__table__ for each in (Shelf, Book, Reader, Loan)]


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=TABLES)
    async with database.session.begin() as session:
        for n in (1, 2):
            shelf = Shelf(id=n, name=f"shelf {n}")
            kinds = (Book, Atlas, Book)
            shelf.books = [
                kind(
                    id=n * 10 + i,
                    title=f"title {n}{i}",
                    colour=Colour.RED if i else Colour.BLUE,
                    price=Decimal(f"{n}.{i}0"),
                    printed=datetime(2026, n, i + 1, tzinfo=UTC),
                    notes={"i": i},
                    blurb=f"blurb {i}",
                )
                for i, kind in enumerate(kinds)
            ]
            session.add(shelf)
    yield database
    await database.dispose()


@pytest.fixture
def lean(monkeypatch):
    """The statements that were run by a plan."""
    run = []
    original = LeanReads._rows

    async def spy(reads, session, plan, binds, *, alone):
        rows = await original(reads, session, plan, binds, alone=alone)
        if rows is not None:
            run.append(plan)
        return rows

    monkeypatch.setattr(LeanReads, "_rows", spy)
    return run


def told(value, seen=()):
    """What can be seen of a result: of instances their class and what is loaded."""
    if isinstance(value, Base):
        if any(value is one for one in seen):
            return (type(value).__name__, value.id)
        loaded = {name: found for name, found in sorted(vars(value).items()) if not name.startswith("_sa")}
        return (type(value).__name__, {name: told(found, (*seen, value)) for name, found in loaded.items()})
    if isinstance(value, list | Row):
        return [told(one, seen) for one in value]
    return value


HOISTED = select(Shelf).where(Shelf.id == 1)


def statements():
    other = aliased(Book)
    return {
        "by key": lambda n: select(Book).where(Book.id == n),
        "hoisted": lambda _: HOISTED,
        "of a subclass": lambda n: select(Atlas).where(Atlas.id == n + 1),
        "by a converted value": lambda n: select(Book).where(Book.title == f"TITLE {n // 10}0"),
        "by an enum": lambda n: select(Book).where(Book.colour == Colour.RED, Book.id > n).order_by(Book.id),
        "ordered and limited": lambda n: select(Book).order_by(Book.id.desc(), Book.title).limit(2).offset(n % 2),
        "all of them": lambda _: select(Book).order_by(Book.id),
        "columns": lambda n: select(Book.id, Book.title, Book.colour).where(Book.shelf_id == n // 10).order_by(Book.id),
        "entity and column": lambda n: select(Book, Shelf.name).join(Book.shelf).where(Book.id == n),
        "two entities": lambda n: select(Book, Shelf).join(Book.shelf).where(Book.id == n),
        "aliased": lambda n: select(other).where(other.id == n),
        "null": lambda _: select(Book).where(Book.blurb.is_(None)),
        "or": lambda n: select(Book).where(or_(Book.id == n, Book.id == n + 1)).order_by(Book.id),
        "and with one value twice": lambda n: (
            select(Book).where(and_(Book.id >= n, Book.shelf_id <= n)).order_by(Book.id)
        ),
        "in": lambda n: select(Book).where(Book.id.in_([n, n + 1])).order_by(Book.id),
        "named bind with a value": lambda n: select(Book).where(Book.id == bindparam("n", n)),
        "callable bind": lambda n: select(Book).where(Book.id == bindparam(None, callable_=lambda: n)),
        "aggregate": lambda n: select(func.count(Book.id)).where(Book.shelf_id == n // 10),
        "expression": lambda n: select(Book.price + n, literal(n)).where(Book.id == n),
        "exists": lambda n: select(Shelf).where(Shelf.books.any(Book.id == n)),
        "subquery": lambda _: select(Book).where(Book.id == select(func.min(Book.id)).scalar_subquery()),
        "distinct": lambda _: select(Book.kind).distinct().order_by(Book.kind),
        "grouped": lambda _: select(Book.shelf_id, func.count()).group_by(Book.shelf_id).order_by(Book.shelf_id),
        "locked": lambda n: select(Book).where(Book.id == n).with_for_update(),
        "load_only": lambda n: select(Book).where(Book.id == n).options(load_only(Book.title)),
        "defer": lambda n: select(Book).where(Book.id == n).options(defer(Book.price)),
        "undefer": lambda n: select(Book).where(Book.id == n).options(undefer(Book.blurb)),
        "raiseload": lambda n: select(Book).where(Book.id == n).options(raiseload("*")),
        "joinedload": lambda n: select(Book).where(Book.id == n).options(joinedload(Book.shelf)),
        "joinedload of a collection": lambda _: select(Shelf).options(joinedload(Shelf.books)).order_by(Shelf.id),
        "selectinload": lambda n: select(Shelf).where(Shelf.id == n // 10).options(selectinload(Shelf.books)),
        "selectinload, nested": lambda _: select(Shelf).options(selectinload(Shelf.books).joinedload(Book.shelf)),
        "subqueryload": lambda n: select(Shelf).where(Shelf.id == n // 10).options(subqueryload(Shelf.books)),
        "immediateload": lambda n: select(Book).where(Book.id == n).options(immediateload(Book.shelf)),
        "selectin_polymorphic": lambda _: select(Book).options(selectin_polymorphic(Book, [Atlas])).order_by(Book.id),
        "selectinload of a subclass": lambda _: select(Book).options(selectinload(Atlas.shelf)).order_by(Book.id),
        "criteria": lambda n: select(Shelf).options(
            selectinload(Shelf.books), with_loader_criteria(Book, lambda cls: cls.id != n, track_closure_variables=True)
        ),
        "text": lambda n: select(Shelf).from_statement(text(f"SELECT * FROM shelves WHERE id = {n // 10}")),
        "no row": lambda n: select(Book).where(Book.id == -n),
        "execution options": lambda n: select(Book).where(Book.id == n).execution_options(populate_existing=True),
    }


@pytest.mark.parametrize("kind", ["read", "session"])
async def test_a_lean_result_is_the_one_that_sqlalchemy_gives(db, kind):
    opened = db.read if kind == "read" else db.session
    for name, make in statements().items():
        for n in (10, 20, 11, 21):
            async with PlainSession(db.engine, expire_on_commit=False) as plain:
                rows = (await plain.execute(make(n))).unique().all()
                expected, fields = told(rows), [row._fields for row in rows]
            async with PlainSession(db.engine) as plain:
                first = told(await plain.scalar(_one(make(n))))
            async with opened() as session:
                found = (await session.execute(make(n))).unique().all()
                assert (name, n, told(found)) == (name, n, expected)
                assert [row._fields for row in found] == fields
            async with opened() as session:
                assert (name, n, told(await session.scalar(_one(make(n))))) == (name, n, first)


def _one(statement):
    return statement.limit(1) if isinstance(statement, Select) and statement._limit_clause is None else statement


LEAN = {"by key", "hoisted", "by a converted value", "by an enum", "ordered and limited", "columns", "two entities"}


async def test_usual_reads_are_lean_from_the_second_time(db, lean):
    for name in LEAN:
        lean.clear()
        for n in (10, 20, 11):
            async with db.read() as session:
                await session.execute(statements()[name](n))

        assert (name, len(lean)) == (name, 2)


async def warm(db, statement):
    for _ in range(3):
        async with db.read() as session:
            await session.execute(statement)


async def test_a_statement_with_a_plan_of_load_has_a_shape_and_other_options_keep_the_key_of_sqlalchemy(db, lean):
    class BookOut(BaseModel):
        title: str

    def planned(key):
        return select(Book).where(Book.id == key).options(load(Book, BookOut))

    def by_hand(key):
        return select(Book).where(Book.id == key).options(load_only(Book.title))

    async with db.read() as session:
        for statement in (planned, by_hand):
            found = [(await session.execute(statement(key))).scalar_one().title for key in (10, 11, 12)]

            assert found == ["TITLE 10", "TITLE 11", "TITLE 12"]

    assert len(lean) >= 2
    assert shape_of(planned(10))[0] == shape_of(planned(11))[0]
    assert shape_of(planned(10))[0] != shape_of(select(Book).where(Book.id == 10))[0]
    assert shape_of(by_hand(10)) is None


async def test_get_is_the_one_of_sqlalchemy(db, lean):
    for ident in (1, 2, 9, 1):
        async with db.read() as session, PlainSession(db.engine) as plain:
            found, expected = await session.get(Shelf, ident), await plain.get(Shelf, ident)

            assert told(found) == told(expected)
            assert await session.get(Shelf, ident) is found
            if found is not None:
                session.expire(found)
                assert (await session.get(Shelf, ident)).name == expected.name
    async with db.session() as session:
        session.add(Shelf(id=7, name="new"))
        assert (await session.get(Shelf, 7)).name == "new"
        assert await session.get(Atlas, 10) is None
        assert (await session.get(Book, 11)).kind == "atlas"
        assert await session.get(Shelf, {"id": 1}) is await session.get(Shelf, (1,))

    assert len(lean) >= 3


async def test_a_key_of_another_type_fails_as_with_sqlalchemy_and_leaves_the_transaction_usable(db):
    for session in (PlainSession(db.engine), db.session()):
        async with session:
            with pytest.raises(DBAPIError, match="invalid input for query argument"):
                await session.get(Shelf, "1")

            assert (await session.get(Shelf, 1)).id == 1


BY_KEY = select(Book).where(Book.id == 10)


async def test_it_takes_no_begin_and_keeps_no_connection(db, lean):
    await warm(db, BY_KEY)
    async with db.read() as session:
        await session.scalar(BY_KEY)

        assert not session.in_transaction()
        assert db.pool_status().in_use == 0


async def test_the_identity_map_is_the_sessions_own(db, lean):
    await warm(db, BY_KEY)
    async with db.session() as session:
        first = await session.scalar(BY_KEY)
        first.price = Decimal("77.00")
        await session.flush()
        again = await session.scalar(BY_KEY)

        assert again is first
        assert again.price == Decimal("77.00")
        await session.rollback()
        assert await session.scalar(select(Book.price).where(Book.id == 10)) == Decimal("1.00")


async def test_pending_changes_are_flushed_first(db, lean):
    await warm(db, select(func.count(Book.id)))
    async with db.session() as session:
        book = await session.scalar(BY_KEY)
        lean.clear()
        session.add(Book(id=99, shelf_id=1, title="x", colour=Colour.RED, price=1, printed=book.printed, notes={}))
        assert await session.scalar(select(func.count(Book.id))) == 7
        book.price = Decimal(5)
        found = await session.scalar(select(Book.price).where(Book.id == 10))

    assert found == 5
    assert lean == []


async def test_a_listener_that_may_change_statements_is_asked(db, lean):
    await warm(db, BY_KEY)
    lean.clear()
    heard = []

    async with db.read() as session:
        event.listen(session.sync_session, "do_orm_execute", heard.append)
        await session.scalar(BY_KEY)

    assert len(heard) == 1
    assert lean == []


async def test_a_listener_of_the_engine_hears_every_statement(db, lean):
    for name in ("before_execute", "before_cursor_execute", "after_cursor_execute"):
        await warm(db, BY_KEY)
        lean.clear()
        heard = []
        hear = lambda *args: heard.append(args)  # noqa: B023, E731 - it is removed before the next turn
        event.listen(db.engine.sync_engine, name, hear)
        async with db.read() as session:
            await session.scalar(BY_KEY)
        async with db.session() as session:
            await session.scalar(BY_KEY)
        event.remove(db.engine.sync_engine, name, hear)

        assert (name, len(heard), lean) == (name, 2, [])


async def test_a_tenants_setting_made_after_begin_holds_for_lean_reads(db, lean):
    await warm(db, BY_KEY)
    begun = []

    @event.listens_for(db.session.class_.sync_session_class, "after_begin")
    def tenant(session, transaction, connection):
        connection.exec_driver_sql("SET LOCAL application_name = 'tenant'")
        begun.append(session)

    try:
        async with db.session() as session:
            await session.scalar(BY_KEY)
            name = await session.scalar(text("SHOW application_name"))
        async with db.read() as session:
            await session.scalar(BY_KEY)
    finally:
        event.remove(Session, "after_begin", tenant)

    assert name == "tenant"
    assert len(begun) == 2


def after_begin(session, transaction, connection):
    connection.exec_driver_sql("SET LOCAL application_name = 'tenant'")


def begin(connection):
    connection.exec_driver_sql("SET LOCAL application_name = 'tenant'")


@pytest.mark.parametrize("sets", [after_begin, begin])
async def test_a_tenants_setting_holds_for_each_read_of_a_reading_session(db, sets, caplog):
    caplog.set_level(logging.INFO, "verdigris")
    target = db.session.class_.sync_session_class if sets is after_begin else db.engine.sync_engine
    event.listen(target, sets.__name__, sets)
    try:
        for _ in range(2):
            async with db.read() as session:
                names = [await session.scalar(text("SHOW application_name")) for _ in range(2)]
                found = await session.scalar(BY_KEY)
                with pytest.raises(DBAPIError, match="read-only"):
                    await session.execute(text("SELECT nextval('books_id_seq')"))
    finally:
        event.remove(Session if sets is after_begin else target, sets.__name__, sets)
    async with db.read() as session:
        after = await session.scalar(text("SHOW application_name"))

    assert names == ["tenant", "tenant"]
    assert found is not None
    assert after != "tenant"
    (told,) = [record.message for record in caplog.records if "db.read()" in record.message]
    assert f"which listens to '{sets.__name__}'" in told


async def test_load_events_may_wait(db, lean):
    loaded = []
    await warm(db, BY_KEY)

    @event.listens_for(Book, "load", propagate=True)
    def load(book, context):
        loaded.append(context.session.connection().exec_driver_sql("SELECT 1").scalar())

    fresh = select(Book).where(Book.id == 10).order_by(Book.price)
    try:
        await warm(db, fresh)
        async with db.read() as session:
            await session.scalar(BY_KEY)  # its plan is older than the listener
    finally:
        event.remove(Book, "load", load)

    assert loaded == [1] * 4


async def test_begin_comes_first_and_commit_ends_it(db, admin, lean):
    await warm(db, BY_KEY)
    async with db.session() as session:
        await session.scalar(BY_KEY)
        (state,) = await admin(
            "SELECT state, query FROM pg_stat_activity WHERE datname = current_database() AND state LIKE 'idle in%'"
        )
        assert session.in_transaction()
        await session.execute(text("UPDATE books SET price = 3 WHERE id = 10"))
        await session.commit()
    async with db.session() as session, session.begin_nested():
        assert (await session.scalar(select(Book.price).where(Book.id == 10))) == 3

    assert "FROM books" in state["query"]
    assert db.engine.sync_engine.pool.checkedout() == 0


async def test_an_error_is_a_sessions_and_aborts_its_transaction(db, lean):
    broken = select(Book.price / (Book.id - 10)).where(Book.id == 10).order_by(Book.id)
    ok = select(Book.price / (Book.id - 10)).where(Book.id == 11).order_by(Book.id)
    await warm(db, ok)
    lean.clear()
    async with db.session() as session:
        with pytest.raises(DBAPIError, match="division by zero") as raised:
            await session.execute(broken)
        with pytest.raises(DBAPIError, match="aborted"):
            await session.execute(ok)
        await session.rollback()
        await session.execute(ok)

    assert "FROM books" in raised.value.statement
    assert len(lean) == 1


async def test_a_value_that_its_type_refuses_is_told_in_sqlalchemys_words(db):
    await warm(db, select(Book).where(Book.title == "x"))

    async with db.read() as session:
        with pytest.raises(StatementError, match="refused"):
            await session.execute(select(Book).where(Book.title == "refused"))


async def test_a_cancelled_lean_read_gives_its_connection_up(db, admin):
    slow = select(Book).where(Book.id == 10, func.pg_sleep(Book.price).is_not(None))
    for _ in range(3):
        async with db.session() as session:
            await session.execute(slow.where(Book.id == -1))
    await warm(db, slow.where(Book.price < 0))

    async def unit():
        async with db.session() as session:
            await session.execute(slow)

    await unit()
    await unit()
    task = asyncio.create_task(unit())
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert db.engine.sync_engine.pool.checkedout() == 0
    async with db.read() as session:
        assert await session.scalar(select(func.count(Book.id))) == 6


async def test_what_was_closed_stays_closed(db):
    await warm(db, BY_KEY)
    async with db.read() as session:
        await session.scalar(BY_KEY)

    with pytest.raises(SessionClosedError):
        await session.scalar(BY_KEY)


async def test_a_session_of_reads_still_refuses_writes(db):
    async with db.read() as session:
        with pytest.raises(ReadOnlyError):
            await session.scalars(text("DELETE FROM books"))


async def test_a_commit_with_nothing_to_commit_says_nothing_and_its_listeners_are_heard(db):
    heard, before = [], db.pool_status().checkouts
    async with db.session() as session:
        await session.commit()
        assert not session.in_transaction()
        event.listen(session.sync_session, "before_commit", heard.append)
        await session.commit()

    assert len(heard) == 1
    assert db.pool_status().checkouts == before


async def test_the_first_get_of_a_class_loads_what_its_relationships_load_at_once(db):
    async with db.session.begin() as session:
        session.add_all([Reader(id=1, age=30, loans=[Loan(id=1)]), Reader(id=2, age=5, loans=[])])

    for _ in range(3):  # learning, learnt
        async with db.session() as session:
            reader = await session.get(Reader, 1)
            assert [loan.id for loan in reader.loans] == [1]


async def test_a_class_mapped_to_a_select_with_values_of_its_own_is_read(db, lean):
    async with db.session.begin() as session:
        session.add_all([Reader(id=1, age=30), Reader(id=2, age=5)])

    for _ in range(3):
        async with db.session() as session:
            assert await session.scalar(select(Grown).where(Grown.id == 2)) is None
            assert (await session.scalar(select(Grown).where(Grown.id == 1))).age == 30
            assert (await session.get(Grown, 1)).age == 30
    assert lean


async def test_the_first_statement_of_a_transaction_may_be_a_read_in_a_savepoint(db, lean):
    await warm(db, BY_KEY)

    async with db.session() as session, session.begin_nested():
        book = await session.scalar(BY_KEY)

    assert book.id == 10
    assert lean


async def test_nothing_is_read_in_a_savepoint_that_can_only_be_rolled_back(db):
    await warm(db, BY_KEY)

    async with db.session() as session:
        savepoint = await (await session.connection()).begin_nested()
        savepoint.sync_transaction.is_active = False  # as blocks leave it that end in another order than they began
        with pytest.raises(PendingRollbackError, match="savepoint"):
            await session.scalar(BY_KEY)


async def test_echo_prints_every_statement(db, lean, caplog):
    async def read():
        async with db.session() as session:
            await session.scalars(HOISTED)

    for _ in range(4):
        await read()
    assert lean
    lean.clear()
    db.engine.sync_engine.echo = True
    for _ in range(2):
        await read()
    assert len([each for each in caplog.records if "FROM shelves" in each.getMessage()]) == 2
    db.engine.sync_engine.echo = False
    await read()
    assert len(lean) == 1


async def test_a_listener_of_the_class_of_connections_takes_sqlalchemys_path(db, lean, monkeypatch):
    monkeypatch.setattr(Connection, "_has_events", True, raising=False)  # as listening to the class leaves it
    async with db.session() as session:
        for _ in range(4):
            await session.scalars(HOISTED)
    assert not lean


async def test_the_ladder_that_logs_lazy_loads_takes_no_lean_read_away(db, lean):
    class Logged(Base):
        __abstract__ = True
        __unnamed_lazy__ = "log"

    class LeanCrate(Logged):
        __tablename__ = "lean_crates"
        id: Mapped[int] = mapped_column(primary_key=True)

    configure_mappers()
    async with db.session() as session:
        assert any("log_lazy_load" in str(each) for each in session.sync_session.dispatch.do_orm_execute)
        for _ in range(4):
            await session.scalars(HOISTED)
    assert lean


ELSEWHERE = {"schema_translate_map": {None: "elsewhere"}}


async def put_elsewhere(db):
    """Make another tenant's shelves, in a schema of their own; what is read of both has plans."""
    async with db.engine.begin() as connection:
        for statement in (
            "CREATE SCHEMA elsewhere",
            "CREATE TABLE elsewhere.shelves AS SELECT id, 'theirs' AS name FROM shelves",
            "CREATE TABLE elsewhere.books AS SELECT * FROM books WHERE id = 10",
        ):
            await connection.execute(text(statement))
    for _ in range(3):
        async with db.read() as session:
            await names_of(session)


async def names_of(session):
    """Return the name of a shelf and the keys of its books, each by every way to read them."""
    name = await session.scalar(select(Shelf.name).where(Shelf.id == 1))
    (row,) = (await session.execute(select(Shelf.id, Shelf.name).where(Shelf.id == 1))).all()
    session.expunge_all()
    got = (await session.get(Shelf, 1)).name
    session.expunge_all()
    full = select(Shelf).where(Shelf.id == 1).options(selectinload(Shelf.books))
    shelf = await session.scalar(full)
    return {name, row.name, got, shelf.name}, [book.id for book in shelf.books]


def translated(connection):
    connection.execution_options(**ELSEWHERE)


async def at_the_first_use(db, session):
    await session.connection(execution_options=ELSEWHERE)


async def on_the_connection(db, session):
    await (await session.connection()).execution_options(**ELSEWHERE)


async def behind_a_lean_read(db, session):
    await session.scalar(select(Shelf.name))
    await on_the_connection(db, session)


async def by_a_listener_of_the_session(db, session):
    event.listen(session.sync_session, "after_begin", lambda _, __, connection: translated(connection))


async def by_a_listener_of_connections(db, session):
    event.listen(db.engine.sync_engine, "engine_connect", translated)


async def by_a_listener_of_begin(db, session):
    event.listen(db.engine.sync_engine, "begin", translated)


async def by_the_engine(db, session):
    session.sync_session.bind = session.sync_session.bind.execution_options(**ELSEWHERE)


async def by_the_engine_later(db, session):
    session.sync_session.bind.update_execution_options(**ELSEWHERE)


@pytest.mark.parametrize("kind", ["read", "session"])
@pytest.mark.parametrize(
    "translate",
    [
        at_the_first_use,
        on_the_connection,
        behind_a_lean_read,
        by_a_listener_of_the_session,
        by_a_listener_of_connections,
        by_a_listener_of_begin,
        by_the_engine,
        by_the_engine_later,
    ],
)
async def test_a_translated_schema_is_the_one_that_is_read_however_it_was_said(db, lean, translate, kind):
    await put_elsewhere(db)
    async with (db.read if kind == "read" else db.session)() as session:
        await translate(db, session)
        lean.clear()

        found = await names_of(session)

    assert found == ({"theirs"}, [10])
    assert lean == []


async def test_who_translates_one_session_takes_no_lean_read_of_others_away(db, lean):
    await put_elsewhere(db)
    async with db.session() as session:
        await at_the_first_use(db, session)
        await names_of(session)
    lean.clear()

    async with db.session() as session:
        found = await names_of(session)

    assert found == ({"shelf 1"}, [10, 11, 12])
    assert len(lean) == 4


@pytest.mark.parametrize(
    ("options", "is_lean"),
    [
        ({"isolation_level": "SERIALIZABLE"}, True),
        ({"isolation_level": "AUTOCOMMIT"}, True),
        ({"postgresql_readonly": True, "postgresql_deferrable": True}, True),
        ({"logging_token": "x"}, True),
        ({"stream_results": True}, False),
        ({"yield_per": 1}, False),
        ({"compiled_cache": None}, False),
        ({"of_the_application": 1}, False),
    ],
)
async def test_options_of_a_connection_that_have_a_say_take_sqlalchemys_path(db, lean, options, is_lean):
    await warm(db, BY_KEY)
    for bind in (None, db.engine.execution_options(**options)):
        lean.clear()
        async with db.session(**{} if bind is None else {"bind": bind}) as session:
            if bind is None:
                await session.connection(execution_options=options)
            assert (await session.scalar(BY_KEY)).id == 10

        assert (bind is None, bool(lean)) == (bind is None, is_lean)


async def test_a_session_of_another_engine_has_none_of_this_ones_plans(db, lean):
    await warm(db, BY_KEY)
    lean.clear()
    other = create_async_engine(db.url)
    async with db.session(bind=other) as session:
        assert (await session.scalar(BY_KEY)).id == 10
    await other.dispose()

    assert lean == []


@pytest.mark.parametrize("name", ["before_execute", "before_cursor_execute", "after_cursor_execute"])
async def test_a_listener_of_one_connection_hears_its_statements(db, lean, name):
    await warm(db, BY_KEY)
    lean.clear()
    heard = []
    async with db.session() as session:
        await session.scalar(BY_KEY)
        connection = await session.connection()
        event.listen(connection.sync_connection, name, lambda *args: heard.append(args))
        session.expunge_all()
        await session.scalar(BY_KEY)
        await session.execute(BY_KEY)

    assert len(heard) == 2
    assert len(lean) == 1


@pytest.mark.parametrize("name", ["before_execute", "before_cursor_execute", "engine_connect", "begin"])
async def test_a_listener_of_a_copy_of_the_engine_hears_its_statements(db, lean, name):
    await warm(db, BY_KEY)
    lean.clear()
    heard = []
    copy = db.engine.execution_options(isolation_level="REPEATABLE READ")
    event.listen(copy.sync_engine, name, lambda *args: heard.append(args))
    async with db.session(bind=copy) as session:
        await session.scalar(BY_KEY)
    async with db.session() as session:
        await session.scalar(BY_KEY)

    assert len(heard) == 1
    assert len(lean) == (1 if name.startswith("before") else 2)


@pytest.mark.parametrize("kind", ["read", "session"])
async def test_a_listener_that_sets_connections_up_may_wait(db, lean, kind):
    await warm(db, BY_KEY)

    def tenant(connection):
        connection.exec_driver_sql("SELECT set_config('app.tenant', '7', false)")
        connection.commit()  # SQLAlchemy 2.0 warns of a transaction that is left open

    event.listen(db.engine.sync_engine, "engine_connect", tenant)
    async with (db.read if kind == "read" else db.session)() as session:
        await session.scalar(BY_KEY)
        found = await session.scalar(select(func.current_setting("app.tenant", True)))
    event.remove(db.engine.sync_engine, "engine_connect", tenant)

    assert found == "7"


async def test_an_alias_that_is_made_for_each_request_has_one_plan(db, lean):
    async def read(n):
        book = aliased(Book)
        asked = select(book).where(book.id == n).order_by(book.title, book.id)
        async with db.session() as session:
            return told(await session.scalar(asked))

    found = [(await read(n))[1]["title"] for n in (10, 11, 20, 21)]

    assert found == ["TITLE 10", "TITLE 11", "TITLE 20", "TITLE 21"]
    assert len(lean) == 3
    assert len({id(plan) for plan in lean}) == 1


async def test_collections_of_an_alias_that_is_made_for_each_request_are_loaded(db):
    for _ in range(4):
        for n in (1, 2):
            shelf = aliased(Shelf)
            full = select(shelf).where(shelf.id == n).options(selectinload(shelf.books))
            async with db.session() as session:
                found = await session.scalar(full)

                assert [book.id for book in found.books] == [n * 10 + i for i in range(3)]


class Tagged(Base):
    __tablename__ = "tagged"
    id: Mapped[int] = mapped_column(primary_key=True)

    @hybrid_property
    def number(self):
        return self.id


def shapes_with_parts_of_their_own():
    book, wide = aliased(Book), with_polymorphic(Book, [Atlas])
    return {
        "an alias": select(book),
        "a column of an alias": select(book.id),
        "by an alias": select(Book).where(book.id == 1),
        "ordered by an alias": select(Book).order_by(book.id),
        "with subclasses": select(wide),
        "a hybrid": select(Tagged.number),
        "a type of its own": select(Book).where(Book.price == literal(1, Numeric(10, 3))),
    }


@pytest.mark.parametrize("name", shapes_with_parts_of_their_own())
def test_what_is_made_for_one_statement_gives_it_no_shape(name):
    assert shape_of(shapes_with_parts_of_their_own()[name]) is None


def test_what_mappers_and_types_give_out_gives_a_shape():
    def made(n):
        return [
            select(Book).where(Book.id == n).order_by(Book.title.desc(), Atlas.scale).limit(n).offset(2**40),
            select(Book.id, Book.double).where(Book.price > Decimal(n), Book.title == "ä", Book.colour == Colour.RED),
            select(Book).where(Book.price < 1.5, Book.printed > datetime(2026, 1, n, tzinfo=UTC)),
        ]

    first, again = [[shape_of(each)[0] for each in made(n)] for n in (1, 2)]

    assert first == again
    assert len(set(first)) == 3


def test_a_shape_is_forgotten_with_its_mapper():
    gc.collect()  # what other tests have left
    before = set(_lasting)

    def made():
        class Short(DeclarativeBase):
            pass

        class Lived(Short):
            __tablename__ = "lived"
            id: Mapped[int] = mapped_column(primary_key=True)

        statement = select(Lived).where(Lived.id == 1)
        assert shape_of(statement) is not None
        assert len(set(_lasting) - before) == 2

    made()
    gc.collect()

    assert set(_lasting) <= before


async def test_shapes_that_come_once_take_no_plan_away(db, lean, monkeypatch):
    monkeypatch.setattr(plans_module, "_KEPT", 4)
    await warm(db, BY_KEY)
    for n in range(1, 30):
        async with db.read() as session:
            await session.execute(select(Book.id).where(*[Book.id > 0] * n))
    lean.clear()

    async with db.read() as session:
        await session.scalar(BY_KEY)

    assert len(lean) == 1
    assert len(db.session.kw["lean"]._plans._learning) == 4


async def test_plans_that_are_used_stay_and_others_go(db, lean, monkeypatch):
    monkeypatch.setattr(plans_module, "_KEPT", 4)
    await warm(db, BY_KEY)
    for n in range(1, 30):
        await warm(db, select(Book.id).where(*[Book.id > 0] * n))
        async with db.read() as session:
            await session.scalar(BY_KEY)
    lean.clear()

    for n, expected in ((29, 1), (1, 0)):
        async with db.read() as session:
            await session.scalar(BY_KEY)
            await session.execute(select(Book.id).where(*[Book.id > 0] * n))

        assert (n, len(lean)) == (n, 1 + expected)
        lean.clear()
    plans = db.session.kw["lean"]._plans
    assert len(plans._plans) + len(plans._before) <= 8


def test_a_part_of_a_statement_that_outlives_its_module_at_exit_raises_nothing(monkeypatch):
    raised = []
    monkeypatch.setattr("sys.unraisablehook", raised.append)
    part = type("Part", (), {})()
    shapes._remember(part)

    monkeypatch.setattr(shapes, "_lasting", None)
    del part
    gc.collect()

    assert raised == []
