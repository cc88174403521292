"""FastSQLA"""

import fastsqla
from fastapi import FastAPI
from fastsqla import Session

from faults.handlers import HANDLERS
from faults.settings import ENGINE


def app(url: str) -> FastAPI:
    app = FastAPI(lifespan=fastsqla.new_lifespan(url, **ENGINE))
    app.state.engine = lambda: fastsqla.SessionFactory.kw["bind"]

    for name, handler in HANDLERS.items():

        async def endpoint(session: Session, handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(session)

        app.post(f"/{name}", response_model=None)(endpoint)
    return app
