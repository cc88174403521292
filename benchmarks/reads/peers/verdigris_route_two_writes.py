"""verdigris: ReadRouter, head and body in two writes"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reads.peers import verdigris_route
from verdigris import _one_write, _whole_answers

if TYPE_CHECKING:
    from fastapi import FastAPI


def app(url: str) -> FastAPI:
    _one_write._is_uvicorns = lambda _: False  # noqa: SLF001 - there is no switch for it
    _whole_answers._sends = lambda _: None  # noqa: SLF001 - likewise
    return verdigris_route.app(url)
