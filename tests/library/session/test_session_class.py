"""A team's own class of sessions: each session of a Database is one, with what the Database promises of its own."""

import asyncio
import logging
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI
from pydantic import BaseModel
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession as TheirSession
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelSession

from verdigris import AsyncSession, Database
from verdigris.errors import ConfigurationError, ReadOnlyError, SessionClosedError, SessionSharedError, UnflushedError
from verdigris.fastapi import ReadRouter, Route, install
from verdigris.testing import Sandbox


class Base(DeclarativeBase):
    pass


class Note(Base):
    __tablename__ = "own_session_note"
    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]
    gone: Mapped[bool] = mapped_column(default=False)


class NoteOut(BaseModel):
    id: int


class Audited(AsyncSession):
    """With what teams put into such a class: an option of its own, a helper, something to do at the end."""

    def __init__(self, *args: Any, audit: list[str] | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self.audit = [] if audit is None else audit

    async def remove(self, note: Note) -> None:
        note.gone = True
        await self.flush()

    async def notes(self) -> list[int]:
        return list(await self.scalars(select(Note.id).where(~Note.gone).order_by(Note.id)))

    async def commit(self) -> None:
        self.audit.append("commit")
        await super().commit()


class Hiding(AsyncSession):
    """With a statement's way changed for all."""

    async def execute(self, statement: Any, *args: Any, **options: Any) -> Any:
        if getattr(statement, "is_select", False) and Note.__table__ in statement.get_final_froms():
            statement = statement.where(~Note.gone)
        return await super().execute(statement, *args, **options)


class Inner(Session):
    """A synchronous half of its own: listeners belong to it."""

    told: list[str]

    def flush(self, objects: Any = None) -> None:
        self.info.setdefault("flushes", []).append(len(self.new))
        super().flush(objects)


class WithInner(AsyncSession):
    sync_session_class = Inner


async def database(url, kind, **options):
    made = Database(url, session_class=kind, **options)
    async with made.engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)
        await connection.run_sync(Base.metadata.create_all)
    async with made.session.begin() as session:
        session.add_all([Note(id=1, text="one"), Note(id=2, text="two"), Note(id=3, text="gone", gone=True)])
    return made


@pytest.fixture
async def db(database_url):
    made = await database(database_url, Audited)
    yield made
    await made.dispose()


async def test_every_session_is_one(db):
    async def unit(session):
        return isinstance(session, Audited), await session.notes()

    async with db.session() as session, db.read() as reading, db.read(snapshot=True) as snapshot:
        assert all(isinstance(each, Audited) for each in (session, reading, snapshot))
        assert await session.notes() == await reading.notes() == await snapshot.notes() == [1, 2]
    assert await db.transaction(unit) == (True, [1, 2])
    assert await db.gather(unit, unit) == ((True, [1, 2]), (True, [1, 2]))


async def test_an_option_of_its_own_is_given_to_the_factory(db):
    audit = []
    async with db.session(audit=audit) as session:
        await session.remove(await session.get_one(Note, 1))
        await session.commit()

    assert audit == ["commit"]
    async with db.session() as session:
        assert await session.notes() == [2]


async def test_what_a_database_promises_of_its_sessions_holds(db):
    async with db.session() as session:
        with pytest.raises(SessionSharedError):
            await asyncio.gather(session.notes(), session.notes())
    with pytest.raises(SessionClosedError):
        await session.notes()
    async with db.read() as reading:
        with pytest.raises(ReadOnlyError):
            await reading.remove(await reading.get_one(Note, 1))


def public(names):
    return {name for name in names if not name.startswith("_")}


async def test_all_public_names_but_exec_are_sqlalchemys_and_free_for_a_class_to_use(database_url):
    db = Database(database_url)
    their = TheirSession(db.engine)

    async with db.session() as session, db.session.begin() as begun, db.read() as reading, their:
        await begun.execute(select(1))
        own = [
            public({*dir(each), *vars(each)}) - public({*dir(their), *vars(their)})
            for each in (session, begun, reading)
        ]

    await db.dispose()
    assert own == [{"exec"}] * 3


async def test_a_requests_session_is_one_and_its_commit_is_the_classs_own(db):
    app, routes = FastAPI(), APIRouter(route_class=Route)
    install(app, db)
    seen = []

    @routes.post("/used")
    async def used(session: Annotated[Audited, Depends(db.request_session, scope="function")]) -> list[int]:
        seen.append(session)
        await session.remove(await session.get_one(Note, 1))
        return await session.notes()

    @routes.post("/unused")
    async def unused(session: Annotated[Audited, Depends(db.request_session, scope="function")]) -> None:
        seen.append(session)

    app.include_router(routes)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.post("/used")).json() == [2]
        assert (await client.post("/unused")).status_code == 200

    assert [each.audit for each in seen] == [["commit"], ["commit"]]
    async with db.session() as session:
        assert await session.notes() == [2]


@pytest.mark.parametrize("alone", [True, False])
async def test_a_replicas_session_is_one_and_turns_to_the_primary(database_url, alone):
    made = await database(database_url, Hiding)
    await made.dispose()
    replica = database_url if alone else database_url.replace("127.0.0.1", "127.0.0.9")
    db = Database(database_url, session_class=Hiding, replicas=[replica], max_lag=3600)
    statement = select(Note.id).order_by(Note.id)

    async with db.read() as session:
        assert isinstance(session, Hiding)
        assert (await session.execute(statement)).scalars().all() == [1, 2]
        assert (await session.scalars(statement)).all() == [1, 2]
    await db.dispose()


class Routed(Session):
    def __init_subclass__(cls, *, shard: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.shard = shard


class Named(Routed, shard="one"):
    pass


class Registered(AsyncSession):
    sync_session_class = Named

    def __init_subclass__(cls, *, audit: str, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.audit = audit


class Registering(Registered, audit="all"):
    pass


async def test_a_class_whose_subclasses_say_keywords_serves_replicas_and_reads(database_url, monkeypatch):
    await (await database(database_url, Audited)).dispose()
    db = Database(database_url, session_class=Registering, replicas=[database_url], autoflush=False)

    for chosen in (None, next(iter(db.replicas))):
        monkeypatch.setattr(db.replicas, "choose", lambda *_, chosen=chosen: chosen)
        async with db.read() as session:
            assert (await session.scalars(select(Note.id).order_by(Note.id))).all() == [1, 2, 3]
            assert (session.audit, session.sync_session.shard) == ("all", "one")
    async with db.session() as session:
        assert (session.audit, session.sync_session.shard) == ("all", "one")
    await db.dispose()


@pytest.mark.parametrize("shortcuts", [True, False])
async def test_a_listener_of_one_read_session_sets_its_transactions_up(database_url, shortcuts):
    db = Database(database_url, shortcuts=shortcuts)
    tenant, plain = text("SELECT current_setting('app.tenant', true)"), select(func.current_setting("app.tenant", True))

    def set_tenant(session, transaction, connection):
        connection.exec_driver_sql("SELECT set_config('app.tenant', '7', true)")

    async with db.read() as session:
        seen = [await session.scalar(plain)]
        event.listen(session.sync_session, "after_begin", set_tenant)
        seen += [await session.scalar(plain), await session.scalar(tenant), await session.scalar(plain)]
        await session.commit()
        seen += [await session.scalar(plain), (await session.execute(tenant)).scalar()]
    async with db.read() as session:
        assert not await session.scalar(plain)
    await db.dispose()

    assert not seen[0]
    assert seen[1:] == ["7"] * 5


async def test_a_json_read_asks_an_execute_of_ones_own(database_url, caplog):
    db = await database(database_url, Hiding)
    reads, app = ReadRouter(db), FastAPI()
    install(app, db)

    @reads.get("/notes", response_model=list[NoteOut])
    def notes():
        return select(Note).order_by(Note.id)

    class Page(BaseModel):
        items: list[NoteOut]
        total: int

    app.include_router(reads)
    wanted = b'[{"id":1},{"id":2}]'
    statement = notes()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        assert (await client.get("/notes")).content == wanted
    assert (await db.json(statement, list[NoteOut])).body == wanted
    assert (await db.json(statement.limit(1), Page)).body == b'{"items":[{"id":1}],"total":2}'
    assert [each.id for each in await db.fetch(statement, list[NoteOut])] == [1, 2]
    assert b"".join([part async for part in db.json_stream(statement, list[NoteOut]).body_iterator]) == wanted
    async with db.session() as session:
        assert (await db.json(statement, list[NoteOut], session=session)).body == wanted
    assert "read by load(), because of Hiding.execute(), which may change what it reads" in caplog.text
    await db.dispose()


async def test_a_json_read_in_a_session_of_another_class_asks_it_too(db):
    async with Hiding(db.engine) as session:
        body = (await db.json(select(Note).order_by(Note.id), list[NoteOut], session=session)).body

    assert body == b'[{"id":1},{"id":2}]'
    assert db.json_read(select(Note), list[NoteOut]).fallback is None


async def test_a_class_that_changes_nothing_of_statements_keeps_the_short_ways(db, caplog):
    async with db.session() as session:
        assert session._lean is not None
    assert db.json_read(select(Note), list[NoteOut]).fallback is None
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


async def test_a_synchronous_half_of_ones_own_is_taken_and_its_listeners_are_asked(database_url):
    db = await database(database_url, WithInner)

    def only_two(state):
        if state.is_select:
            state.statement = state.statement.where(Note.id == 2)

    event.listen(Inner, "do_orm_execute", only_two)
    try:
        async with db.session() as session, db.read() as reading:
            session.add(Note(id=4, text="four"))
            await session.flush()
            assert session.info["flushes"] == [1]
            assert (
                (await session.scalars(select(Note.id))).all() == (await reading.scalars(select(Note.id))).all() == [2]
            )
        assert (await db.json(select(Note), list[NoteOut])).body == b'[{"id":2}]'
        async with db.read() as reading:
            reading.add(Note(id=5, text="five"))
            with pytest.raises(ReadOnlyError):
                await reading.flush()
            reading.expunge_all()
    finally:
        event.remove(Inner, "do_orm_execute", only_two)
    await db.dispose()


async def test_explicit_flushes_hold_in_a_synchronous_half_of_ones_own(database_url):
    db = await database(database_url, WithInner, autoflush=False)
    async with db.session() as session:
        session.add(Note(id=4, text="four"))
        with pytest.raises(UnflushedError):
            await session.scalars(select(Note))
    await db.dispose()


async def test_a_sandbox_and_a_substitute_have_it(db, database_url):
    sandbox = Sandbox(database_url, session_class=Audited)
    plain = Sandbox(database_url)
    for made in (sandbox, plain):
        with made.standing_in(db):
            async with db.session.begin() as session:
                await session.remove(await session.get_one(Note, 1))
            async with db.read() as reading:
                assert await reading.notes() == [2]
        await made.dispose()
    async with db.session() as session:
        assert await session.notes() == [1, 2]


async def test_an_engine_that_was_taken_over_has_it(database_url):
    db = Database.from_engine(create_async_engine(database_url), session_class=Audited)
    async with db.session() as session:
        assert isinstance(session, Audited)
    await db.dispose()


class Theirs(TheirSession):
    pass


class OfSQLModel(SQLModelSession):
    pass


class Narrow(AsyncSession):
    def __init__(self, bind: Any) -> None:
        super().__init__(bind)


class Wrong(AsyncSession):
    sync_session_class = dict


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Theirs, "session_class= is Theirs, which is not derived from verdigris.AsyncSession"),
        (OfSQLModel, r"import AsyncSession   # it has SQLModel's exec\(\), with the same results"),
        (Audited(), "which is no class derived from verdigris.AsyncSession"),
        (Narrow, r"Narrow.__init__\(\) takes no \*\*options"),
        (Wrong, "Wrong.sync_session_class is <class 'dict'>, which is no class derived from"),
    ],
)
def test_a_class_that_lacks_what_sessions_promise_is_refused(database_url, given, said):
    with pytest.raises(ConfigurationError, match=said):
        Database(database_url, session_class=given)


def test_the_option_of_sqlalchemys_factory_is_told_its_name_here(database_url):
    with pytest.raises(ConfigurationError, match="Did you mean session_class= where class_= stands"):
        Database(database_url, class_=Audited)
