"""advanced-alchemy"""

from typing import Annotated

from advanced_alchemy.config import EngineConfig
from advanced_alchemy.extensions.fastapi import AdvancedAlchemy, AsyncSessionConfig, SQLAlchemyAsyncConfig
from fastapi import Depends, FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from faults.handlers import HANDLERS
from faults.settings import ENGINE


def app(url: str) -> FastAPI:
    app = FastAPI()
    config = SQLAlchemyAsyncConfig(
        connection_string=url,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        engine_config=EngineConfig(**ENGINE),
        commit_mode="autocommit",
    )
    alchemy = AdvancedAlchemy(config=config, app=app)
    app.state.engine = config.get_engine
    Session = Annotated[AsyncSession, Depends(alchemy.provide_session())]  # noqa: N806 - a type

    for name, handler in HANDLERS.items():

        async def endpoint(session: Session, handler=handler):  # noqa: ANN001, ANN202 - bound early
            return await handler(session)

        app.post(f"/{name}", response_model=None)(endpoint)
    return app
