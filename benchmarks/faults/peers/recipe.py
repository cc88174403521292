"""the usual recipe"""

from collections.abc import AsyncGenerator
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from faults.handlers import HANDLERS
from faults.settings import ENGINE


def app(url: str, *, scope: str = "request") -> FastAPI:
    """Tick every box of the checklist that the recipe knows."""
    engine = create_async_engine(url, **ENGINE)
    factory = async_sessionmaker(engine, class_=AsyncSession, expire_on_commit=False)

    async def get_session() -> AsyncGenerator[AsyncSession]:
        async with factory() as session:
            try:
                yield session
                await session.commit()
            except Exception:
                await session.rollback()
                raise

    Session = Annotated[AsyncSession, Depends(get_session, scope=scope)]  # noqa: N806 - a type
    app = FastAPI()
    app.state.engine = lambda: engine

    @app.exception_handler(OperationalError)
    async def unavailable(request: Request, error: OperationalError) -> JSONResponse:
        return JSONResponse({"detail": "the database is not available"}, 503, {"Retry-After": "1"})

    @app.exception_handler(IntegrityError)
    async def conflict(request: Request, error: IntegrityError) -> JSONResponse:
        return JSONResponse({"detail": "conflict"}, 409)

    for name, handler in HANDLERS.items():

        async def endpoint(session: Session, handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(session)

        app.post(f"/{name}", response_model=None)(endpoint)
    return app
