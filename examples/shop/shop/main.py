"""The shop's application: `uvicorn shop.main:app --app-dir examples/shop` with DATABASE_URL set."""

from fastapi import FastAPI
from verdigris.fastapi import install

from shop.database import db
from shop.routes import routers

app = FastAPI(title="Shop")
install(app, db)
for router in routers:
    app.include_router(router)
