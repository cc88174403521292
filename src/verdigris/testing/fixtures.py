"""What the plugin's fixtures do, apart from pytest's declarations."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING, Any

from sqlalchemy import event

from verdigris.database import Database
from verdigris.testing.loops import finish
from verdigris.testing.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from verdigris.session import AsyncSession


@contextmanager
def sandbox(url: str) -> Iterator[Sandbox]:
    """Give a sandbox and end it, in whichever loop it was used."""
    made = Sandbox(url)
    try:
        yield made
    finally:
        made.finish()


@contextmanager
def session(sandbox: Sandbox) -> Iterator[AsyncSession]:
    """Give a session of a sandbox and close it, so that what a test has only read is no session that nobody closed."""
    made = sandbox.session()
    try:
        yield made
    finally:
        sandbox.finish_session(made)


@contextmanager
def database(url: str) -> Iterator[Database]:
    """Give a Database and dispose of it in the loop that its connections live in."""
    made = Database(url, pool_size=5, max_overflow=5)
    loops: list[asyncio.AbstractEventLoop] = []

    @event.listens_for(made.engine.sync_engine, "connect")
    def connected(*_: Any) -> None:
        loops.append(asyncio.get_running_loop())

    try:
        yield made
    finally:
        for loop in loops[-1:]:
            finish(loop, made.dispose)


@contextmanager
def loop_kept_open(request: pytest.FixtureRequest) -> Iterator[None]:
    """Keep the test's event loop open until the fixture that asks has closed its connections.

    pytest-asyncio sets its runner up after, and so tears it down before, a synchronous fixture; anyio closes its loop
    between asynchronous fixtures. Both let a fixture hold the runner; where they don't, connections are cut instead.
    """
    with ExitStack() as stack:
        if "anyio_backend" in request.fixturenames:
            with suppress(ImportError):
                from anyio.pytest_plugin import extract_backend_and_options, get_runner

                backend = extract_backend_and_options(request.getfixturevalue("anyio_backend"))
                stack.enter_context(get_runner(*backend))
        elif (name := _runner_of(request)) is not None:
            request.getfixturevalue(name)
        yield


def _runner_of(request: pytest.FixtureRequest) -> str | None:
    names = [name for name in request.node.fixturenames if name.startswith("_") and name.endswith("_scoped_runner")]
    return names[0] if names else None
