"""advanced-alchemy, a repository service"""

from typing import Annotated, Any

from advanced_alchemy.config import EngineConfig
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from fastapi import Depends, FastAPI
from sqlalchemy.orm import joinedload, selectinload

from reads.models import Order
from reads.schemas import OrderOut, OrderRow
from reads.settings import POOL


class Orders(SQLAlchemyAsyncRepositoryService[Order]):
    class Repository(SQLAlchemyAsyncRepository[Order]):
        model_type = Order

    repository_type = Repository


def app(url: str) -> FastAPI:
    app = FastAPI()
    config = SQLAlchemyAsyncConfig(
        connection_string=url,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        engine_config=EngineConfig(pool_size=POOL, max_overflow=0),
        commit_mode="autocommit",
    )
    alchemy = AdvancedAlchemy(config=config, app=app)
    Service = Annotated[Orders, Depends(alchemy.provide_service(Orders))]  # noqa: N806 - a type

    @app.get("/orders/{id_}", response_model=OrderRow)
    async def row(id_: int, orders: Service) -> Any:
        return orders.to_schema(await orders.get(id_), schema_type=OrderRow)

    @app.get("/orders", response_model=list[OrderRow])
    async def page(orders: Service, after: int = 0, limit: int = 20) -> Any:
        found = await orders.get_many(Order.id > after, OrderBy("id"), LimitOffset(limit, 0))
        return orders.to_schema(found, schema_type=OrderRow).items

    @app.get("/nested", response_model=list[OrderOut])
    async def nested(orders: Service, after: int = 0, limit: int = 20) -> Any:
        loads = [joinedload(Order.customer, innerjoin=True), selectinload(Order.lines)]
        found = await orders.get_many(Order.id > after, OrderBy("id"), LimitOffset(limit, 0), load=loads)
        return orders.to_schema(found, schema_type=OrderOut).items

    return app
