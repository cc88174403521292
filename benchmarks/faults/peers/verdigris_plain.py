"""verdigris, the plain dependency"""

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI

from faults.handlers import HANDLERS
from faults.settings import ENGINE
from verdigris import Database
from verdigris.fastapi import Route, install, retrying
from verdigris.session import AsyncSession


def app(url: str, *, routed: bool = False) -> FastAPI:
    """Declare the endpoint of each handler; with the route class, also that it may be repeated."""
    db = Database(url, **ENGINE)
    app = FastAPI()
    install(app, db)
    app.state.engine = lambda: db.engine
    Session = Annotated[AsyncSession, Depends(db.request_session, scope="function")]  # noqa: N806 - a type
    router = APIRouter(route_class=Route) if routed else APIRouter()

    for name, handler in HANDLERS.items():

        async def endpoint(session: Session, handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(session)

        router.post(f"/{name}", response_model=None)(retrying()(endpoint) if routed else endpoint)
    app.include_router(router)
    return app
