"""Orders: placed and cancelled under SERIALIZABLE, listed and read."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Response, status
from sqlalchemy import bindparam, select
from sqlalchemy.orm import joinedload
from verdigris import load
from verdigris.fastapi import Route, retrying

from shop.database import SessionDep, db
from shop.models import Address, Order, OrderLine, OrderStatus, Product
from shop.routes.paging import PageDep
from shop.schemas import OrderIn, OrderOut, OrderSummary

router = APIRouter(prefix="/orders", tags=["orders"], route_class=Route)


@router.get("", response_model=list[OrderSummary])
async def browse(
    page: PageDep, session: SessionDep, wanted: Annotated[OrderStatus | None, Query(alias="status")] = None
) -> Sequence[Order]:
    """All orders or those in one status, newest first."""
    found = select(Order).options(load(Order, OrderSummary))
    if wanted is not None:
        found = found.where(Order.status == wanted)
    if page.after is not None:
        found = found.where(Order.id < page.after)
    rows = (await session.scalars(found.order_by(Order.id.desc()).limit(page.limit))).all()
    page.follow([order.id for order in rows])
    return rows


order_by_id = db.json_read(select(Order).where(Order.id == bindparam("id")), OrderOut)


@router.get("/{id}", response_model=OrderOut)
async def read(id: int) -> Response:
    """One order as PostgreSQL writes it, in one statement; 404 where there is none."""
    return await order_by_id(id=id)


@router.post("", status_code=status.HTTP_201_CREATED, response_model=OrderOut)
@retrying(isolation_level="SERIALIZABLE")
async def place(new: OrderIn, session: SessionDep) -> Order:
    """Place an order and take its pieces from stock: 409 when too few are left, 422 for an unknown address or product.

    Two orders for one product conflict; the request that loses runs again from the start, on a new session.
    """
    known = select(Address).where(Address.id == new.address_id, Address.customer_id == new.customer_id)
    address = await session.scalar(known.options(joinedload(Address.customer, innerjoin=True)))
    if address is None:
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, f"customer has no address {new.address_id}")
    wanted = {line.product_id: line.quantity for line in new.lines}
    products = (await session.scalars(select(Product).where(Product.id.in_(wanted)))).all()
    if len(products) < len(new.lines):
        raise HTTPException(status.HTTP_422_UNPROCESSABLE_CONTENT, "a product is unknown or named twice")
    lines = [take(product, wanted[product.id]) for product in products]
    total = sum((line.quantity * line.unit_price for line in lines), Decimal())
    order = Order(customer=address.customer, address=address, lines=lines, payments=[], total=total)
    session.add(order)
    await session.flush()
    return order


def take(product: Product, quantity: int) -> OrderLine:
    if product.stock < quantity:
        raise HTTPException(status.HTTP_409_CONFLICT, f"only {product.stock} of {product.sku} left")
    product.stock -= quantity
    return OrderLine(product=product, quantity=quantity, unit_price=product.price)


@router.post("/{id}/cancel", response_model=OrderOut)
@retrying(isolation_level="SERIALIZABLE")
async def cancel(id: int, session: SessionDep) -> Order:
    """Cancel a pending order and put its pieces back into stock."""
    order = await session.scalar(select(Order).where(Order.id == id).options(load(Order, OrderOut)))
    if order is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no order {id}")
    if order.status is not OrderStatus.PENDING:
        raise HTTPException(status.HTTP_409_CONFLICT, f"order {id} is {order.status}")
    order.status = OrderStatus.CANCELLED
    for line in order.lines:
        line.product.stock += line.quantity
    return order
