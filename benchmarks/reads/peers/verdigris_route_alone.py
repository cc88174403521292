"""verdigris: ReadRouter(together=False)"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reads.peers import verdigris_route

if TYPE_CHECKING:
    from fastapi import FastAPI


def app(url: str) -> FastAPI:
    return verdigris_route.app(url, together=False)
