"""The shop's application: `uvicorn shop.main:app --app-dir examples/shop` with DATABASE_URL set."""

import json

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from verdigris.fastapi import install

from shop.database import db
from shop.routes import routers

app = FastAPI(title="Shop")
install(app, db)
for router in routers:
    app.include_router(router)


@app.exception_handler(RequestValidationError)
async def refuse(_: Request, error: RequestValidationError) -> Response:
    """Say what is wrong with a request without repeating it: FastAPI's own answer fails on a lone surrogate."""
    told = [{"type": each["type"], "loc": each["loc"], "msg": each["msg"]} for each in error.errors()]
    return Response(json.dumps({"detail": told}), 422, media_type="application/json")
