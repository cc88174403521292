"""floor: FastAPI, a constant"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Response

from reads.constants import constants


def app(url: str) -> FastAPI:
    answers: dict[str, bytes] = {}

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        answers.update(await constants(url))
        yield

    def answer(name: str) -> Response:
        return Response(answers[name], media_type="application/json")

    app = FastAPI(lifespan=lifespan)

    @app.get("/orders/{id_}")
    async def row(id_: int) -> Response:
        return answer("row")

    @app.get("/orders")
    async def page(after: int = 0, limit: int = 20) -> Response:
        return answer("page")

    @app.get("/nested")
    async def nested(after: int = 0, limit: int = 20) -> Response:
        return answer(f"nested{limit}")

    return app
