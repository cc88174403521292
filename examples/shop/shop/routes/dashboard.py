"""The shop at a glance: three queries at once, each on its own session."""

from fastapi import APIRouter
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from verdigris import load
from verdigris.fastapi import Route

from shop.database import db
from shop.models import Order, OrderLine, OrderStatus, Product
from shop.schemas import BestSeller, Dashboard, OrderSummary, StatusTotal

router = APIRouter(tags=["dashboard"], route_class=Route)


@router.get("/dashboard")
async def dashboard() -> Dashboard:
    statuses, best_sellers, waiting = await db.gather(by_status, most_sold, oldest_unpaid)
    return Dashboard(statuses=statuses, best_sellers=best_sellers, waiting=waiting)


async def by_status(session: AsyncSession) -> list[StatusTotal]:
    rows = await session.execute(
        select(Order.status, func.count(), func.sum(Order.total)).group_by(Order.status).order_by(Order.status)
    )
    return [StatusTotal(status=status, orders=orders, revenue=revenue) for status, orders, revenue in rows]


async def most_sold(session: AsyncSession) -> list[BestSeller]:
    """The ten products with the most pieces among the newest orders."""
    newest = select(Order.id).order_by(Order.id.desc()).limit(1_000)
    sold = func.sum(OrderLine.quantity)
    rows = await session.execute(
        select(Product.id, Product.name, sold)
        .join(OrderLine, OrderLine.product_id == Product.id)
        .where(OrderLine.order_id.in_(newest))
        .group_by(Product.id)
        .order_by(sold.desc(), Product.id)
        .limit(10)
    )
    return [BestSeller(product_id=key, name=name, pieces=pieces) for key, name, pieces in rows]


async def oldest_unpaid(session: AsyncSession) -> list[OrderSummary]:
    """The ten pending orders that have waited longest."""
    pending = select(Order).where(Order.status == OrderStatus.PENDING).options(load(Order, OrderSummary))
    rows = await session.scalars(pending.order_by(Order.id).limit(10))
    return [OrderSummary.model_validate(order) for order in rows]
