"""Units that stand in each other's way, and values that the database refuses."""

import asyncio

import pytest
from sqlalchemy import exc, text

from tests.faults.rig import NotHere, small_tablespace, within
from tests.faults.service import Work, come_back, name_of
from verdigris.errors import classify

FIRST = text("UPDATE account SET balance = balance + 1 WHERE id = :id")


def both_ways_round(barrier):
    """Make work that locks both accounts, in the other's order, and meets the other in between: a deadlock."""

    def unit(first, second):
        async def work(session):
            await session.execute(FIRST, {"id": first})
            if not barrier.broken:
                try:
                    async with asyncio.timeout(1):
                        await barrier.wait()
                except (TimeoutError, asyncio.BrokenBarrierError):
                    pass  # the second attempt has nobody to meet
            await session.execute(FIRST, {"id": second})

        return work

    return unit(1, 2), unit(2, 1)


@pytest.mark.parametrize("over", ["session", "http"])
async def test_a_deadlock_is_repeated_as_a_unit_and_nothing_is_lost_or_doubled(db, service, balance, whole, over):
    one, two = both_ways_round(asyncio.Barrier(2))

    if over == "session":
        await within(15, asyncio.gather(db.transaction(one), db.transaction(two)))
    else:
        other = type(service)(db)
        answers = await within(15, asyncio.gather(service.ask("retried", one), other.ask("retried", two)))
        assert [answer.status_code for answer in answers] == [200, 200]

    assert [await balance(1), await balance(2)] == [2, 2]
    assert await whole()


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_deadlock_answers_503_on_a_route_that_is_not_repeated(db, service, balance, whole, way):
    one, two = both_ways_round(asyncio.Barrier(2))

    answers = await within(15, asyncio.gather(service.ask(way, one), type(service)(db).ask(way, two)))

    loser = max(answers, key=lambda answer: answer.status_code)
    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert come_back(loser)
    assert name_of(loser) == "deadlock"
    assert [await balance(1), await balance(2)] == [1, 1]
    assert await whole()


async def read_then_write(session):
    await session.execute(text("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"))
    balance = await session.scalar(text("SELECT balance FROM account WHERE id = 1"))
    await asyncio.sleep(0.05)
    await session.execute(text("UPDATE account SET balance = :new WHERE id = 1"), {"new": balance + 1})


async def test_serialization_failures_are_repeated_and_no_update_is_lost(db, service, balance, whole):
    await within(20, asyncio.gather(*(db.transaction(read_then_write, deadline=15) for _ in range(3))))
    answers = await within(20, asyncio.gather(*(type(service)(db).ask("retried", read_then_write) for _ in range(2))))

    assert [answer.status_code for answer in answers] == [200, 200]
    assert await balance() == 5
    assert await whole()


@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_serialization_failure_answers_503_on_a_route_that_is_not_repeated(db, service, balance, way):
    answers = await within(10, asyncio.gather(*(type(service)(db).ask(way, read_then_write) for _ in range(2))))

    assert sorted(answer.status_code for answer in answers) == [200, 503]
    assert come_back(max(answers, key=lambda answer: answer.status_code))
    assert await balance() == 1


@pytest.fixture
async def deferred(admin):
    """A trigger that is asked at COMMIT, and refuses the first time."""
    await admin("CREATE SEQUENCE asked")
    await admin(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('asked') = 1 THEN RAISE SQLSTATE '40001'; END IF; RETURN NULL; END $$"
    )
    await admin(
        "CREATE CONSTRAINT TRIGGER at_commit AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW EXECUTE FUNCTION refuse()"
    )


@pytest.mark.usefixtures("deferred")
async def test_a_serialization_failure_at_commit_is_definite_and_repeated(db, balance):
    await db.transaction(work := Work())

    assert work.attempts == 2
    assert await balance() == 1


@pytest.mark.usefixtures("deferred")
async def test_a_serialization_failure_at_commit_answers_200_on_a_retried_route(service, balance):
    answer = await service.ask("retried", work := Work())

    assert (answer.status_code, work.attempts) == (200, 2)
    assert await balance() == 1


@pytest.mark.usefixtures("deferred")
@pytest.mark.parametrize("way", ["plain", "route"])
async def test_a_serialization_failure_at_commit_answers_503_and_never_200(service, balance, way):
    assert come_back(await service.ask(way, Work()))
    assert await balance() == 0


async def test_a_lock_timeout_is_repeated_twice_and_then_answers_409(db, service, balance):
    async def impatient(session):
        tries.append(1)
        await session.execute(text("SELECT 1 FROM account WHERE id = 1 FOR UPDATE NOWAIT"))

    async with db.session.begin() as holder:
        await holder.execute(FIRST, {"id": 1})
        tries = []
        with pytest.raises(exc.DBAPIError) as locked:
            await db.transaction(impatient)
        assert (classify(locked.value).sqlstate, len(tries)) == ("55P03", 3)
        for way, times in (("plain", 1), ("route", 1), ("retried", 3)):
            tries = []
            answer = await service.ask(way, impatient)
            assert (answer.status_code, name_of(answer), len(tries)) == (409, "locked", times)

    assert await balance() == 1


VALUES = {
    "a duplicate": ("INSERT INTO account VALUES (1, 0)", 409, "duplicate"),
    "a reference that leads nowhere": ("INSERT INTO entry VALUES (1, 99, 5)", 409, "reference"),
    "a missing value": ("INSERT INTO account (id) VALUES (9)", 422, "missing-value"),
    "a check": ("INSERT INTO entry VALUES (1, 1, -5)", 422, "check"),
    "a NUL byte": ("SELECT CAST(:text AS text)", 422, "unusable-value"),
    "a number out of range": ("SELECT CAST(:number AS smallint)", 422, "unusable-value"),
    "a bad uuid": ("SELECT CAST(CAST('nonsense' AS text) AS uuid)", 422, "unusable-value"),
}


@pytest.mark.parametrize(("statement", "status", "name"), VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("way", ["plain", "route", "retried"])
async def test_a_value_that_the_database_refuses_is_the_clients_error_once_and_without_the_value(
    service, admin, balance, way, statement, status, name
):
    await admin(
        "CREATE TABLE entry (id int PRIMARY KEY, account int REFERENCES account, amount int CHECK (amount > 0))"
    )

    async def refused(session):
        known = {"text": "secret\0", "number": 99999}
        await session.execute(text(statement), {key: value for key, value in known.items() if f":{key}" in statement})

    answer = await service.ask(way, work := Work(refused))

    assert (answer.status_code, name_of(answer), work.attempts) == (status, name, 1)
    assert "secret" not in answer.text
    assert "99" not in answer.text
    assert await balance() == 0


async def test_a_deferred_constraint_fails_the_unit_at_commit_and_answers_409(db, service, admin, balance):
    await admin("CREATE TABLE entry (id int, account int REFERENCES account DEFERRABLE INITIALLY DEFERRED)")

    async def dangling(session):
        await session.execute(text("INSERT INTO entry VALUES (1, 99)"))

    with pytest.raises(exc.IntegrityError):
        await db.transaction(Work(dangling))
    answers = [await service.ask(way, Work(dangling)) for way in ("plain", "route", "retried")]

    assert [(answer.status_code, name_of(answer)) for answer in answers] == [(409, "reference")] * 3
    assert await balance() == 0
    assert await admin("SELECT * FROM entry") == []


@pytest.mark.slow
async def test_a_full_disk_answers_503_is_not_repeated_and_reads_go_on(db, service, postgres, admin, balance):
    async def grow(session):
        await session.execute(text("INSERT INTO big SELECT repeat('x', 1000) FROM generate_series(1, 10000)"))

    try:
        async with small_tablespace(postgres) as name:
            await admin(f"CREATE TABLE big (a text) TABLESPACE {name}")
            with pytest.raises(exc.DBAPIError) as full:
                await db.transaction(work := Work(grow))
            answers = [await service.ask(way, Work(grow)) for way in ("plain", "route", "retried")]
            async with db.read() as session:
                assert await session.scalar(text("SELECT count(*) FROM big")) == 0
            await admin("DROP TABLE big")
    except NotHere as reason:
        pytest.skip(str(reason))

    assert (classify(full.value).sqlstate, work.attempts) == ("53100", 1)
    assert all(come_back(answer) for answer in answers)
    assert await balance() == 0
