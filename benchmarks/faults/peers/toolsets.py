"""fastapi-toolsets"""

from typing import Annotated

from fastapi import Depends, FastAPI
from fastapi_toolsets.db import Database
from fastapi_toolsets.exceptions import init_exceptions_handlers
from sqlalchemy.ext.asyncio import AsyncSession

from faults.handlers import HANDLERS
from faults.settings import ENGINE


def app(url: str) -> FastAPI:
    db = Database(url, **ENGINE)
    app = FastAPI()
    db.install(app)
    init_exceptions_handlers(app)
    app.state.engine = lambda: db.engine
    Session = Annotated[AsyncSession, Depends(db)]  # noqa: N806 - a type

    for name, handler in HANDLERS.items():

        async def endpoint(session: Session, handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(session)

        app.post(f"/{name}", response_model=None)(endpoint)
    return app
