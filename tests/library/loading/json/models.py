"""A schema with one of each: what a relationship, an attribute and a class can be."""

from __future__ import annotations

from typing import ClassVar

from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, Integer, Table, func, select
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, reconstructor, relationship, synonym


class Base(DeclarativeBase):
    pass


order_tags = Table(
    "order_tags",
    Base.metadata,
    Column("order_id", ForeignKey("orders.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
    Column("position", Integer),
)


class Customer(Base):
    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    email: Mapped[str | None] = mapped_column(deferred=True)
    orders: Mapped[list[Order]] = relationship(back_populates="customer", order_by="Order.id")
    profile: Mapped[Profile | None] = relationship(back_populates="customer")
    full_name: Mapped[str] = synonym("name")


class Profile(Base):
    __tablename__ = "profiles"

    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), unique=True)
    bio: Mapped[str]
    customer: Mapped[Customer] = relationship(back_populates="profile")


class Tag(Base):
    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Line(Base):
    __tablename__ = "lines"

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    sku: Mapped[str]
    quantity: Mapped[int]
    price: Mapped[int]
    deleted: Mapped[bool] = mapped_column(default=False)

    @hybrid_property
    def amount(self) -> int:
        return self.quantity * self.price

    @property
    def label(self) -> str:
        return f"{self.quantity} x {self.sku}"


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    note: Mapped[str | None]
    paid: Mapped[bool]
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    seller_id: Mapped[int | None] = mapped_column(ForeignKey("employees.id"))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    seller: Mapped[Employee | None] = relationship()
    lines: Mapped[list[Line]] = relationship(order_by=Line.id.desc())
    tags: Mapped[list[Tag]] = relationship(secondary=order_tags, order_by=[order_tags.c.position, Tag.name])
    payments: Mapped[list[Payment]] = relationship(order_by="Payment.id")
    cards: Mapped[list[Card]] = relationship(order_by="Card.id", viewonly=True)
    cheap_lines: Mapped[list[Line]] = relationship(
        primaryjoin="and_(Order.id == Line.order_id, Line.price < Order.id + 1, Line.quantity < 2)",
        order_by="Line.sku",
        viewonly=True,
    )
    last_line: Mapped[Line | None] = relationship(
        primaryjoin="and_(Order.id == Line.order_id, Line.quantity == 1)", uselist=False, viewonly=True
    )
    tag_names: AssociationProxy[list[str]] = association_proxy("tags", "name")
    customer_name: AssociationProxy[str] = association_proxy("customer", "name")


Order.rounded = hybrid_property(lambda self: self.id if self.paid else 0)
Order.bought_by = hybrid_property(lambda self: self.customer.name)
Order.huge = hybrid_property(lambda self: self.id * 2147483647)
Order.line_count = column_property(
    select(func.count(Line.id)).where(Line.order_id == Order.id).correlate_except(Line).scalar_subquery()
)


class Payment(Base):
    """Single-table inheritance."""

    __tablename__ = "payments"
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "payment"}

    id: Mapped[int] = mapped_column(primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    kind: Mapped[str]
    cents: Mapped[int]


class Card(Payment):
    __mapper_args__: ClassVar = {"polymorphic_identity": "card"}

    digits: Mapped[str | None]


class Transfer(Payment):
    __mapper_args__: ClassVar = {"polymorphic_identity": "transfer"}

    iban: Mapped[str | None]


class Employee(Base):
    """Joined-table inheritance, and a tree."""

    __tablename__ = "employees"
    __mapper_args__: ClassVar = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("employees.id"))
    boss: Mapped[Employee | None] = relationship(remote_side="Employee.id", back_populates="team")
    motto: Mapped[str] = mapped_column(default="work")
    team: Mapped[list[Employee]] = relationship(back_populates="boss", order_by="Employee.id")


class Manager(Employee):
    __tablename__ = "managers"
    __mapper_args__: ClassVar = {"polymorphic_identity": "manager"}

    id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)
    budget: Mapped[int]

    @property
    def motto(self) -> str:
        return "lead"


class Engineer(Employee):
    __tablename__ = "engineers"
    __mapper_args__: ClassVar = {"polymorphic_identity": "engineer"}

    id: Mapped[int] = mapped_column(ForeignKey("employees.id"), primary_key=True)
    language: Mapped[str | None]


class City(Base):
    __tablename__ = "cities"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]

    @reconstructor
    def shout(self) -> None:
        self.name = self.name.upper()


class Shelf(Base):
    """A composite key."""

    __tablename__ = "shelves"

    hall: Mapped[int] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    boxes: Mapped[list[Box]] = relationship(back_populates="shelf", order_by="Box.id")


class Box(Base):
    __tablename__ = "boxes"
    __table_args__ = (ForeignKeyConstraint(["hall", "row"], ["shelves.hall", "shelves.row"]),)

    id: Mapped[int] = mapped_column(primary_key=True)
    hall: Mapped[int | None]
    row: Mapped[int | None]
    shelf: Mapped[Shelf | None] = relationship(back_populates="boxes")


def rows() -> list[Base]:
    """Return what the tests read."""
    boss = Manager(id=1, name='Ada "the boss"', budget=10)
    lead = Manager(id=2, name="Björn", budget=5, boss=boss)
    team = [
        Engineer(id=3, name="Chi\n", language="Rust", boss=lead),
        Engineer(id=4, name="Dao\t\\", language=None, boss=lead),
        Employee(id=5, name="Eve", boss=boss),
    ]
    customers = [Customer(id=i, name=f"Customer {i}", email=f"c{i}@example.com") for i in range(1, 5)]
    customers[3].email = None
    customers[0].profile = Profile(id=1, bio="☃ \x01 \x7f </script>")
    tags = [Tag(id=i, name=name) for i, name in enumerate(["new", "old", "blue", ""], 1)]
    shelves = [Shelf(hall=1, row=1), Shelf(hall=1, row=2)]
    cities = [City(id=1, name="Ghent"), City(id=2, name="Jena")]
    made: list[Base] = [*cities, boss, lead, *team, *customers, *tags, *shelves]
    made += [Box(id=1, shelf=shelves[0]), Box(id=2, shelf=shelves[0]), Box(id=3)]
    for i in range(1, 31):
        order = Order(
            id=i,
            status=["open", "closed", "it's"][i % 3],
            note=None if i % 4 == 0 else f"note {i}",
            paid=i % 2 == 0,
            customer=customers[i % 4],
            seller=None if i % 5 == 0 else [boss, lead, *team][i % 5],
            lines=[Line(id=i * 10 + j, sku=f"SKU-{j}", quantity=j, price=i, deleted=j == 2) for j in range(i % 4)],
            tags=tags[: i % 5],
        )
        order.payments = [Card(id=i * 2, cents=i, digits="4242"), Transfer(id=i * 2 + 1, cents=-i, iban=None)][: i % 3]
        made.append(order)
    return made
