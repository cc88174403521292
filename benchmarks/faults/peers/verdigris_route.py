"""verdigris, the route class"""

from fastapi import FastAPI

from faults.peers import verdigris_plain


def app(url: str) -> FastAPI:
    return verdigris_plain.app(url, routed=True)
