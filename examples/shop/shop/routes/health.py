"""Whether this process can serve, which it can when it gets a connection and an answer, and the figures of its pool."""

from fastapi import APIRouter, Response
from sqlalchemy import select
from verdigris.fastapi import Route
from verdigris.performance.exporters import CONTENT_TYPE, prometheus_text

from shop.database import db
from shop.schemas import Health

router = APIRouter(tags=["health"], route_class=Route)


@router.get("/health")
async def health() -> Health:
    """Answer 200 when the database does; a lost or exhausted one is a 503 by the library's handlers."""
    async with db.read() as session:
        await session.execute(select(1))
    return Health(status="ok")


@router.get("/metrics", include_in_schema=False)
async def metrics() -> Response:
    """Return the pool's figures and the times of queries, as Prometheus scrapes them."""
    return Response(prometheus_text({"shop": db.queries}), media_type=CONTENT_TYPE)
