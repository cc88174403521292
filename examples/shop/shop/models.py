"""What the shop keeps: customers, a category tree, products with tags, orders, payments, reviews, reports."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Numeric,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    func,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.orm import Mapped, mapped_column, relationship
from verdigris import Base


class OrderStatus(StrEnum):
    """The life of an order; only a pending one can be paid or cancelled."""

    PENDING = "pending"
    PAID = "paid"
    SHIPPED = "shipped"
    CANCELLED = "cancelled"


class PaymentMethod(StrEnum):
    """How a customer paid."""

    CARD = "card"
    TRANSFER = "transfer"
    VOUCHER = "voucher"


class ReportState(StrEnum):
    """Where the background job that computes a report stands."""

    QUEUED = "queued"
    DONE = "done"
    FAILED = "failed"


def choice(kind: type[StrEnum], name: str) -> Enum:
    """Store the values of `kind` as text with a check constraint: adding a value later needs no new type."""
    return Enum(
        kind,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


product_tags = Table(
    "product_tags",
    Base.metadata,
    Column("product_id", ForeignKey("products.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True, index=True),
)


class Customer(Base):
    """Someone who buys; known by e-mail address."""

    __tablename__ = "customers"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    email: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)
    joined_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    addresses: Mapped[list[Address]] = relationship(
        back_populates="customer", lazy="raise_on_sql", order_by="Address.id", cascade="all, delete-orphan"
    )
    orders: Mapped[list[Order]] = relationship(back_populates="customer", lazy="raise_on_sql")
    reviews: Mapped[list[Review]] = relationship(back_populates="customer", lazy="raise_on_sql")


class Address(Base):
    """Where a customer's orders go."""

    __tablename__ = "addresses"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), index=True)
    street: Mapped[str] = mapped_column(Text)
    city: Mapped[str] = mapped_column(Text)
    postcode: Mapped[str] = mapped_column(String(12))
    country: Mapped[str] = mapped_column(String(2))

    customer: Mapped[Customer] = relationship(back_populates="addresses", lazy="raise_on_sql")


class Category(Base):
    """A node of the catalogue's tree."""

    __tablename__ = "categories"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("categories.id"), index=True)
    slug: Mapped[str] = mapped_column(Text, unique=True)
    name: Mapped[str] = mapped_column(Text)

    parent: Mapped[Category | None] = relationship(
        back_populates="children", remote_side="Category.id", lazy="raise_on_sql"
    )
    children: Mapped[list[Category]] = relationship(back_populates="parent", lazy="raise_on_sql")
    products: Mapped[list[Product]] = relationship(back_populates="category", lazy="raise_on_sql")


class Tag(Base):
    """A word that groups products across categories."""

    __tablename__ = "tags"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)

    products: Mapped[list[Product]] = relationship(secondary=product_tags, back_populates="tags", lazy="raise_on_sql")


class Product(Base):
    """Something for sale, with the number of pieces in stock."""

    __tablename__ = "products"
    __table_args__ = (
        CheckConstraint("price >= 0", name="price_not_negative"),
        CheckConstraint("stock >= 0", name="stock_not_negative"),
        Index("ix_products_search", "search", postgresql_using="gin"),
    )
    # Nobody reads `search` back, and fetching it would keep the updates of an order's products from being one batch.
    __mapper_args__ = {"eager_defaults": False}  # noqa: RUF012 - SQLAlchemy's own spelling

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    category_id: Mapped[int] = mapped_column(ForeignKey("categories.id"), index=True)
    sku: Mapped[str] = mapped_column(String(32), unique=True)
    name: Mapped[str] = mapped_column(Text)
    price: Mapped[Decimal] = mapped_column(Numeric(12, 2), index=True)
    stock: Mapped[int] = mapped_column()
    search: Mapped[str] = mapped_column(
        TSVECTOR, Computed("to_tsvector('english'::regconfig, name)", persisted=True), deferred=True
    )

    category: Mapped[Category] = relationship(back_populates="products", lazy="raise_on_sql")
    tags: Mapped[list[Tag]] = relationship(
        secondary=product_tags, back_populates="products", lazy="raise_on_sql", order_by="Tag.name"
    )
    reviews: Mapped[list[Review]] = relationship(back_populates="product", lazy="raise_on_sql")


class Order(Base):
    """What a customer bought at one moment, and what it came to."""

    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"), index=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id"), index=True)
    status: Mapped[OrderStatus] = mapped_column(
        choice(OrderStatus, "order_status"), default=OrderStatus.PENDING, index=True
    )
    total: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    placed_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now(), index=True)

    customer: Mapped[Customer] = relationship(back_populates="orders", lazy="raise_on_sql")
    address: Mapped[Address] = relationship(lazy="raise_on_sql")
    lines: Mapped[list[OrderLine]] = relationship(
        back_populates="order", lazy="raise_on_sql", order_by="OrderLine.id", cascade="all, delete-orphan"
    )
    payments: Mapped[list[Payment]] = relationship(back_populates="order", lazy="raise_on_sql", order_by="Payment.id")


class OrderLine(Base):
    """One product of an order, at the price of that day."""

    __tablename__ = "order_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id", ondelete="CASCADE"), index=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id"), index=True)
    quantity: Mapped[int] = mapped_column(SmallInteger)
    unit_price: Mapped[Decimal] = mapped_column(Numeric(12, 2))

    order: Mapped[Order] = relationship(back_populates="lines", lazy="raise_on_sql")
    product: Mapped[Product] = relationship(lazy="raise_on_sql")


class Payment(Base):
    """Money received for an order.

    `reference` is the payment provider's. Its uniqueness is checked at COMMIT, so that a correction can
    swap two references inside one transaction.
    """

    __tablename__ = "payments"
    __table_args__ = (
        UniqueConstraint("reference", deferrable=True, initially="DEFERRED"),
        CheckConstraint("amount > 0", name="amount_positive"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    method: Mapped[PaymentMethod] = mapped_column(choice(PaymentMethod, "payment_method"))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
    reference: Mapped[str] = mapped_column(String(64))
    paid_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    order: Mapped[Order] = relationship(back_populates="payments", lazy="raise_on_sql")


class Review(Base):
    """What a customer thinks of a product; one review each."""

    __tablename__ = "reviews"
    __table_args__ = (
        UniqueConstraint("product_id", "customer_id"),
        CheckConstraint("rating BETWEEN 1 AND 5", name="rating_range"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    product_id: Mapped[int] = mapped_column(ForeignKey("products.id", ondelete="CASCADE"))
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id", ondelete="CASCADE"), index=True)
    rating: Mapped[int] = mapped_column(SmallInteger)
    body: Mapped[str] = mapped_column(Text)
    written_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    product: Mapped[Product] = relationship(back_populates="reviews", lazy="raise_on_sql")
    customer: Mapped[Customer] = relationship(back_populates="reviews", lazy="raise_on_sql")


class SalesReport(Base):
    """Orders and revenue of the last days, computed by a background job."""

    __tablename__ = "sales_reports"

    id: Mapped[int] = mapped_column(BigInteger, Identity(), primary_key=True)
    days: Mapped[int] = mapped_column(SmallInteger)
    state: Mapped[ReportState] = mapped_column(choice(ReportState, "report_state"), default=ReportState.QUEUED)
    requested_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    orders: Mapped[int | None] = mapped_column()
    revenue: Mapped[Decimal | None] = mapped_column(Numeric(14, 2))
