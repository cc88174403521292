"""The ways to a JSON read: alone, in a session, under listeners, as objects, hoisted, streamed, and by `load()`."""

from __future__ import annotations

import json
import logging
from decimal import Decimal
from functools import partial
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    ValidationError,
    computed_field,
    create_model,
    field_serializer,
    field_validator,
    model_serializer,
)
from sqlalchemy import JSON, Integer, Text, bindparam, cast, event, func, literal, null, select, text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.orm import Session, contains_eager, with_loader_criteria
from tests.library.loading.json.models import Base, City, Customer, Employee, Line, Order

from verdigris import Database
from verdigris.errors import ConfigurationError, NotFoundError, UnflushedError
from verdigris.fastapi import install
from verdigris.loading import explain_plan
from verdigris.loading.json.response import TaggedAnswer


class IdOut(BaseModel):
    id: int


class LineOut(BaseModel):
    sku: str


class OrderOut(BaseModel):
    id: int
    note: str | None
    lines: list[LineOut]


async def test_a_read_in_a_session_sees_what_the_session_wrote(db):
    async with db.session() as session:
        session.add(Customer(id=90, name="new"))
        body = (await db.json(select(Customer).where(Customer.id == 90), IdOut, session=session)).body
        await session.rollback()

    assert body == b'{"id":90}'
    assert (await db.json(select(Customer).where(Customer.id == 90), IdOut | None)).body == b"null"


async def test_a_read_in_a_session_uses_its_transaction(db):
    async with db.session() as session:
        before = await session.scalar(text("SELECT pg_current_xact_id()::text"))
        await session.execute(text("SET TRANSACTION READ ONLY"))
        await db.json(select(Order).limit(1), OrderOut, session=session)

        assert await session.scalar(text("SELECT pg_current_xact_id()::text")) == before
        assert session.in_transaction()


async def test_without_autoflush_a_read_that_misses_what_is_pending_is_an_error(shop_url):
    database = Database(shop_url, autoflush=False)
    async with database.session() as session:
        session.add(Customer(id=91, name="new"))

        with pytest.raises(UnflushedError):
            await database.json(select(Customer), list[IdOut], session=session)
    await database.dispose()


async def test_what_listeners_add_to_statements_holds(db):
    tenants = iter(["SKU-0", "SKU-1", "SKU-2"])

    def only_mine(state):
        mine = next(tenants)
        state.statement = state.statement.options(with_loader_criteria(Line, lambda cls: cls.sku == mine))

    event.listen(Session, "do_orm_execute", only_mine)
    try:
        bodies = [(await db.json(select(Order).where(Order.id == 3), OrderOut)).body for _ in range(2)]
        async with db.session() as session:
            bodies.append((await db.json(select(Order).where(Order.id == 3), OrderOut, session=session)).body)
    finally:
        event.remove(Session, "do_orm_execute", only_mine)

    assert bodies == [b'{"id":3,"note":"note 3","lines":[{"sku":"SKU-%d"}]}' % number for number in range(3)]


async def test_objects_are_made_from_the_same_text(db):
    class Checked(BaseModel):
        model_config = ConfigDict(populate_by_name=True)

        number: int = Field(alias="id")
        hidden: str | None = Field(validation_alias="note", exclude=True)
        lines: list[LineOut]

        @field_validator("number")
        @classmethod
        def negated(cls, value):
            return -value

        @computed_field
        @property
        def doubled(self) -> int:
            return self.number * 2

    found = await db.fetch(select(Order).where(Order.id.in_([2, 3])).order_by(Order.id), list[Checked])

    assert [(one.doubled, one.hidden) for one in found] == [(-4, "note 2"), (-6, "note 3")]
    assert [type(line) for line in found[0].lines] == [LineOut, LineOut]
    with pytest.raises(NotFoundError):
        await db.fetch(select(Order).where(Order.id < 0), Checked)
    assert await db.fetch(select(Order).where(Order.id < 0), Checked | None) is None


async def test_a_hoisted_read_is_compiled_once_and_called_with_values(db):
    read = db.json_read(
        select(Order).where(Order.id > bindparam("after"), Order.paid == True).order_by(Order.id).limit(bindparam("n")),  # noqa: E712
        list[IdOut],
    )

    assert read.fallback is None
    assert read.arguments({"after": 4, "n": 2}) == (4, 2)
    assert "$2" in read.sql
    assert (await read(after=4, n=2)).body == b'[{"id":6},{"id":8}]'
    assert await read.fetch(after=4, n=1) == [IdOut(id=6)]
    with pytest.raises(Exception, match="'after'"):
        await read(n=2)


async def test_the_first_limits_get_a_text_of_their_own_and_others_share_one(db):
    def texts(limits):
        read = db.json_read(select(Order).order_by(Order.id).limit(bindparam("n")), list[IdOut])
        return [read.call({"n": limit}) for limit in limits]

    calls = texts(range(1, 12))

    assert [arguments for _, arguments in calls] == [()] * 8 + [(9,), (10,), (11,)]
    assert len({sql for sql, _ in calls}) == 9
    assert "LIMIT 3" in calls[2][0]
    assert [len(await db.fetch(select(Order).limit(n), list[IdOut])) for n in (3, 20, 0)] == [3, 20, 0]


async def test_limits_that_no_integer_is_are_bound(db):
    read = db.json_read(select(Order).limit(bindparam("n")), list[IdOut])

    assert read.call({"n": None})[1] == (None,)
    assert read.call({"n": "20; DROP TABLE orders"})[1] == ("20; DROP TABLE orders",)
    assert read.call({"n": True})[1] == (True,)


async def test_the_server_keeps_one_plan_for_a_literal_limit(db):
    statement = select(Order).where(Order.id > 3).order_by(Order.id).limit(5)
    async with db.session() as session:
        for _ in range(12):
            await db.json(statement, list[OrderOut], session=session)
        mine = "statement LIKE '%textsend%LIMIT 5)%' AND statement NOT LIKE '%pg_prepared%'"
        plans = await session.execute(
            text(f"SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE {mine}")
        )
        counted = plans.one()

    assert counted == (7, 5)


async def test_a_value_that_the_mapping_denies_is_refused_as_pydantic_refuses_it(postgres, database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("ALTER TABLE customers ALTER name DROP NOT NULL"))
        await connection.execute(text("INSERT INTO customers (id, name) VALUES (1, 'one'), (2, NULL)"))

    class NameOut(BaseModel):
        name: str

    class MaybeOut(BaseModel):
        name: str | None

    with pytest.raises(ValidationError, match="name"):
        await database.json(select(Customer), list[NameOut])
    body = (await database.json(select(Customer).order_by(Customer.id), list[MaybeOut])).body
    await database.dispose()

    assert body == b'[{"name":"one"},{"name":null}]'


class Shouted(IdOut):
    @computed_field
    @property
    def twice(self) -> int:
        return self.id * 2


class Validated(BaseModel):
    id: int

    @field_validator("id")
    @classmethod
    def positive(cls, value):
        return abs(value)


class Serialized(BaseModel):
    id: int

    @field_serializer("id")
    def worded(self, value) -> str:
        return str(value)


class Sku(RootModel[int]):
    @model_serializer
    def worded(self) -> str:
        return f"No. {self.root}"


class Numbered(BaseModel):
    id: Sku


class Maybe(RootModel[int | None]):
    pass


class Perhaps(BaseModel):
    id: Maybe


class Labelled(BaseModel):
    label: str


class Inside(BaseModel):
    lines: list[Labelled]


class PriceOut(BaseModel):
    rounded: int


class BuyerOut(BaseModel):
    bought_by: str


class CityOut(BaseModel):
    name: str


class MottoOut(BaseModel):
    motto: str


REASONS = [
    (Order, PriceOut, "PriceOut.rounded: the hybrid Order.rounded has no expression of its own, and is no plain sum"),
    (
        Order,
        BuyerOut,
        "BuyerOut.bought_by: the hybrid Order.bought_by has no expression of its own, and its code makes none",
    ),
    (City, CityOut, "CityOut.name: City has a reconstructor, or listeners of 'load' or 'refresh'"),
    (Employee, MottoOut, "MottoOut.motto: Manager.motto is another than Employee.motto"),
    (Order, Shouted, "Shouted.twice is computed in Python"),
    (Order, Validated, "Validated.id: it is validated by Validated.positive()"),
    (Order, Serialized, "Serialized.id: it has a serializer of its own"),
    (Order, Numbered, "Numbered.id: Sku has a serializer of its own"),
    (Order, Perhaps, "Perhaps.id: a Maybe that holds None is not None"),
    (Order, Inside, "Labelled.label: Line.label is read in Python"),
]


@pytest.mark.parametrize(("entity", "schema", "reason"), REASONS, ids=lambda value: getattr(value, "__name__", ""))
async def test_what_sql_cannot_say_is_read_by_load_and_said_once_with_the_reason(db, caplog, entity, schema, reason):
    statement = select(entity).order_by(entity.id).limit(2)

    bodies = {(await db.json(statement, list[schema])).body for _ in range(2)}

    assert len(bodies) == 1
    assert [record.message for record in caplog.records if record.levelno == logging.WARNING] == [
        f"{entity.__name__} -> list[{schema.__name__}] is read by load(), because of {reason}"
    ]
    assert reason in explain_plan(entity, schema)


async def test_options_of_the_statement_that_say_what_is_loaded_are_kept(db):
    statement = (
        select(Order)
        .join(Order.lines)
        .where(Line.sku == "SKU-1", Order.id < 4)
        .options(contains_eager(Order.lines))
        .order_by(Order.id)
    )

    read = db.json_read(statement, list[OrderOut])

    assert "contains_eager" in (read.fallback or "")


def test_the_plan_says_what_will_run():
    assert explain_plan(Order, OrderOut) == (
        "Order -> OrderOut: PostgreSQL writes the answer, in one statement -> OrderOut\n"
        "  id: Order.id\n"
        "  note: Order.note\n"
        "  lines: each of Order.lines -> LineOut\n"
        "    sku: Line.sku"
    )


@pytest.mark.parametrize(
    ("schema", "named"), [(list[OrderOut], "list[OrderOut]"), (OrderOut | None, "OrderOut | None")]
)
def test_the_plan_names_a_type_as_it_is_written(schema, named):
    assert explain_plan(Order, schema).startswith(f"Order -> {named}: ")


async def test_what_can_never_become_the_model_is_refused_with_both_names(db):
    class Other(BaseModel):
        colour: str

    with pytest.raises(ConfigurationError, match=r"No Order can become a Other: Other\.colour"):
        db.json_read(select(Order), Other)
    with pytest.raises(ConfigurationError, match=r"OrderOut\.note is none of id"):
        db.json_read(select(Order.id), OrderOut)


@pytest.fixture
async def client(shop_url):
    database = Database(shop_url)
    app = FastAPI()
    install(app, database)

    @app.get("/orders/{number}", response_model=OrderOut)
    async def one(number: int):
        return await database.json(select(Order).where(Order.id == number), OrderOut, etag=True)

    @app.get("/orders", response_model=list[OrderOut])
    async def every():
        return database.json_stream(select(Order).order_by(Order.id), list[OrderOut])

    @app.get("/broken", response_model=list[OrderOut])
    async def broken():
        return database.json_stream(select(Order).where(text("1 / 0 = 1")), list[OrderOut])

    @app.get("/numbers", response_model=list[Shouted])
    async def numbers():
        return database.json_stream(select(Order).order_by(Order.id), list[Shouted])

    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://shop") as browser:
        yield browser
    await database.dispose()


async def test_a_route_answers_with_the_bytes_and_its_openapi_schema_is_the_models(client):
    answer = await client.get("/orders/3")

    assert answer.json() == {"id": 3, "note": "note 3", "lines": [{"sku": f"SKU-{i}"} for i in (2, 1, 0)]}
    assert answer.headers["content-type"] == "application/json"
    paths = (await client.get("/openapi.json")).json()["paths"]
    described = paths["/orders/{number}"]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
    assert described == {"$ref": "#/components/schemas/OrderOut"}


async def test_no_row_is_a_problem(client):
    answer = await client.get("/orders/-3")

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["type"] == "urn:verdigris:problem:not-found"


async def test_who_has_the_answer_already_gets_304(client):
    tag = (await client.get("/orders/3")).headers["etag"]

    known = await client.get("/orders/3", headers={"If-None-Match": f'"x", {tag}'})
    other = await client.get("/orders/2", headers={"If-None-Match": tag})

    assert (known.status_code, known.content, known.headers["etag"]) == (304, b"", tag)
    assert other.status_code == 200


async def test_every_cookie_is_set_with_a_304_too():
    answer = TaggedAnswer(b"{}")
    answer.set_cookie("one", "1")
    answer.set_cookie("two", "2")
    browser = httpx.AsyncClient(transport=httpx.ASGITransport(answer), base_url="http://test")

    async with browser:
        known = await browser.get("/", headers={"If-None-Match": answer.headers["etag"]})

    assert known.status_code == 304
    assert [cookie.partition("=")[0] for cookie in known.headers.get_list("set-cookie")] == ["one", "two"]
    assert "content-type" not in known.headers


async def test_a_stream_is_the_same_list(client, db):
    answer = await client.get("/orders")

    assert answer.content == (await db.json(select(Order).order_by(Order.id), list[OrderOut])).body
    assert (await client.get("/numbers")).json()[1] == {"id": 2, "twice": 4}


async def test_a_stream_that_fails_before_its_first_row_is_an_error_answer(client):
    answer = await client.get("/broken")

    assert answer.status_code == 500


async def test_a_stream_of_nothing_is_an_empty_list(db):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "http.disconnect"}

    answer = db.json_stream(select(Order).where(Order.id < 0), list[OrderOut])
    await answer({"type": "http", "asgi": {"spec_version": "2.4"}}, receive, send)

    assert b"".join(message.get("body", b"") for message in sent) == b"[]"


async def test_values_given_by_params_are_heard(db):
    statement = select(Order).where(Order.id == bindparam("number"))

    bodies = [(await db.json(statement.params(number=number), IdOut)).body for number in (3, 4)]

    assert bodies == [b'{"id":3}', b'{"id":4}']


async def test_schemas_that_are_translated_are_read_by_load(db):
    statement = select(Order).where(Order.id == 3)

    plain = await db.json(statement, IdOut)
    translated = await db.json(statement.execution_options(schema_translate_map={None: "public"}), IdOut)
    async with db.session() as session:
        await session.connection(execution_options={"schema_translate_map": {None: "elsewhere"}})
        with pytest.raises(ProgrammingError, match="elsewhere"):
            await db.json(statement, IdOut, session=session)

    assert plain.body == translated.body == b'{"id":3}'


@pytest.mark.parametrize("name", ["engine_connect", "begin", None])
async def test_a_schema_that_the_engine_or_a_listener_of_it_translates_is_the_one_that_is_read(db, name):
    statement = select(Order).where(Order.id == 3)
    read = db.json_read(statement, IdOut | None)
    async with db.engine.begin() as connection:
        await connection.execute(text("CREATE SCHEMA elsewhere"))
        await connection.execute(text("CREATE TABLE elsewhere.orders AS SELECT * FROM orders WHERE id <> 3"))
        await connection.execute(text("CREATE TABLE elsewhere.lines AS SELECT * FROM lines"))
    before = (await read()).body

    def translate(connection):
        connection.execution_options(schema_translate_map={None: "elsewhere"})

    if name is None:
        db.engine.update_execution_options(schema_translate_map={None: "elsewhere"})
    else:
        event.listen(db.engine.sync_engine, name, translate)
    try:
        answers = [(await read()).body, (await db.json(statement, IdOut | None)).body]
        found = await db.fetch(statement, IdOut | None)
        streamed = b"".join([part async for part in db.json_stream(statement, list[IdOut]).body_iterator])
    finally:
        if name is None:
            db.engine.update_execution_options(schema_translate_map=None)
        else:
            event.remove(db.engine.sync_engine, name, translate)
        async with db.engine.begin() as connection:
            await connection.execute(text("DROP SCHEMA elsewhere CASCADE"))

    assert before == b'{"id":3}'
    assert answers == [b"null"] * 2
    assert (found, streamed) == (None, b"[]")


async def test_a_row_of_a_stream_that_load_reads_keeps_the_criteria_of_the_statement(database_url):
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO customers (id, name) VALUES (1, 'ÉMILE'), (2, 'ADA')"))
        orders = (
            "INSERT INTO orders (id, status, paid, customer_id) SELECT n, 'new', true, 1 FROM generate_series(1, 3) n"
        )
        await connection.execute(text(orders))

    class LowerOut(BaseModel):
        name: Annotated[str, StringConstraints(to_lower=True)]  # beyond ASCII this is Python's to say
        orders: list[IdOut]

    statement = select(Customer).order_by(Customer.id).options(with_loader_criteria(Order, Order.id < 3))
    parts = [part async for part in database.json_stream(statement, list[LowerOut]).body_iterator]
    await database.dispose()

    assert b"".join(parts).decode() == '[{"name":"émile","orders":[{"id":1},{"id":2}]},{"name":"ada","orders":[]}]'


async def test_a_sum_that_only_python_can_hold_is_read_by_load(db):
    class Large(BaseModel):
        huge: int

    answer = await db.json(select(Order).where(Order.id == 3), Large)

    assert answer.body == b'{"huge":6442450941}'


def commented(connection, cursor, statement, parameters, context, executemany):
    return f"{statement} /* traceparent=00-1-2 */", parameters


def watched(connection, cursor, statement, parameters, context, executemany):
    pass


async def test_what_is_sent_is_rewritten_where_a_listener_rewrites_it_and_the_log_says_so(db, caplog):
    sent = select(func.current_query(type_=Text()))
    read = db.json_read(sent, str)
    target = db.engine.sync_engine
    event.listen(target, "before_cursor_execute", watched)
    plain = [(await read()).body, await db.fetch(sent, str)]
    assert caplog.text == ""
    event.listen(target, "before_cursor_execute", commented, retval=True)

    rewritten = [(await read()).body.decode(), await db.fetch(sent, str)]

    assert ["traceparent" in str(text) for text in plain + rewritten] == [False, False, True, True]
    reason = f"{__name__}.commented, which listens to 'before_cursor_execute' with retval=True"
    assert [record.message for record in caplog.records] == [
        f"reads run in a session and a transaction of their own each, because of {reason}"
    ]


async def test_row_security_holds_for_a_read_in_a_session_and_alone(database_url):
    """A policy on what the session has set: none of it is seen from outside, nor by the next one."""
    database = Database(database_url)
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for command in (
            "INSERT INTO customers (id, name) SELECT n, 'Customer ' || n FROM generate_series(1, 3) n",
            "INSERT INTO orders (id, status, paid, customer_id) SELECT n, 'new', true, n FROM generate_series(1, 3) n",
            "ALTER TABLE customers ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY mine ON customers USING (id = nullif(current_setting('app.tenant', true), '')::int)",
            "DO $$ BEGIN CREATE ROLE json_reader; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "GRANT SELECT ON ALL TABLES IN SCHEMA public TO json_reader",
        ):
            await connection.execute(text(command))

    class NameOut(BaseModel):
        name: str

    class CustomerOf(BaseModel):
        id: int
        customer: NameOut | None

    def as_tenant(session, transaction, connection):
        connection.exec_driver_sql("SET LOCAL ROLE json_reader")
        connection.exec_driver_sql("SELECT set_config('app.tenant', '2', true)")

    orders = select(Order).order_by(Order.id)
    event.listen(Session, "after_begin", as_tenant)
    try:
        alone = (await database.json(orders, list[CustomerOf])).body
        async with database.session() as session:
            inside = (await database.json(orders, list[CustomerOf], session=session)).body
    finally:
        event.remove(Session, "after_begin", as_tenant)
    everything = (await database.json(orders, list[CustomerOf])).body
    await database.dispose()

    assert (
        alone
        == inside
        == (b'[{"id":1,"customer":null},{"id":2,"customer":{"name":"Customer 2"}},{"id":3,"customer":null}]')
    )
    assert everything.count(b"Customer") == 3


def set_tenant(session, transaction, connection):
    connection.exec_driver_sql("SELECT set_config('app.tenant', '7', true)")


def tenant_of_connection(connection):
    set_tenant(None, None, connection)


@pytest.mark.parametrize(("name", "listener"), [("after_begin", set_tenant), ("begin", tenant_of_connection)])
async def test_what_is_set_at_the_start_of_transactions_holds(db, name, listener):
    tenant = func.nullif(func.current_setting("app.tenant", True), "").cast(Integer)
    mine = select(Order).where(Order.id == tenant)
    read = db.json_read(mine, IdOut | None)
    target = Session if name == "after_begin" else db.engine.sync_engine
    event.listen(target, name, listener)
    try:
        answers = [await read(), await db.json(mine, IdOut | None)]
        found = await db.fetch(mine, IdOut | None)
        streamed = b"".join([part async for part in db.json_stream(mine, list[IdOut]).body_iterator])
    finally:
        event.remove(target, name, listener)

    assert [answer.body for answer in answers] == [b'{"id":7}'] * 2
    assert (found, streamed) == (IdOut(id=7), b'[{"id":7}]')
    assert (await read()).body == b"null"


class DataOut(BaseModel):
    data: Any


@pytest.mark.parametrize(
    ("deserializer", "answer", "reason"),
    [
        (json.loads, b'{"data":{"a": 1.10}}', None),
        (partial(json.loads, parse_float=Decimal), b'{"data":{"a":"1.10"}}', "the json_deserializer of the engine"),
    ],
)
async def test_an_engine_that_reads_json_in_its_own_way_is_asked(shop_url, deserializer, answer, reason):
    database = Database(shop_url, json_deserializer=deserializer)
    read = database.json_read(select(cast(literal('{"a": 1.10}', Text), JSON).label("data")), DataOut)

    assert (await read()).body == answer
    assert (read.fallback or "").startswith(reason or "")
    assert (read.fallback is None) is (reason is None)
    await database.dispose()


@pytest.mark.parametrize("options", [{}, {"exclude_none": True}])
async def test_none_is_a_value_of_a_field_of_any_type(db, caplog, options):
    nothing = select(cast(null(), Integer).label("number"), cast(literal("null", Text), JSON).label("data"))
    schema = create_model("Out", number=(Any, ...), data=(Any, ...))

    body = (await db.json(nothing, schema, **options)).body

    assert body == (b"{}" if options else b'{"number":null,"data":null}')
    assert caplog.records == []
    assert await db.fetch(nothing, schema) == schema(number=None, data=None)
