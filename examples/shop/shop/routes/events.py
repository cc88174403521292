"""A websocket that tells where an order stands, as often as it is asked."""

from contextlib import suppress

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError
from sqlalchemy import select
from verdigris import load

from shop.database import db
from shop.models import Order
from shop.schemas import OrderSummary

router = APIRouter(tags=["events"])


class Question(BaseModel):
    order: int


class Unknown(BaseModel):
    error: str


@router.websocket("/events")
async def events(socket: WebSocket) -> None:
    await socket.accept()
    with suppress(WebSocketDisconnect):  # the client may leave between its question and our answer
        async for message in socket.iter_text():
            await socket.send_text((await answer(message)).model_dump_json())


async def answer(message: str) -> OrderSummary | Unknown:
    """Answer one message on a session of its own: a socket that idles for hours holds no connection."""
    try:
        question = Question.model_validate_json(message)
    except ValidationError:
        return Unknown(error='send {"order": <id>}')
    async with db.read() as session:
        found = select(Order).where(Order.id == question.order).options(load(Order, OrderSummary))
        order = await session.scalar(found)
    return Unknown(error=f"no order {question.order}") if order is None else OrderSummary.model_validate(order)
