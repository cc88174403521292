"""… with `scope="function"`"""

from fastapi import FastAPI

from faults.peers import recipe


def app(url: str) -> FastAPI:
    return recipe.app(url, scope="function")
