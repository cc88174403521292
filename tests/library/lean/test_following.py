"""Collections of a load: their statements are sent before objects are made, and what is loaded is SQLAlchemy's own."""

import asyncio
import gc
import weakref
from uuid import UUID, uuid5

import pytest
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Table, event, inspect, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession as PlainSession
from sqlalchemy.orm import Mapped, Session, aliased, joinedload, mapped_column, relationship, selectinload

from verdigris import Base, Database
from verdigris.lean.reads import LeanReads

NAMES = UUID(int=7)


class Depot(Base):
    __tablename__ = "depots"
    code: Mapped[str] = mapped_column(primary_key=True)
    crates: Mapped[list["Crate"]] = relationship(back_populates="depot", order_by="Crate.number.desc()")


crate_marks = Table(
    "crate_marks",
    Base.metadata,
    Column("crate_id", ForeignKey("crates.id"), primary_key=True),
    Column("mark_id", ForeignKey("marks.id"), primary_key=True, index=True),
)


class Crate(Base):
    __tablename__ = "crates"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    number: Mapped[int]
    depot_code: Mapped[str | None] = mapped_column(ForeignKey("depots.code"))
    inside_id: Mapped[UUID | None] = mapped_column(ForeignKey("crates.id"))
    depot: Mapped[Depot | None] = relationship(back_populates="crates")
    seals: Mapped[list["Seal"]] = relationship(order_by="Seal.number")
    label: Mapped["Label | None"] = relationship()
    marks: Mapped[list["Mark"]] = relationship(secondary=crate_marks, order_by="Mark.id")
    inside: Mapped[list["Crate"]] = relationship(order_by="Crate.number")


class Label(Base):
    __tablename__ = "labels"
    id: Mapped[int] = mapped_column(primary_key=True)
    crate_id: Mapped[UUID] = mapped_column(ForeignKey("crates.id"), unique=True)


class Seal(Base):
    __tablename__ = "seals"
    crate_id: Mapped[UUID] = mapped_column(ForeignKey("crates.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    dents: Mapped[list["Dent"]] = relationship(order_by="Dent.id")


class Dent(Base):
    __tablename__ = "dents"
    id: Mapped[int] = mapped_column(primary_key=True)
    crate_id: Mapped[UUID] = mapped_column(index=True)
    number: Mapped[int]
    __table_args__ = (ForeignKeyConstraint(["crate_id", "number"], ["seals.crate_id", "seals.number"]),)


class Mark(Base):
    __tablename__ = "marks"
    id: Mapped[int] = mapped_column(primary_key=True)


TABLES = [each.__table__ for each in (Depot, Crate, Label, Seal, Dent, Mark)] + [crate_marks]
CRATES = 602


def crate(number):
    return uuid5(NAMES, str(number))


@pytest.fixture
async def db(database_url):
    database = Database(database_url, pool_size=2, max_overflow=0)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all, tables=TABLES)
    async with database.session.begin() as session:
        marks = [Mark(id=n) for n in range(3)]
        depots = [Depot(code=code) for code in ("a", "ä'{}$1", "empty")]
        session.add_all([*marks, *depots])
        for n in range(CRATES):
            one = Crate(id=crate(n), number=n, marks=marks[: n % 4], depot_code=(*"aa", None)[n % 3])
            one.inside_id = crate(n // 2) if 0 < n < 9 else None
            one.seals = [Seal(number=number) for number in range(n % 3)]
            one.label = Label(id=n) if n % 2 else None
            session.add(one)
        crates = await session.scalars(select(Crate).where(Crate.number.between(3, 5)))
        for one in crates:
            one.depot_code = "ä'{}$1"
        session.add_all([Dent(id=n, crate_id=crate(2 + 3 * n), number=1) for n in range(4)])
    yield database
    await database.dispose()


@pytest.fixture
def sent(monkeypatch):
    """The statements that were sent without SQLAlchemy's engine, with how many objects their session had by then."""
    texts = []
    original = LeanReads._sent

    async def spy(reads, session, text, arguments, **options):
        texts.append((text, len(session.identity_map)))
        return await original(reads, session, text, arguments, **options)

    monkeypatch.setattr(LeanReads, "_sent", spy)
    return texts


def told(value, above=()):
    """What is loaded of an instance, and of what it is joined to."""
    if isinstance(value, list):
        return [told(each, above) for each in value]
    if not isinstance(value, Base):
        return value
    if value in above:
        return inspect(value).identity
    return {
        name: told(each, (*above, value)) for name, each in sorted(vars(value).items()) if not name.startswith("_sa")
    }


OTHER = aliased(Crate)
DEPOTS = select(Depot).order_by(Depot.code)
FEW = select(Crate).where(Crate.number < 7).order_by(Crate.number)

#: By what they show: a statement, and how many are sent without the engine.
KNOWN = {
    "keys that are text": (DEPOTS.options(selectinload(Depot.crates)), 2),
    "keys that are UUIDs": (FEW.options(selectinload(Crate.seals)), 2),
    "more keys than one statement takes": (select(Crate).order_by(Crate.number).options(selectinload(Crate.seals)), 3),
    "three levels": (DEPOTS.options(selectinload(Depot.crates).selectinload(Crate.seals)), 3),
    "two at one level": (FEW.options(selectinload(Crate.seals), selectinload(Crate.marks)), 3),
    "one to one": (FEW.options(selectinload(Crate.label)), 2),
    "by way of a secondary table": (FEW.options(selectinload(Crate.marks)), 2),
    "of what is joined, or is not there": (FEW.options(joinedload(Crate.depot).selectinload(Depot.crates)), 2),
    "of an alias": (select(OTHER).where(OTHER.number < 7).order_by(OTHER.number).options(selectinload(OTHER.seals)), 2),
    "one level of a tree": (FEW.options(selectinload(Crate.inside)), 2),
    "a tree, two levels written out": (FEW.options(selectinload(Crate.inside).selectinload(Crate.inside)), 3),
    "beside a column": (select(Crate, Crate.number + 1).where(Crate.number < 5).options(selectinload(Crate.seals)), 2),
}
#: What SQLAlchemy sends itself.
LEFT = {
    "a tree to its end": FEW.options(selectinload(Crate.inside, recursion_depth=-1)),
    "many to one": FEW.options(selectinload(Crate.depot)),
    "keys of two columns": select(Seal).order_by(Seal.crate_id, Seal.number).options(selectinload(Seal.dents)),
    "criteria with a value": FEW.options(selectinload(Crate.seals.and_(Seal.number > 0))),
    "below what is left": FEW.options(selectinload(Crate.depot).selectinload(Depot.crates)),
}


@pytest.mark.parametrize("opened", ["read", "session"])
async def test_what_is_loaded_is_what_sqlalchemy_loads(db, sent, opened):
    for name, statement in {**{name: known for name, (known, _) in KNOWN.items()}, **LEFT}.items():
        async with PlainSession(db.engine) as plain:
            expected = [[told(value) for value in row] for row in await plain.execute(statement)]
        for _ in range(4):
            sent.clear()
            async with getattr(db, opened)() as session:
                found = [[told(value) for value in row] for row in await session.execute(statement)]

                assert (name, found) == (name, expected)
                assert "execute" not in vars(session.sync_session)

        assert (name, len(sent)) == (name, KNOWN[name][1] if name in KNOWN else 1)
        assert not any(objects for _, objects in sent)


async def test_a_load_in_autocommit_leaves_no_transaction_and_no_connection_behind(db):
    statement = DEPOTS.options(selectinload(Depot.crates))
    for _ in range(3):
        async with db.read() as session:
            await session.execute(statement)
            left = session.in_transaction(), db.pool_status().in_use

    assert left == (False, 0)


async def test_what_the_session_has_already_stays_as_it_is(db, sent):
    statement = FEW.options(selectinload(Crate.seals))
    for _ in range(3):
        async with db.session() as session:
            first = await session.scalar(FEW.limit(1))
            await session.refresh(first, ["seals"])
            await session.commit()
            first.seals.clear()
            session.sync_session.expunge_all()
            session.sync_session.autoflush = False
            session.add(first)
            found = (await session.scalars(statement)).all()

            assert found[0] is first
            assert first.seals == []
            assert [len(each.seals) for each in found] == [0, 1, 2, 0, 1, 2, 0]
            await session.rollback()


async def test_listeners_of_what_is_loaded_hear_it_with_its_session(db, sent):
    statement = FEW.options(selectinload(Crate.seals))
    heard = []

    def loaded(seal, context):
        heard.append((seal.number, type(context.session)))

    event.listen(Seal, "load", loaded)
    try:
        for _ in range(3):
            heard.clear()
            sent.clear()
            async with db.session() as session:
                await session.execute(statement)
    finally:
        event.remove(Seal, "load", loaded)

    assert len(sent) == 2
    assert heard == [(number, Session) for number in (0, 0, 0, 0, 1, 1)]


async def test_a_plan_is_found_when_many_ask_at_once_from_the_first_moment(db, sent):
    statement = FEW.options(selectinload(Crate.seals))

    async def ask():
        async with db.read() as session:
            return len((await session.scalars(statement)).all())

    for _ in range(3):
        sent.clear()
        assert await asyncio.gather(*[ask() for _ in range(12)]) == [7] * 12

    assert len(sent) == 24


async def test_parents_without_rows_are_learnt_from_later(db, sent):
    def nth(number):
        return select(Crate).where(Crate.number == number).options(selectinload(Crate.seals))

    for number in (-1, -1, -1, -1, -1, 2, 2, 2, 2):
        sent.clear()
        async with db.read() as session:
            found = [len(each.seals) for each in await session.scalars(nth(number))]

    assert found == [2]
    assert len(sent) == 2


async def test_an_error_of_a_following_statement_is_the_sessions(db, admin):
    statement = FEW.options(selectinload(Crate.marks))
    for _ in range(3):
        async with db.session() as session:
            await session.execute(statement)
    async with db.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all, tables=[crate_marks])

    for opened in (db.session, db.read):
        async with opened() as session:
            with pytest.raises(DBAPIError, match="crate_marks"):
                await session.execute(statement)
            assert not list(session.sync_session.identity_map.values())
    assert db.pool_status().in_use == 0


async def test_no_session_is_kept(db, sent):
    opened = []
    for _ in range(4):
        async with db.session() as session:
            await session.execute(FEW.options(selectinload(Crate.seals), joinedload(Crate.depot)))
            opened.append(weakref.ref(session.sync_session))
        del session
    gc.collect()

    assert sent
    assert [kept() for kept in opened] == [None] * 4
