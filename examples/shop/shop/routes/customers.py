"""Customers, their addresses and their orders."""

from collections.abc import Sequence

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import select
from verdigris import load
from verdigris.fastapi import Route

from shop.database import SessionDep
from shop.models import Address, Customer, Order
from shop.routes.paging import PageDep
from shop.schemas import CustomerChange, CustomerIn, CustomerOut, OrderSummary

router = APIRouter(prefix="/customers", tags=["customers"], route_class=Route)


@router.post("", status_code=status.HTTP_201_CREATED, response_model=CustomerOut)
async def create(new: CustomerIn, session: SessionDep) -> Customer:
    """Add a customer; an e-mail address that is already known is a 409."""
    addresses = [Address(**address.model_dump()) for address in new.addresses]
    customer = Customer(email=new.email, name=new.name, addresses=addresses)
    session.add(customer)
    await session.flush()
    return customer


@router.get("/{id}", response_model=CustomerOut)
async def read(id: int, session: SessionDep) -> Customer:
    customer = await session.scalar(select(Customer).where(Customer.id == id).options(load(Customer, CustomerOut)))
    if customer is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no customer {id}")
    return customer


@router.patch("/{id}", response_model=CustomerOut)
async def change(id: int, wanted: CustomerChange, session: SessionDep) -> Customer:
    customer = await session.scalar(select(Customer).where(Customer.id == id).options(load(Customer, CustomerOut)))
    if customer is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no customer {id}")
    for field, value in wanted.model_dump(exclude_none=True).items():
        setattr(customer, field, value)
    return customer


@router.get("/{id}/orders", response_model=list[OrderSummary])
async def orders(id: int, page: PageDep, session: SessionDep) -> Sequence[Order]:
    """The customer's orders, newest first."""
    found = select(Order).where(Order.customer_id == id).options(load(Order, OrderSummary))
    if page.after is not None:
        found = found.where(Order.id < page.after)
    rows = (await session.scalars(found.order_by(Order.id.desc()).limit(page.limit))).all()
    page.follow([order.id for order in rows])
    return rows
