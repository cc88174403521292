"""Streaming export of orders."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import StreamingResponse
from sqlalchemy import select
from verdigris import load
from verdigris.fastapi import Route

from shop.database import db
from shop.models import Order
from shop.schemas import OrderSummary

router = APIRouter(prefix="/exports", tags=["exports"], route_class=Route)


@router.get("/orders")
async def orders(days: Annotated[int, Query(ge=1, le=3_660)] = 1) -> StreamingResponse:
    """The orders of the last days as NDJSON, however many there are."""
    return StreamingResponse(lines(datetime.now(UTC) - timedelta(days=days)), media_type="application/x-ndjson")


async def lines(since: datetime) -> AsyncIterator[str]:
    """Read orders through a server-side cursor, on a session that lives as long as the stream does."""
    found = select(Order).where(Order.placed_at >= since).order_by(Order.placed_at).options(load(Order, OrderSummary))
    async with db.session() as session:
        async for order in await session.stream_scalars(found.execution_options(yield_per=500)):
            yield OrderSummary.model_validate(order).model_dump_json() + "\n"
