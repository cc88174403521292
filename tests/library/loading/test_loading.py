"""Section 5: what `plan` reads from a pair, and what `load` then does to a query."""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, TypeVar

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)
from sqlalchemy import Column, ForeignKey, String, Table, func, select
from sqlalchemy.exc import InvalidRequestError
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, WriteOnlyMapped, mapped_column, relationship, synonym

from verdigris import load
from verdigris.errors import ConfigurationError
from verdigris.loading import plan
from verdigris.models import Guarded
from verdigris.performance import instrument


class Base(Guarded, DeclarativeBase):
    pass


labels = Table(
    "label_of",
    Base.metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("label_id", ForeignKey("label.id"), primary_key=True),
)


class Label(Base):
    __tablename__ = "label"

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class City(Base):
    __tablename__ = "city"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    nodes: Mapped[list[Node]] = relationship(back_populates="owner", order_by="Node.id")


class Customer(Base):
    __tablename__ = "customer"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[str] = mapped_column(String, deferred=True, default="secret")
    city_id: Mapped[int] = mapped_column(ForeignKey("city.id"))
    city: Mapped[City] = relationship()
    orders: Mapped[list[Order]] = relationship(back_populates="customer", foreign_keys="Order.customer_id")


class Product(Base):
    __tablename__ = "product"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    price: Mapped[int]


class Line(Base):
    __tablename__ = "line"

    id: Mapped[int] = mapped_column(primary_key=True)
    quantity: Mapped[int] = mapped_column(default=1)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    product_id: Mapped[int] = mapped_column(ForeignKey("product.id"))
    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    payer_id: Mapped[int | None] = mapped_column(ForeignKey("customer.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders", foreign_keys=customer_id)
    payer: Mapped[Customer | None] = relationship(foreign_keys=payer_id)
    lines: Mapped[list[Line]] = relationship(back_populates="order", order_by=Line.id)
    labels: Mapped[list[Label]] = relationship(secondary=labels, lazy="selectin")
    events: WriteOnlyMapped[Event] = relationship()
    buyer = synonym("customer")
    label_texts: AssociationProxy[list[str]] = association_proxy("labels", "text")

    @property
    def total(self) -> int:
        return sum(line.quantity * line.product.price for line in self.lines)

    @property
    def summary(self) -> str:
        return f"{self.customer.name} in {self.customer.city.name}: {self.total}"

    @hybrid_property
    def is_big(self) -> bool:
        return len(self.lines) > 1


class Event(Base):
    __tablename__ = "event"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))


class Node(Base):
    __tablename__ = "node"

    id: Mapped[int] = mapped_column(primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("node.id"))
    owner_id: Mapped[int | None] = mapped_column(ForeignKey("city.id"))
    parent: Mapped[Node | None] = relationship(back_populates="children", remote_side="Node.id")
    children: Mapped[list[Node]] = relationship(back_populates="parent")
    owner: Mapped[City | None] = relationship(back_populates="nodes")


class Pet(Base):
    __tablename__ = "pet"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "pet"}  # noqa: RUF012 - SQLAlchemy's shape

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    owner_id: Mapped[int] = mapped_column(ForeignKey("customer.id"))
    owner: Mapped[Customer] = relationship()


class Cat(Pet):
    __mapper_args__ = {"polymorphic_identity": "cat"}  # noqa: RUF012 - SQLAlchemy's shape
    toys: Mapped[list[Toy]] = relationship()


class Dog(Pet):
    __tablename__ = "dog"
    __mapper_args__ = {"polymorphic_identity": "dog"}  # noqa: RUF012 - SQLAlchemy's shape

    id: Mapped[int] = mapped_column(ForeignKey("pet.id"), primary_key=True)
    bark: Mapped[str] = mapped_column(default="wuff")


class Toy(Base):
    __tablename__ = "toy"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    cat_id: Mapped[int] = mapped_column(ForeignKey("pet.id"))


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class CityOut(Out):
    name: str


class CustomerOut(Out):
    name: str


class CustomerWithCity(CustomerOut):
    city: CityOut


class ProductOut(Out):
    name: str


class LineOut(Out):
    quantity: int
    product: ProductOut


class OrderOut(Out):
    id: int
    customer: CustomerOut
    lines: list[LineOut]


class NodeOut(Out):
    id: int
    children: list[NodeOut]


class OwnerOut(Out):
    nodes: list[NodeOut]


class Estate(Out):
    """A tree whose nodes have an owner, whose nodes are the tops of other trees, that loop back into the first."""

    owner: OwnerOut | None
    children: list[Estate]


def steps(entity, schema, **options):
    """The plan as readable lines, without the fields that asked."""
    return [line.split("  (")[0].rstrip() for line in plan(entity, schema, **options).lines()]


# -- what a schema reads -----------------------------------------------------------------------------------------------


def test_collections_are_selected_and_single_relationships_joined():
    assert str(plan(Order, OrderOut)) == (
        "Order -> OrderOut\n"
        "  Order.customer: joined, inner  (OrderOut.customer)\n"
        "  Order.lines: selectin  (OrderOut.lines)\n"
        "    Line.product: joined, inner  (LineOut.product)"
    )


def test_an_optional_relationship_is_joined_without_losing_rows():
    class Schema(Out):
        payer: CustomerOut | None

    assert steps(Order, Schema) == ["Order.payer: joined"]


def test_inherited_fields_and_nested_models_count():
    class Schema(OrderOut):
        customer: CustomerWithCity

    assert steps(Order, Schema) == [
        "Order.customer: joined, inner",
        "  Customer.city: joined, inner",
        "Order.lines: selectin",
        "  Line.product: joined, inner",
    ]


@pytest.mark.parametrize(
    "annotation",
    [
        list[LineOut],
        tuple[LineOut, ...],
        set[LineOut] | None,
        Annotated[list[LineOut], Field(min_length=0)],
        list[LineOut] | list[ProductOut],
    ],
)
def test_lists_are_found_in_whatever_they_are_wrapped(annotation):
    Schema = type("Schema", (Out,), {"__annotations__": {"lines": annotation}, "__module__": __name__})  # noqa: N806

    assert "Order.lines: selectin" in steps(Order, Schema)


def test_root_models_and_generic_models_are_looked_into():
    T = TypeVar("T")

    class Lines(RootModel[list[LineOut]]):
        pass

    class Wrapped(Out, Generic[T]):
        lines: T

    assert steps(Order, Wrapped[Lines]) == ["Order.lines: selectin", "  Line.product: joined, inner"]


def test_aliases_and_alias_paths_are_followed():
    class Schema(Out):
        buyer_name: str = Field(validation_alias=AliasPath("customer", "city", "name"))
        positions: list[LineOut] = Field(alias="lines")
        who: CustomerOut = Field(validation_alias=AliasChoices("nobody", "payer"))

    assert steps(Order, Schema) == [
        "Order.customer: joined, inner",
        "  Customer.city: joined, inner",
        "Order.lines: selectin",
        "  Line.product: joined, inner",
        "Order.payer: joined",
    ]


def test_an_alias_hides_the_fields_own_name_unless_names_count_too():
    class ByAlias(Out):
        lines: list[int] = Field(validation_alias="id")

    class ByName(ByAlias):
        model_config = ConfigDict(validate_by_name=True)
        customer: CustomerOut = Field(validation_alias="nobody")

    assert steps(Order, ByAlias) == []
    assert steps(Order, ByName) == ["Order.customer: joined, inner"]


def test_synonyms_proxies_properties_and_hybrids_read_what_they_stand_for():
    class Schema(Out):
        buyer: CustomerOut
        label_texts: list[str]
        total: int
        is_big: bool

    assert steps(Order, Schema) == [
        "Order.customer: joined, inner",
        "Order.labels: selectin",
        "Order.lines: selectin",
        "  Line.product: joined, inner",
    ]


def test_a_property_that_reads_another_property_reads_what_that_reads():
    class Schema(Out):
        summary: str

    assert steps(Order, Schema) == [
        "Order.customer: joined, inner",
        "  Customer.city: joined, inner",
        "Order.lines: selectin",
        "  Line.product: joined, inner",
    ]


def test_two_fields_that_read_the_same_relationship_share_a_step():
    class Schema(Out):
        customer: CustomerOut
        city: CityOut = Field(validation_alias=AliasPath("customer", "city"))
        town: str = Field(validation_alias=AliasPath("customer", "city", "name"))

    assert steps(Order, Schema) == ["Order.customer: joined, inner", "  Customer.city: joined, inner"]


def test_deferred_columns_that_are_read_are_undeferred():
    class CustomerNotes(Out):
        notes: str

    class Schema(Out):
        customer: CustomerNotes

    (step,) = plan(Order, Schema).steps

    assert step.plan.undeferred == ((Customer, "notes"),)


def test_computed_fields_and_fields_with_a_default_ask_for_nothing():
    class Schema(Out):
        id: int
        extra: str = ""

        @computed_field
        @property
        def shown(self) -> str:
            return f"#{self.id}"

    assert steps(Order, Schema) == []


def test_attributes_of_subclasses_are_loaded_where_a_union_asks_for_them():
    class ToyOut(Out):
        name: str

    class CatOut(Out):
        kind: Literal["cat"]
        toys: list[ToyOut]

    class DogOut(Out):
        kind: Literal["dog"]
        bark: str

    made = plan(Pet, CatOut | DogOut)

    assert steps(Pet, CatOut | DogOut) == ["Cat.toys: selectin"]
    assert made.subclasses == (Cat, Dog)


def test_a_plan_is_a_value():
    assert plan(Order, OrderOut) == plan(Order, list[OrderOut])
    assert hash(plan(Order, OrderOut)) == hash(plan(Order, OrderOut))
    assert load(Order, OrderOut) is load(Order, OrderOut)


# -- schemas that contain themselves -----------------------------------------------------------------------------------


def test_a_tree_is_followed_to_the_end():
    assert steps(Node, NodeOut) == ["Node.children: selectin, to the end"]


def test_a_tree_within_a_tree_of_the_same_relationship_is_followed_so_far():
    assert steps(Node, Estate, depth=2) == [
        "Node.owner: joined",
        "  City.nodes: selectin",
        "    Node.children: selectin",
        "      Node.children: not followed further",
        "Node.children: selectin, to the end",
    ]


def test_models_that_contain_each_other_are_followed_so_far_and_the_plan_says_how_far():
    class Person(Out):
        orders: list[Paid]

    class Paid(Out):
        payer: Person | None

    Person.model_rebuild(_types_namespace={"Paid": Paid})

    assert plan(Customer, Person, depth=2).is_bounded
    assert steps(Customer, Person, depth=2) == [
        "Customer.orders: selectin",
        "  Order.payer: joined",
        "    Customer.orders: selectin",
        "      Order.payer: not followed further",
    ]


def test_a_way_there_and_back_with_the_same_model_is_refused_as_endless():
    class Back(Out):
        orders: list[There]

    class There(Out):
        customer: Back

    Back.model_rebuild(_types_namespace={"There": There})

    with pytest.raises(ConfigurationError) as raised:
        plan(Order, There)

    assert "Back.orders leads back where it came from with the same model: Order.customer, then Customer.orders" in str(
        raised.value
    )


# -- pairs that can't be ----------------------------------------------------------------------------------------------


def test_a_required_field_that_the_entity_lacks_names_both_and_the_nearest():
    class Wrong(Out):
        costumer: CustomerOut

    with pytest.raises(ConfigurationError) as raised:
        load(Order, Wrong)

    assert str(raised.value) == (
        "No Order can become a Wrong: Wrong.costumer reads Order.costumer, which does not exist.\n"
        "  The field is required, so Pydantic would refuse every row.\n"
        '  costumer: ... = Field(validation_alias="customer")   # in Wrong\n'
        "  or give Order an attribute or a property of that name\n"
        "  verdigris explain loading/all-loaded"
    )


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        (LineOut, r"Order\.lines is a collection, Wrong\.lines asks for one LineOut"),
        (list[LineOut] | None, None),
    ],
)
def test_one_where_there_are_many_is_refused(annotation, message):
    Wrong = type("Wrong", (Out,), {"__annotations__": {"lines": annotation}, "__module__": __name__})  # noqa: N806

    if message is None:
        assert load(Order, Wrong) is not None
    else:
        with pytest.raises(ConfigurationError, match=message):
            load(Order, Wrong)


def test_many_where_there_is_one_is_refused():
    class Wrong(Out):
        customer: list[CustomerOut]

    with pytest.raises(ConfigurationError, match=r"Order\.customer is one Customer, Wrong\.customer asks for a"):
        load(Order, Wrong)


def test_a_validator_that_sees_the_raw_value_may_turn_one_into_the_other():
    class Validated(Out):
        lines: Annotated[LineOut | None, BeforeValidator(lambda lines: lines[0] if lines else None)]

    class Decorated(Out):
        lines: LineOut | None

        @field_validator("lines", mode="before")
        @classmethod
        def first(cls, lines: Any) -> Any:
            return lines[0] if lines else None

    class Whole(Out):
        invented: int

        @model_validator(mode="before")
        @classmethod
        def invent(cls, order: Any) -> Any:
            return {"invented": order.id}

    assert steps(Order, Validated) == steps(Order, Decorated)
    assert steps(Order, Whole) == []


def test_a_write_only_collection_is_refused_with_the_query_to_write():
    class EventOut(Out):
        id: int

    class Schema(Out):
        events: list[EventOut]

    with pytest.raises(ConfigurationError, match=r"Schema\.events reads Order\.events, which is lazy='write_only'"):
        load(Order, Schema)


@pytest.mark.parametrize(("entity", "schema"), [(Order, dict), (OrderOut, OrderOut), (Order, int)])
def test_what_is_no_entity_or_no_model_is_refused(entity, schema):
    with pytest.raises(ConfigurationError, match=r"^load\("):
        load(entity, schema)


# -- what a query then does --------------------------------------------------------------------------------------------


@pytest.fixture
async def maker(database_url):
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    maker = async_sessionmaker(engine, expire_on_commit=False)
    async with maker.begin() as session:
        ghent = City(id=1, name="Ghent")
        ada = Customer(id=1, name="Ada", city=ghent)
        lamp, chair = Product(id=1, name="lamp", price=20), Product(id=2, name="chair", price=50)
        session.add_all([ghent, ada, lamp, chair])
        for number in range(1, 4):
            lines = [Line(product=lamp), Line(product=chair, quantity=number)]
            session.add(Order(id=number, customer=ada, lines=lines, labels=[Label(text=f"label {number}")]))
        nodes = [Node(id=number, owner=ghent, parent_id=number - 1 or None) for number in range(1, 9)]
        session.add_all(nodes)
        session.add_all([Cat(id=1, owner=ada, toys=[Toy(name="mouse")]), Dog(id=2, owner=ada)])
    maker.queries = instrument(engine)
    maker.queries.clear()
    yield maker
    await engine.dispose()


def count(maker):
    return sum(query.count for query in maker.queries if "pg_catalog" not in query.fingerprint)


async def test_a_page_of_orders_takes_two_statements_and_serialises(maker):
    async with maker() as session:
        orders = (await session.scalars(select(Order).order_by(Order.id).options(load(Order, OrderOut)))).all()

    shown = [OrderOut.model_validate(order).model_dump() for order in orders]
    assert shown[1] == {
        "id": 2,
        "customer": {"name": "Ada"},
        "lines": [
            {"quantity": 1, "product": {"name": "lamp"}},
            {"quantity": 2, "product": {"name": "chair"}},
        ],
    }
    assert count(maker) == 2


async def test_everything_that_properties_read_is_there(maker):
    class Schema(Out):
        summary: str
        label_texts: list[str]
        is_big: bool

    async with maker() as session:
        order = await session.scalar(select(Order).where(Order.id == 2).options(load(Order, Schema)))

    assert Schema.model_validate(order).model_dump() == {
        "summary": "Ada in Ghent: 120",
        "label_texts": ["label 2"],
        "is_big": True,
    }


async def test_what_the_schema_does_not_read_is_not_loaded_and_raises(maker):
    class Schema(Out):
        id: int

    async with maker() as session:
        order = await session.scalar(select(Order).where(Order.id == 1).options(load(Order, Schema)))

        for name in ("labels", "lines", "customer"):
            with pytest.raises(InvalidRequestError, match=name):
                getattr(order, name)
    assert count(maker) == 1


async def test_a_deferred_column_that_is_read_is_there(maker):
    class CustomerNotes(Out):
        notes: str

    class Schema(Out):
        customer: CustomerNotes

    async with maker() as session:
        order = await session.get(Order, 1, options=[load(Order, Schema)])

    assert Schema.model_validate(order).customer.notes == "secret"


async def test_a_tree_is_loaded_to_its_leaves_whatever_its_depth(maker):
    class Owned(Out):
        id: int
        owner: CityOut | None
        children: list[Owned]

    Owned.model_rebuild(_types_namespace={"Owned": Owned})
    async with maker() as session:
        root = await session.scalar(select(Node).where(Node.id == 1).options(load(Node, Owned)))

    shown, depth = Owned.model_validate(root), 0
    while shown.children:
        (shown,), depth = shown.children, depth + 1
        assert shown.owner.name == "Ghent"
    assert depth == 7


async def test_a_tree_within_a_tree_ends_although_the_rows_lead_in_a_circle(maker):
    async with maker() as session:
        root = await session.scalar(select(Node).where(Node.id == 1).options(load(Node, Estate)))

    levels, node = 0, root
    while node.children:
        (node,), levels = node.children, levels + 1
        assert [each.id for each in node.owner.nodes] == list(range(1, 9))
    assert levels == 7


async def test_each_subclass_brings_what_its_own_schema_reads(maker):
    class ToyOut(Out):
        name: str

    class CatOut(Out):
        kind: Literal["cat"]
        toys: list[ToyOut]

    class DogOut(Out):
        kind: Literal["dog"]
        bark: str

    async with maker() as session:
        pets = (await session.scalars(select(Pet).order_by(Pet.id).options(load(Pet, CatOut | DogOut)))).all()

    cat, dog = CatOut.model_validate(pets[0]), DogOut.model_validate(pets[1])
    assert (cat.toys[0].name, dog.bark) == ("mouse", "wuff")


async def test_a_locking_read_joins_nothing(maker):
    class Schema(Out):
        payer: CustomerOut | None
        customer: CustomerOut

    async with maker.begin() as session:
        statement = select(Order).where(Order.id == 1).with_for_update()
        order = await session.scalar(statement.options(load(Order, Schema, for_update=True)))

    assert Schema.model_validate(order).model_dump() == {"payer": None, "customer": {"name": "Ada"}}


async def test_a_limit_counts_rows_of_the_entity(maker):
    async with maker() as session:
        statement = select(Order).order_by(Order.id).limit(2).options(load(Order, OrderOut))
        orders = (await session.scalars(statement)).all()
        total = await session.scalar(select(func.count()).select_from(Order))

    assert ([order.id for order in orders], total) == ([1, 2], 3)
