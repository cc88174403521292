"""Section 6: rows go in by COPY, in the session's transaction, in chunks that tune themselves."""

import asyncio
import datetime as dt
import decimal
import enum
import json
import tracemalloc
import uuid
from types import MappingProxyType
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    Sequence,
    String,
    Table,
    Text,
    TypeDecorator,
    Uuid,
    cast,
    event,
    func,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import CIDR, INET, INT4RANGE, JSONB, TSVECTOR, Range
from sqlalchemy.exc import DBAPIError, IntegrityError, StatementError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from verdigris import Database, bulk
from verdigris.bulk.tuning import Tuner
from verdigris.errors import ConfigurationError, classify
from verdigris.models import Guarded


class Base(Guarded, DeclarativeBase):
    pass


class Color(enum.Enum):
    RED = "r"
    BLUE = "b"


class Cents(TypeDecorator):
    """A price as cents in the column."""

    impl = Integer
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return None if value is None else int(value * 100)

    def process_result_value(self, value, dialect):
        return None if value is None else decimal.Decimal(value) / 100


class Lowered(TypeDecorator):
    """Text that the server lowers."""

    impl = String
    cache_ok = True

    def bind_expression(self, bindvalue):
        return func.lower(bindvalue)


class Thing(Base):
    __tablename__ = "thing"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    note: Mapped[str | None]
    active: Mapped[bool] = mapped_column(default=True)
    made: Mapped[dt.datetime] = mapped_column(server_default=func.now())
    key: Mapped[str] = mapped_column(
        "other_name", default=lambda context: f"key of {context.get_current_parameters().get('note')}"
    )


class Typed(Base):
    __tablename__ = "typed"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    color: Mapped[Color]
    text_color: Mapped[Color | None] = mapped_column(Enum(Color, native_enum=False, name="text_color"))
    colors: Mapped[list[Color] | None] = mapped_column(ARRAY(Enum(Color)))
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    data: Mapped[dict | None] = mapped_column(JSON)
    binary_data: Mapped[dict | None] = mapped_column(JSONB(none_as_null=True))
    span: Mapped[dt.timedelta | None] = mapped_column(Interval)
    blob: Mapped[bytes | None] = mapped_column(LargeBinary)
    ratio: Mapped[float | None]
    day: Mapped[dt.date | None]
    clock: Mapped[dt.time | None]
    local: Mapped[dt.datetime | None] = mapped_column(DateTime())
    at: Mapped[dt.datetime | None]
    big: Mapped[int | None] = mapped_column(BigInteger)
    text_id: Mapped[str | None] = mapped_column(Uuid(as_uuid=False))
    address: Mapped[str | None] = mapped_column(INET)
    network: Mapped[str | None] = mapped_column(CIDR)
    numbers: Mapped[Range[int] | None] = mapped_column(INT4RANGE)
    amount: Mapped[decimal.Decimal | None] = mapped_column(Numeric(20, 6))
    price: Mapped[decimal.Decimal | None] = mapped_column(Cents)


class Owner(Base):
    __tablename__ = "owner"

    id: Mapped[int] = mapped_column(primary_key=True)


friends = Table(
    "friends",
    Base.metadata,
    Column("one", ForeignKey("owner.id"), primary_key=True),
    Column("other", ForeignKey("owner.id"), primary_key=True),
    Column("since", Integer, default=2026),
)


class Owned(Base):
    __tablename__ = "owned"

    id: Mapped[int] = mapped_column(Identity(), primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("owner.id"))
    twice: Mapped[int] = mapped_column(Computed("owner_id * 2", persisted=True))


class Animal(Base):
    __tablename__ = "animal"
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]


class Cat(Animal):
    __mapper_args__: ClassVar = {"polymorphic_identity": "cat"}

    lives: Mapped[int | None]


class Dog(Animal):
    __tablename__ = "dog"
    __mapper_args__: ClassVar = {"polymorphic_identity": "dog"}

    id: Mapped[int] = mapped_column(ForeignKey("animal.id"), primary_key=True)
    bark: Mapped[str]


class Versioned(Base):
    __tablename__ = "versioned"
    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column()
    __mapper_args__: ClassVar = {"version_id_col": version}


class Numbered(Base):
    __tablename__ = "numbered"

    id: Mapped[int] = mapped_column(primary_key=True)


class Odd(Base):
    __tablename__ = "odd"

    id: Mapped[int] = mapped_column(primary_key=True)
    lowered: Mapped[str | None] = mapped_column(Lowered)
    words: Mapped[str | None] = mapped_column(TSVECTOR)
    server_set: Mapped[int] = mapped_column(default=func.length("four"))
    counted: Mapped[int] = mapped_column(Sequence("odd_counted"))


@pytest.fixture
async def db(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.dispose()


def things(count, start=0):
    return ({"name": f"thing {number}"} for number in range(start, start + count))


async def stored(db, statement):
    async with db.session() as session:
        return list(await session.scalars(statement))


async def number_of(db, entity=Thing):
    return (await stored(db, select(func.count()).select_from(entity)))[0]


# -- by COPY -----------------------------------------------------------------------------------------------------------


async def test_rows_go_in_by_copy_and_the_outcome_says_how(db):
    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, things(2_500))

    assert (done.rows, done.method, done.reason) == (2_500, "copy", None)
    assert sum(chunk.rows for chunk in done.chunks) == 2_500
    assert all(rate > 0 for rate in done.rates.values())
    assert str(done).startswith("2,500 rows in ")
    assert await number_of(db) == 2_500


async def test_rows_may_come_from_an_async_iterable_that_uses_the_session_itself(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Thing, things(1_500))

        async def copies():
            async for name in await session.stream_scalars(select(Thing.name)):
                yield {"name": f"copy of {name}"}

        done = await bulk.insert(session, Thing, copies(), chunk=700)

    assert [chunk.rows for chunk in done.chunks] == [700, 700, 100]
    assert await number_of(db) == 3_000


async def test_nothing_is_stored_until_the_session_commits(db):
    async with db.session() as session:
        await bulk.insert(session, Thing, things(10))
        inside = await session.scalar(select(func.count()).select_from(Thing))
        await session.rollback()

    assert inside == 10
    assert await number_of(db) == 0


async def test_a_savepoint_undoes_it(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Thing, things(3))
        savepoint = await session.begin_nested()
        await bulk.insert(session, Thing, things(3, start=3))
        await savepoint.rollback()

    assert await number_of(db) == 3


async def test_what_the_session_holds_is_flushed_first(db):
    async with db.session.begin() as session:
        session.add(Owner(id=7))
        await bulk.insert(session, Owned, [{"owner_id": 7}])

    assert await stored(db, select(Owned.twice)) == [14]


async def test_defaults_of_every_kind_are_applied(db):
    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, [{"name": "a"}, {"name": "b", "note": "n"}])

    (first, second) = await stored(db, select(Thing).order_by(Thing.name))
    assert done.method == "copy"
    assert (first.active, first.note, first.key, second.key) == (True, None, "key of None", "key of n")
    assert first.made.tzinfo is not None
    assert first.id != second.id


async def test_none_is_null_even_where_there_is_a_default(db):
    with pytest.raises(IntegrityError, match="active"):
        async with db.session.begin() as session:
            await bulk.insert(session, Thing, [{"name": "a", "active": None}])


@pytest.mark.parametrize(
    "row",
    [
        {"color": Color.RED},
        {
            "color": Color.BLUE,
            "text_color": Color.RED,
            "colors": [Color.RED, Color.BLUE],
            "tags": ["a", "b,c", 'd"e'],
            "data": {"a": [1, None, "ü"]},
            "binary_data": {"b": {"c": 1.5}},
            "span": dt.timedelta(days=40, seconds=5, microseconds=7),
            "blob": b"\x00\xff",
            "ratio": 1.5,
            "day": dt.date(2026, 2, 28),
            "clock": dt.time(23, 59, 1, 5),
            "local": dt.datetime(2026, 1, 1),  # noqa: DTZ001 - the column has no zone
            "at": dt.datetime(2026, 1, 1, tzinfo=dt.UTC),
            "big": 2**62,
            "text_id": "084a87a1-7f57-45b0-a2a6-c220877c0fe2",
            "address": "10.0.0.1",
            "network": "10.0.0.0/8",
            "numbers": Range(1, 5),
            "amount": decimal.Decimal("12345678.123456"),
            "price": decimal.Decimal("19.99"),
        },
    ],
)
async def test_copy_stores_what_an_insert_stores(db, row):
    async with db.session.begin() as session:
        copied = await bulk.insert(session, Typed, [row])
        session.add(Typed(**row))

    one, other = await stored(db, select(Typed))
    values = [{**vars(each), "id": None, "_sa_instance_state": None} for each in (one, other)]
    assert copied.method == "copy"
    assert values[0] == values[1]


async def test_a_json_column_tells_null_from_none(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Typed, [{"color": Color.RED, "data": None, "binary_data": None}])

    query = select(cast(Typed.data, Text), Typed.binary_data.is_(None))
    async with db.session() as session:
        assert (await session.execute(query)).one() == ("null", True)


async def test_a_single_table_subclass_gets_its_discriminator(db):
    async with db.session.begin() as session:
        done = await bulk.insert(session, Cat, [{"lives": 9}, {"lives": 7}])

    assert done.method == "copy"
    assert [type(animal) for animal in await stored(db, select(Animal))] == [Cat, Cat]


async def test_a_version_counter_begins_where_the_orm_begins_it(db):
    async with db.session.begin() as session:
        done = await bulk.insert(session, Versioned, [{}, {}])
        session.add(Versioned())

    assert done.method == "copy"
    assert await stored(db, select(Versioned.version)) == [1, 1, 1]


async def test_an_association_table_is_filled_by_its_columns(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Owner, [{"id": 1}, {"id": 2}])
        done = await bulk.insert(session, friends, [{"one": 1, "other": 2}, {"one": 2, "other": 1}])

    assert done.method == "copy"
    assert await stored(db, select(friends.c.since)) == [2026, 2026]


async def test_rows_of_changing_shape_go_together_where_null_says_the_same(db):
    rows = [
        {"name": "a"},
        {"name": "b", "note": "n"},
        {"name": "c"},
        {"note": "m", "name": "d"},
        {"name": "e", "active": False},
    ]

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, rows)

    assert [chunk.rows for chunk in done.chunks] == [1, 3, 1]
    assert await stored(db, select(Thing.note).order_by(Thing.name)) == [None, "n", None, "m", None]


async def test_any_mapping_is_a_row_and_no_rows_are_no_statement(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Thing, [MappingProxyType({"name": "a"})])
        nothing = await bulk.insert(session, Thing, [])

    assert (nothing.rows, nothing.chunks, nothing.method) == (0, (), "none")
    assert await number_of(db) == 1


async def test_progress_is_told_after_each_chunk_and_may_be_awaited(db):
    told = []

    async def progress(so_far):
        told.append(so_far.rows)

    async with db.session.begin() as session:
        await bulk.insert(session, Thing, things(25), chunk=10, progress=progress)
        await bulk.insert(session, Thing, things(5, start=100), progress=lambda so_far: told.append(so_far.rows))

    assert told == [10, 20, 25, 5]


async def test_the_time_of_copy_is_among_the_query_times(db):
    async with db.session.begin() as session:
        await bulk.insert(session, Thing, things(5))

    (copy,) = [query for query in db.queries if query.fingerprint.startswith("COPY")]
    assert (copy.fingerprint, copy.count) == ("COPY thing FROM STDIN", 1)
    assert "test_bulk.py" in copy.sites[0].place


# -- by INSERT, where COPY can't ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entity", "rows", "reason"),
    [
        (Dog, [{"bark": "wuff"}], "Dog is mapped to more than one table"),
        (Odd, [{"lowered": "ABC", "server_set": 1, "counted": 1}], "lowered has a type with SQL of its own"),
        (Odd, [{"words": "a b", "server_set": 1, "counted": 1}], "words is a TSVECTOR"),
        (Odd, [{"counted": 1}], "the default of server_set is SQL"),
        (Odd, [{"server_set": 1}], "the default of counted is SQL"),
        (Thing, [{"name": func.upper("abc")}, {"name": "plain"}], "a value is SQL"),
        (Thing, [{"name": "plain"}, {"name": text("'abc'")}], "a value is SQL"),
    ],
)
async def test_what_copy_cannot_carry_goes_by_insert_and_the_outcome_says_why(db, entity, rows, reason):
    async with db.session.begin() as session:
        done = await bulk.insert(session, entity, rows)

    assert done.method == "insert"
    assert done.reason.startswith(reason)
    assert await number_of(db, entity) == len(rows)


async def test_under_row_level_security_rows_go_by_insert_and_the_policy_holds(db, admin):
    role = f"tenant_{db.url.database}"
    await admin(f"CREATE ROLE {role}")
    await admin(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    await admin(f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}")
    await admin("ALTER TABLE thing ENABLE ROW LEVEL SECURITY")
    await admin("CREATE POLICY own ON thing USING (true) WITH CHECK (name LIKE 'mine%')")

    async def insert(*names, chunk=None):
        async with db.session.begin() as session:
            await session.execute(text(f"SET LOCAL ROLE {role}"))
            return await bulk.insert(session, Thing, [{"name": name} for name in names], chunk=chunk)

    done = await insert("mine 1", "mine 2", "mine 3", chunk=2)
    with pytest.raises(DBAPIError, match="row-level security"):
        await insert("another's")
    async with db.session.begin() as session:
        owner = await bulk.insert(session, Thing, [{"name": "the owner's"}])

    assert (done.rows, done.method, done.reason) == (3, "insert", "row-level security of thing holds for this role")
    assert owner.method == "copy"
    assert await number_of(db) == 4
    await admin(f"DROP OWNED BY {role}")
    await admin(f"DROP ROLE {role}")


async def test_rows_without_any_value_get_the_servers(db):
    async with db.session.begin() as session:
        done = await bulk.insert(session, Numbered, [{}, {}])

    assert done.reason == "the rows name no column"
    assert await number_of(db, Numbered) == 2


async def test_only_the_chunk_that_holds_an_expression_goes_by_insert(db):
    rows = [*things(10), {"name": func.upper("abc")}, *things(9, start=10)]

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, rows, chunk=10)

    assert [chunk.method for chunk in done.chunks] == ["copy", "insert"]
    assert done.method == "mixed"
    assert "ABC" in await stored(db, select(Thing.name))


async def test_a_great_many_expressions_do_not_exceed_what_a_statement_can_carry(db):
    rows = ({"name": func.upper(f"thing {number}"), "note": "n"} for number in range(9_000))

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, rows, chunk=9_000)

    assert (done.method, await number_of(db)) == ("insert", 9_000)


async def test_a_driver_without_copy_goes_by_insert(db, monkeypatch):
    monkeypatch.setattr(db.engine.sync_engine.dialect, "driver", "another")

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, things(3))

    assert done.reason == "the driver is another, not asyncpg"
    assert await number_of(db) == 3


# -- errors ------------------------------------------------------------------------------------------------------------


async def test_a_duplicate_names_the_table_and_the_row_and_leaves_the_transaction_to_the_caller(db):
    rows = [*things(12), {"name": "thing 3"}, *things(5, start=20)]

    async with db.session() as session:
        with pytest.raises(IntegrityError) as raised:
            await bulk.insert(session, Thing, rows, chunk=10)
        with pytest.raises(DBAPIError, match="current transaction is aborted"):
            await session.execute(text("SELECT 1"))
        await session.rollback()
        await bulk.insert(session, Thing, things(1))
        await session.commit()

    where = bulk.position(raised.value)
    assert (where.table, where.first, where.last, where.row) == ("thing", 10, 17, 12)
    assert "bulk.insert into thing: row 12, counted from 0" in str(raised.value)
    assert classify(raised.value).name == "duplicate"
    assert await number_of(db) == 1


@pytest.mark.parametrize("wrong", [{"ratio": "no number"}, {"big": 2**70}, {"at": "yesterday"}, {"data": {1, 2}}])
async def test_a_value_that_cannot_be_encoded_names_its_row(db, wrong):
    rows = [{"color": Color.RED, "ratio": 1.0, "big": 1, "at": None, "data": None}] * 3

    with pytest.raises(StatementError) as raised:
        async with db.session.begin() as session:
            await bulk.insert(session, Typed, [*rows, {**rows[0], **wrong}, *rows])

    assert bulk.position(raised.value).row == 3
    assert await number_of(db, Typed) == 0


async def test_a_foreign_key_that_leads_nowhere_names_the_rows_of_its_chunk(db):
    with pytest.raises(IntegrityError) as raised:
        async with db.session.begin() as session:
            await bulk.insert(session, Owned, [{"owner_id": 1}, {"owner_id": 2}])

    where = bulk.position(raised.value)
    assert (where.first, where.last, where.row) == (0, 1, None)
    assert str(where) == "bulk.insert into owned: one of the rows 0 to 1, counted from 0"


async def test_a_failed_insert_without_copy_names_the_rows_of_its_chunk(db):
    with pytest.raises(IntegrityError) as raised:
        async with db.session.begin() as session:
            await bulk.insert(session, Thing, [{"name": func.upper("a")}, {"name": func.upper("a")}])

    assert bulk.position(raised.value).last == 1


async def test_a_key_that_is_no_column_is_refused_before_anything_is_sent(db):
    async with db.session.begin() as session:
        with pytest.raises(
            ConfigurationError, match=r"Row 1 for thing has the key 'naem', and Thing has no such column"
        ):
            await bulk.insert(session, Thing, [{"name": "a"}, {"naem": "b"}])
        await bulk.insert(session, Thing, [{"name": "c"}])

    assert await stored(db, select(Thing.name)) == ["c"]


@pytest.mark.parametrize("size", [{"chunk": 0}, {"memory": -1}])
async def test_a_size_that_none_can_have_is_refused_by_name(db, size):
    async with db.session.begin() as session:
        with pytest.raises(ConfigurationError, match=f"{next(iter(size))}="):
            await bulk.insert(session, Thing, things(1), **size)


async def test_a_class_that_is_not_mapped_is_refused(db):
    async with db.session() as session:
        with pytest.raises(ConfigurationError, match="not a mapped class"):
            await bulk.insert(session, Color, [])


async def test_a_source_that_fails_leaves_what_was_sent_to_the_caller(db):
    def rows():
        yield from things(15)
        raise LookupError("the file ends in the middle")

    async with db.session.begin() as session:
        with pytest.raises(LookupError):
            await bulk.insert(session, Thing, rows(), chunk=10)

    assert await number_of(db) == 10


async def test_a_cancelled_insert_stores_nothing_and_gives_its_connection_back(db):
    async def rows():
        for row in things(1_000_000):
            yield row

    async def insert():
        async with db.session.begin() as session:
            await bulk.insert(session, Thing, rows(), chunk=1_000)

    task = asyncio.create_task(insert())
    await asyncio.sleep(0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert db.pool_status().in_use == 0
    assert await number_of(db) == 0


# -- memory and tuning -------------------------------------------------------------------------------------------------


async def test_memory_does_not_grow_with_the_number_of_rows(db):
    async def peak(count, start):
        tracemalloc.start()
        async with db.session.begin() as session:
            await bulk.insert(session, Thing, things(count, start=start), chunk=500)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    await peak(1_000, 0)

    assert await peak(20_000, 100_000) < 2 * await peak(2_000, 10_000)


async def test_wide_rows_go_in_smaller_chunks(db):
    rows = ({"name": f"thing {number}", "note": "x" * 10_000} for number in range(3_000))

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, rows, memory=2_000_000)

    assert max(chunk.rows for chunk in done.chunks) <= 200


@pytest.mark.parametrize(
    "wide",
    [{"body": "x" * 10_000}, {"lines": ["x" * 100] * 100}, [{"a": {"b": [str(number)] * 200}} for number in range(8)]],
)
async def test_what_json_values_hold_counts(db, wide):
    rows = ({"color": Color.RED, "data": json.loads(json.dumps(wide))} for _ in range(1_000))

    async with db.session.begin() as session:
        done = await bulk.insert(session, Typed, rows, memory=2_000_000)

    assert max(chunk.rows for chunk in done.chunks) <= 200


async def test_the_first_chunk_keeps_within_the_memory_and_chunks_grow_again_behind_wide_rows(db):
    notes = ["x" * 100_000] * 40 + [None] * 5_000 + ["y" * 100_000] * 40
    rows = ({"name": f"thing {number}", "note": note} for number, note in enumerate(notes))

    async with db.session.begin() as session:
        done = await bulk.insert(session, Thing, rows, memory=2_000_000)

    assert done.chunks[0].rows <= 20
    assert max(chunk.rows for chunk in done.chunks) >= 500


def run(tuner, rate_of, chunks=40, row_bytes=100.0):
    """Feed a tuner with a made-up machine and return the sizes it chose."""
    sizes = []
    for _ in range(chunks):
        sizes.append(tuner.size)
        tuner.learn(tuner.size, tuner.size / rate_of(tuner.size), row_bytes)
    return sizes


def test_the_size_grows_while_that_pays():
    sizes = run(Tuner(), lambda size: size / (size + 3_000))

    assert sizes[:4] == [1_000, 2_000, 4_000, 8_000]
    assert sizes[-1] == 8_000


def test_the_size_shrinks_where_smaller_is_as_fast():
    assert run(Tuner(), lambda _size: 50_000.0)[-1] == 500


@given(st.dictionaries(st.integers(0, 20), st.floats(1.0, 1e6), min_size=1), st.floats(1, 1e7))
def test_the_size_stays_within_its_bounds_whatever_is_measured(rates, row_bytes):
    values = list(rates.values())

    sizes = run(Tuner(), lambda size: values[size % len(values)], row_bytes=row_bytes)

    assert all(1 <= size <= 10_000 for size in sizes)
    assert all(size * row_bytes <= 17_000_000 or size == 1 for size in sizes[1:])


def test_a_size_that_is_given_is_kept():
    assert set(run(Tuner.fixed(123), lambda size: size)) == {123}


async def test_the_insert_events_of_objects_are_not_fired(db):
    seen = []
    event.listen(Thing, "before_insert", lambda *_: seen.append(1))

    async with db.session.begin() as session:
        await bulk.insert(session, Thing, things(1))

    assert seen == []
