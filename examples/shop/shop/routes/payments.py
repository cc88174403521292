"""Payments for an order."""

from decimal import Decimal

from fastapi import APIRouter, HTTPException, status
from sqlalchemy import func, select
from verdigris.fastapi import Route

from shop.database import SessionDep
from shop.models import Order, OrderStatus, Payment
from shop.schemas import PaymentIn, PaymentOut

router = APIRouter(prefix="/orders/{order_id}/payments", tags=["payments"], route_class=Route)


@router.post("", status_code=status.HTTP_201_CREATED, response_model=PaymentOut)
async def pay(order_id: int, new: PaymentIn, session: SessionDep) -> Payment:
    """Pay an order, in part or in full: 409 for more than is owed and for a reference that was used before.

    The reference is checked at COMMIT. Nothing here sees that fail, and yet the client never gets a 201 for it:
    the request's transaction commits before its answer leaves.
    """
    order = await session.get(Order, order_id, with_for_update=True)
    if order is None:
        raise HTTPException(status.HTTP_404_NOT_FOUND, f"no order {order_id}")
    if order.status is not OrderStatus.PENDING:
        raise HTTPException(status.HTTP_409_CONFLICT, f"order {order_id} is {order.status}")
    paid = await session.scalar(select(func.sum(Payment.amount)).where(Payment.order_id == order_id))
    owed = order.total - (paid or Decimal())
    if new.amount > owed:
        raise HTTPException(status.HTTP_409_CONFLICT, f"only {owed} is owed")
    if new.amount == owed:
        order.status = OrderStatus.PAID
    payment = Payment(order_id=order_id, **new.model_dump())
    session.add(payment)
    await session.flush()
    return payment
