"""Work that happens after the answer, each unit on a session of its own."""

from datetime import timedelta

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from shop.database import db
from shop.models import Order, OrderStatus, ReportState, SalesReport


async def sales_report(id: int) -> None:
    """Compute a queued report; a report whose computation failed says so."""
    try:
        await compute(id)
    except Exception:
        await mark_failed(id)
        raise


@db.transactional(isolation_level="REPEATABLE READ")
async def compute(session: AsyncSession, id: int) -> None:
    report = await session.get_one(SalesReport, id, with_for_update=True)
    since = report.requested_at - timedelta(days=report.days)
    sold = select(func.count(), func.sum(Order.total)).where(
        Order.placed_at >= since, Order.status.in_((OrderStatus.PAID, OrderStatus.SHIPPED))
    )
    report.orders, report.revenue = (await session.execute(sold)).one()
    report.state = ReportState.DONE


@db.transactional()
async def mark_failed(session: AsyncSession, id: int) -> None:
    await session.execute(update(SalesReport).where(SalesReport.id == id).values(state=ReportState.FAILED))
