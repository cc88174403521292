"""The JSON read against `load()` and Pydantic, on every kind of attribute and relationship."""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

import pytest
from pydantic import (
    AliasPath,
    BaseModel,
    ConfigDict,
    Field,
    RootModel,
    StringConstraints,
    TypeAdapter,
    ValidationError,
    create_model,
    field_validator,
)
from sqlalchemy import bindparam, func, select, union
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import aliased, joinedload, selectinload, with_loader_criteria
from tests.library.loading.json.models import Box, Customer, Employee, Engineer, Line, Order, Shelf

from verdigris import errors, load
from verdigris.errors import NotFoundError
from verdigris.loading.json.read import Reads
from verdigris.loading.json.statement import plain

T = TypeVar("T")


class CustomerOut(BaseModel):
    id: int
    name: str


class LineOut(BaseModel):
    id: int
    sku: str
    amount: int


class TagOut(BaseModel):
    name: str


class SellerOut(BaseModel):
    name: str
    budget: int | None = None


class OrderOut(BaseModel):
    id: int
    status: str
    note: str | None
    paid: bool
    customer: CustomerOut
    seller: SellerOut | None
    lines: list[LineOut]
    tags: list[TagOut]
    tag_names: list[str]
    customer_name: str
    line_count: int


class Page(BaseModel, Generic[T]):
    items: list[T]
    total: int
    limit: int | None
    offset: int


class EmployeeOut(BaseModel):
    id: int
    name: str
    team: list[EmployeeOut]


class ChiefOut(BaseModel):
    name: str
    boss: ChiefOut | None


class CardOut(BaseModel):
    kind: Literal["card"]
    cents: int
    digits: str | None


class TransferOut(BaseModel):
    kind: Literal["transfer"]
    iban: str | None
    cents: int


PaymentOut = Annotated[CardOut | TransferOut, Field(discriminator="kind")]


class PaidOut(BaseModel):
    id: int
    payments: list[PaymentOut]


async def by_loading(db, statement, schema, **options):
    """What FastAPI answers with: the ORM's instances, validated and dumped by Pydantic."""
    adapter = TypeAdapter(schema)
    many = getattr(schema, "__origin__", None) is list
    model = schema.__args__[0] if many else schema
    async with db.session() as session:
        grouped = bool(statement._group_by_clauses)  # PostgreSQL wants what is joined there in GROUP BY
        option = load(_entity(statement), model, for_update=grouped)
        found = await session.scalars(plain(statement).options(option))
        value = found.all() if many else found.first()
        return adapter.dump_json(adapter.validate_python(value, from_attributes=True), by_alias=True, **options)


def _entity(statement):
    return statement.column_descriptions[0]["entity"]


async def written(db, statement, schema, **options):
    """The body of the JSON read, which must have been written by PostgreSQL."""
    read = db.json_read(statement, schema, **options)
    assert read.fallback is None
    return (await db.json(statement, schema, **options)).body


STATEMENTS = {
    "all": select(Order).order_by(Order.id),
    "none": select(Order).where(Order.id < 0),
    "page": select(Order).order_by(Order.id).limit(7).offset(3),
    "first page": select(Order).order_by(Order.id).limit(7).offset(0),
    "keyset": select(Order).where(Order.id > 12).order_by(Order.id).limit(5),
    "joined": select(Order).join(Order.customer).where(Customer.name == "Customer 2").order_by(Order.id),
    "multiplied": select(Order).join(Order.lines).order_by(Order.id, Line.id),
    "distinct": select(Order).join(Order.lines).distinct().order_by(Order.id),
    "grouped": select(Order).join(Order.lines).group_by(Order.id).having(func.count() > 1).order_by(Order.id),
    "ordered by a name": select(Order).order_by("status", "id"),
    "in a list": select(Order).where(Order.id.in_([3, 1, 2])).order_by(Order.id.desc()),
    "exists": select(Order).where(Order.lines.any(Line.quantity > 1)).order_by(Order.id),
    "with options": select(Order).options(selectinload(Order.lines), joinedload(Order.customer)).order_by(Order.id),
    "quoted": select(Order).where(Order.status == "it's").order_by(Order.id),
}


@pytest.mark.parametrize("name", STATEMENTS)
async def test_whatever_the_statement_the_answer_is_the_one_of_pydantic(db, name):
    statement = STATEMENTS[name]

    assert await written(db, statement, list[OrderOut]) == await by_loading(db, statement, list[OrderOut])


async def test_a_common_table_expression_filters(db):
    busy = select(Line.order_id, func.count().label("n")).group_by(Line.order_id).cte("busy")
    statement = select(Order).join(busy, busy.c.order_id == Order.id).where(busy.c.n > 1).order_by(Order.id)

    assert await written(db, statement, list[OrderOut]) == await by_loading(db, statement, list[OrderOut])


async def test_rows_of_an_alias_are_written(db):
    other = aliased(Order)
    statement = select(other).join(other.customer).where(other.id < 9).order_by(other.id)

    assert await written(db, statement, list[OrderOut]) == await by_loading(db, statement, list[OrderOut])


async def test_rows_of_an_alias_of_a_union_are_written(db):
    both = aliased(Order, union(select(Order).where(Order.id < 3), select(Order).where(Order.paid)).subquery())
    statement = select(both).order_by(both.id)

    assert await written(db, statement, list[OrderOut]) == await by_loading(db, statement, list[OrderOut])


async def test_a_value_that_a_client_sent_is_no_warning_and_no_statement_in_the_log(db, caplog):
    for offset in (-1, -2):
        for limit in (2, 3):
            with pytest.raises(DBAPIError, match="OFFSET must not be negative"):
                await db.json(select(Order.id).limit(limit).offset(offset), list[int])

    assert [record.message for record in caplog.records if record.name == "verdigris.loading"] == []


@pytest.mark.parametrize(
    ("statement", "schema", "says", "do"),
    [
        (select(Order), dict, "rows of Order cannot be read into dict", "await db.json(select(Order), OrderOut)"),
        (select(Order), list[dict], "rows of Order cannot be", "await db.json(select(Order), list[OrderOut])"),
        ("SELECT 1", OrderOut, "given a str in the place of a statement", "db.json(select(Order), list[OrderOut])"),
        (Order, OrderOut, "given the class Order in the place", "await db.json(select(Order), list[OrderOut])"),
    ],
)
async def test_what_cannot_be_read_is_named_as_it_was_written(db, statement, schema, says, do):
    for read in (db.json, db.fetch):
        with pytest.raises(errors.ConfigurationError, match=says) as raised:
            await read(statement, schema)
        assert do in "\n".join(raised.value.do)


async def test_a_union_of_entities_is_read_by_load(db, caplog):
    statement = select(Order).from_statement(
        select(Order).where(Order.id < 3).union_all(select(Order).where(Order.id == 5))
    )

    answer = await db.json(statement, list[IdOut])

    assert answer.body == b'[{"id":1},{"id":2},{"id":5}]'
    assert "no plain select()" in caplog.text


class IdOut(BaseModel):
    id: int


async def test_row_level_criteria_hold_at_every_depth(db):
    statement = (
        select(Order)
        .order_by(Order.id)
        .options(with_loader_criteria(Line, Line.deleted.is_(False)), with_loader_criteria(Order, Order.id < 20))
    )

    body = await written(db, statement, list[OrderOut])

    assert body == await by_loading(db, statement, list[OrderOut])
    assert b"SKU-2" not in body
    assert b"SKU-1" in body


async def test_criteria_with_values_of_the_moment_are_not_remembered(db):
    def without(sku):
        return select(Order).order_by(Order.id).options(with_loader_criteria(Line, lambda cls: cls.sku != sku))

    first = await written(db, without("SKU-1"), list[OrderOut])
    second = await written(db, without("SKU-2"), list[OrderOut])

    assert first == await by_loading(db, without("SKU-1"), list[OrderOut])
    assert second == await by_loading(db, without("SKU-2"), list[OrderOut])
    assert first != second


async def test_one_row_is_an_object_and_none_is_404_or_null(db):
    one, none = select(Order).where(Order.id == 3), select(Order).where(Order.id == -3)

    assert await written(db, one, OrderOut) == await by_loading(db, one, OrderOut)
    assert (await db.json(none, OrderOut | None)).body == b"null"
    with pytest.raises(NotFoundError, match="OrderOut") as raised:
        await db.json(none, OrderOut)
    assert errors.classify(raised.value).status == 404
    assert raised.value.status_code == 404


async def test_a_page_knows_its_total_limit_and_offset(db):
    statement = select(Order).where(Order.paid).order_by(Order.id).limit(2).offset(1)

    page = await db.json(statement, Page[IdOut])

    assert page.body == b'{"items":[{"id":4},{"id":6}],"total":15,"limit":2,"offset":1}'


async def test_a_page_that_load_reads_is_the_same(db):
    class Shouted(BaseModel):
        id: int
        name: str

        @field_validator("name")
        @classmethod
        def upper(cls, value):
            return value.upper()

    statement = select(Customer).order_by(Customer.id).limit(2)

    page = await db.json(statement, Page[Shouted])

    assert page.body == (
        b'{"items":[{"id":1,"name":"CUSTOMER 1"},{"id":2,"name":"CUSTOMER 2"}],"total":4,"limit":2,"offset":0}'
    )


async def test_trees_are_followed_four_levels_and_deeper_ones_are_read_by_load(db, caplog):
    def tree(depth):
        return select(Employee).where(Employee.id == depth)

    flat = await written(db, tree(2), EmployeeOut)
    deep = await written(db, select(Employee).order_by(Employee.id), list[ChiefOut])

    assert flat == await by_loading(db, tree(2), EmployeeOut)
    assert deep == await by_loading(db, select(Employee).order_by(Employee.id), list[ChiefOut])
    assert caplog.text == ""


async def test_members_of_a_discriminated_union_are_told_apart_by_the_server(db):
    statement = select(Order).order_by(Order.id)

    body = await written(db, statement, list[PaidOut])

    assert body == await by_loading(db, statement, list[PaidOut])
    assert b'"digits":"4242"' in body
    assert b'"iban":null' in body


class ManagerOut(BaseModel):
    kind: Literal["manager"]
    budget: int


class EngineerOut(BaseModel):
    kind: Literal["engineer"]
    name: str
    language: str | None


class CoderOut(BaseModel):
    name: str
    language: str | None


async def test_joined_inheritance_brings_the_columns_of_subclasses(db):
    either = Annotated[ManagerOut | EngineerOut, Field(discriminator="kind")]
    both = select(Employee).where(Employee.kind != "employee").order_by(Employee.id)

    assert await written(db, both, list[either]) == await by_loading(db, both, list[either])
    coders = select(Engineer).order_by(Engineer.id)
    assert await written(db, coders, list[CoderOut]) == await by_loading(db, coders, list[CoderOut])


async def test_a_row_of_a_kind_that_the_union_lacks_fails_as_pydantic_fails(db):
    either = Annotated[ManagerOut | EngineerOut, Field(discriminator="kind")]

    with pytest.raises(ValidationError, match="union_tag_invalid"):
        await db.json(select(Employee), list[either])


async def test_composite_keys_and_one_to_one(db):
    class ShelfOut(BaseModel):
        hall: int
        row: int

    class BoxOut(BaseModel):
        id: int
        shelf: ShelfOut | None

    class BoxId(BaseModel):
        id: int

    class FullShelfOut(ShelfOut):
        boxes: list[BoxId]

    class ProfileOut(BaseModel):
        bio: str

    class WithProfile(BaseModel):
        full_name: str
        email: str | None
        profile: ProfileOut | None

    boxes, shelves = select(Box).order_by(Box.id), select(Shelf).order_by(Shelf.hall, Shelf.row)
    customers = select(Customer).order_by(Customer.id)

    assert await written(db, boxes, list[BoxOut]) == await by_loading(db, boxes, list[BoxOut])
    assert await written(db, shelves, list[FullShelfOut]) == await by_loading(db, shelves, list[FullShelfOut])
    assert await written(db, customers, list[WithProfile]) == await by_loading(db, customers, list[WithProfile])


class Aliased(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    number: int = Field(validation_alias="id", serialization_alias='Nr. "1"')
    remark: str | None = Field(alias="note")
    name: str = Field(validation_alias=AliasPath("customer", "name"))
    boss: str = Field("nobody", validation_alias=AliasPath("seller", "name"))
    secret: bool = Field(validation_alias="paid", exclude=True)
    fixed: str = "☃'s"
    lists: list[int] = [1, 2]


@pytest.mark.parametrize("options", [{}, {"by_alias": False}, {"exclude_none": True}, {"exclude_unset": True}], ids=str)
async def test_aliases_defaults_and_what_is_left_out(db, options):
    class Plain(Aliased):
        boss: str = Field("nobody", exclude=True)

    model = Aliased if not options.keys() & {"exclude_none", "exclude_unset"} else Plain
    statement = select(Order).order_by(Order.id)

    body = await written(db, statement, list[model], **options)

    adapter = TypeAdapter(list[model])
    async with db.session() as session:
        rows = (await session.scalars(statement.options(load(Order, model)))).all()
        value = adapter.validate_python(rows, from_attributes=True)
    assert body == adapter.dump_json(value, **{"by_alias": True, **options})


class CardRef(BaseModel):
    id: int
    digits: str | None


class Special(BaseModel):
    id: int = Field(serialization_alias="100% :of %(it)s \\ 'all' $1")
    very: int = Field(serialization_alias="x" * 70, validation_alias="line_count")
    cards: list[CardRef]
    cheap_lines: list[LineOut]
    last_line: LineOut | None


async def test_special_relationships_and_special_names(db):
    statement = select(Order).order_by(Order.id)

    assert await written(db, statement, list[Special]) == await by_loading(db, statement, list[Special])


async def test_the_same_columns_and_tables_again_and_again_stay_apart(db):
    class Boss(BaseModel):
        id: int
        name: str

    class Colleague(BaseModel):
        id: int
        boss: Boss | None
        team: list[Boss]

    class Sold(BaseModel):
        id: int
        seller: Colleague | None

    other = aliased(Employee)
    orders = select(Order).join(other, Order.seller).where(other.name != "Eve").order_by(Order.id)
    people = select(Employee).join(other, Employee.boss).where(other.id == 1).order_by(Employee.id)

    assert await written(db, orders, list[Sold]) == await by_loading(db, orders, list[Sold])
    assert await written(db, people, list[Colleague]) == await by_loading(db, people, list[Colleague])


async def test_attributes_that_only_subclasses_have_fall_back_to_their_default(db):
    class Anyone(BaseModel):
        id: int
        budget: int = -1
        language: str | None = "none"

    statement = select(Employee).order_by(Employee.id)

    assert await written(db, statement, list[Anyone]) == await by_loading(db, statement, list[Anyone])


class Status(RootModel[Annotated[str, StringConstraints(to_upper=True)]]):
    pass


class Lines(RootModel[list[LineOut]]):
    pass


class Rooted(BaseModel):
    status: Status
    lines: Lines
    seller: RootModel[SellerOut] | None


async def test_a_root_model_is_written_as_what_it_holds(db):
    statement = select(Order).order_by(Order.id)

    body = await written(db, statement, RootModel[list[Rooted]])

    assert body == await by_loading(db, statement, list[Rooted])
    assert b'"status":"OPEN"' in body


async def test_a_wide_model_is_one_statement(db):
    fields = {f"f{i}": (int, Field(validation_alias="id")) for i in range(300)}
    wide = create_model("Wide", **fields)
    statement = select(Order).where(Order.id == 7)

    assert await written(db, statement, wide) == await by_loading(db, statement, wide)


class RowOut(BaseModel):
    id: int
    status: str


async def test_a_statement_built_anew_is_found_by_its_shape_with_its_own_values(db, monkeypatch):
    learnt, original = [], Reads._find

    def find(self, statement, *args, **options):
        learnt.append(statement)
        return original(self, statement, *args, **options)

    monkeypatch.setattr(Reads, "_find", find)

    def page(after, limit, offset, status):
        found = select(Order).limit(limit).offset(offset).where(Order.id > after, Order.status != status)
        return found.order_by(Order.id)

    cases = [(0, 3, 1, "x"), (1, 2, 0, "paid"), (0, 50, 0, "open"), (2, 1, 1, "y"), (0, 3, 2, "x")]
    for case in cases:
        answer = (await db.json(page(*case), list[RowOut])).body
        async with db.session() as session:
            rows = (await session.scalars(page(*case))).all()

        assert answer == TypeAdapter(list[RowOut]).dump_json([RowOut(id=row.id, status=row.status) for row in rows])
    assert len(learnt) == 1


async def test_objects_of_a_read_made_once_are_found_once(db, monkeypatch):
    read = db.json_read(select(Order).where(Order.id == bindparam("id")), RowOut)
    first = await read.fetch(id=1)
    monkeypatch.setattr(Reads, "find", None)

    again = [await read.fetch(id=id_) for id_ in (1, 2)]

    assert again == [first, RowOut(id=2, status=again[1].status)]
