"""context-async-sqlalchemy"""

from context_async_sqlalchemy import DBConnect, db_session
from context_async_sqlalchemy.fastapi_utils import add_fastapi_http_db_session_middleware
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from faults.handlers import HANDLERS
from faults.settings import ENGINE


def app(url: str) -> FastAPI:
    engine = create_async_engine(url, **ENGINE)
    connection = DBConnect(
        engine_creator=lambda _: engine,
        session_maker_creator=lambda engine: async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False),
        host="127.0.0.1",
    )
    app = FastAPI()
    add_fastapi_http_db_session_middleware(app)
    app.state.engine = lambda: engine

    for name, handler in HANDLERS.items():

        async def endpoint(handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(await db_session(connection))

        app.post(f"/{name}", response_model=None)(endpoint)
    return app
