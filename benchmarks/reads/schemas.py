"""The answers, as Pydantic models: what every peer that uses Pydantic returns."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from pydantic import BaseModel, ConfigDict


class Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class OrderRow(Out):
    id: int
    number: str
    status: str
    placed_at: datetime
    total: Decimal
    note: str | None
    customer_id: int


class CustomerOut(Out):
    id: int
    name: str
    email: str


class LineOut(Out):
    id: int
    sku: str
    quantity: int
    unit_price: Decimal


class OrderOut(Out):
    id: int
    number: str
    status: str
    placed_at: datetime
    total: Decimal
    note: str | None
    customer: CustomerOut
    lines: list[LineOut]
