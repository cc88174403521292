"""Whether this process can serve: it can when it gets a connection and an answer."""

from fastapi import APIRouter
from sqlalchemy import select
from verdigris.fastapi import Route

from shop.database import db
from shop.schemas import Health

router = APIRouter(tags=["health"], route_class=Route)


@router.get("/health")
async def health() -> Health:
    """Answer 200 when the database does; a lost or exhausted one is a 503 by the library's handlers."""
    async with db.read() as session:
        await session.execute(select(1))
    return Health(status="ok")
