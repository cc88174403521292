"""What clients send and what they get; the `...Out` schemas are also the plan of what a query loads."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from shop.models import OrderStatus, PaymentMethod, ReportState

Name = Annotated[str, Field(min_length=1, max_length=200)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9-]{1,64}$")]
Email = Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+\.[^@\s]+$", max_length=254)]
Money = Annotated[Decimal, Field(ge=0, max_digits=12, decimal_places=2)]
Quantity = Annotated[int, Field(ge=1, le=1_000)]


class Input(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class Output(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class AddressIn(Input):
    street: Name
    city: Name
    postcode: Annotated[str, Field(min_length=1, max_length=12)]
    country: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]


class CustomerIn(Input):
    email: Email
    name: Name
    addresses: Annotated[list[AddressIn], Field(max_length=10)] = []


class CustomerChange(Input):
    email: Email | None = None
    name: Name | None = None


class AddressOut(Output):
    id: int
    street: str
    city: str
    postcode: str
    country: str


class CustomerRef(Output):
    id: int
    name: str


class CustomerOut(Output):
    id: int
    email: str
    name: str
    joined_at: datetime
    addresses: list[AddressOut]


class CategoryNode(BaseModel):
    id: int
    slug: str
    name: str
    children: list[CategoryNode] = []


class CategoryRef(Output):
    id: int
    slug: str
    name: str


class TagOut(Output):
    id: int
    name: str


class ProductIn(Input):
    category: Slug
    sku: Annotated[str, Field(min_length=1, max_length=32)]
    name: Name
    price: Money
    stock: Annotated[int, Field(ge=0, le=1_000_000)]


class ProductChange(Input):
    name: Name | None = None
    price: Money | None = None
    stock: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


class TagsIn(Input):
    tags: Annotated[set[Slug], Field(max_length=20)]


class Search(BaseModel):
    words: str | None = None
    category: str | None = None
    tag: str | None = None
    cheapest: Decimal | None = None
    dearest: Decimal | None = None


class ProductRef(Output):
    id: int
    sku: str
    name: str


class ProductOut(Output):
    id: int
    sku: str
    name: str
    price: Decimal
    stock: int
    category: CategoryRef
    tags: list[TagOut]


class OrderLineIn(Input):
    product_id: int
    quantity: Quantity


class OrderIn(Input):
    customer_id: int
    address_id: int
    lines: Annotated[list[OrderLineIn], Field(min_length=1, max_length=100)]


class OrderLineOut(Output):
    id: int
    quantity: int
    unit_price: Decimal
    product: ProductRef


class PaymentIn(Input):
    method: PaymentMethod
    amount: Annotated[Money, Field(gt=0)]
    reference: Annotated[str, Field(min_length=1, max_length=64)]


class PaymentOut(Output):
    id: int
    method: PaymentMethod
    amount: Decimal
    reference: str
    paid_at: datetime


class OrderSummary(Output):
    id: int
    status: OrderStatus
    total: Decimal
    placed_at: datetime
    customer: CustomerRef


class OrderOut(OrderSummary):
    address: AddressOut
    lines: list[OrderLineOut]
    payments: list[PaymentOut]


class ReviewIn(Input):
    customer_id: int
    rating: Annotated[int, Field(ge=1, le=5)]
    body: Annotated[str, Field(min_length=1, max_length=4_000)]


class ReviewOut(Output):
    id: int
    rating: int
    body: str
    written_at: datetime
    customer: CustomerRef


class ReportIn(Input):
    days: Annotated[int, Field(ge=1, le=366)] = 30


class ReportOut(Output):
    id: int
    days: int
    state: ReportState
    requested_at: datetime
    orders: int | None
    revenue: Decimal | None


class StatusTotal(BaseModel):
    status: OrderStatus
    orders: int
    revenue: Decimal


class BestSeller(BaseModel):
    product_id: int
    name: str
    pieces: int


class Dashboard(BaseModel):
    statuses: list[StatusTotal]
    best_sellers: list[BestSeller]
    waiting: list[OrderSummary]


class Imported(BaseModel):
    rows: int
    seconds: float


class Health(BaseModel):
    status: str
