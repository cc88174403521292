"""How the engines of one database are made, the primary's and its replicas' alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from verdigris.database import sizing
from verdigris.database.options import misspelt
from verdigris.database.settings import USUAL
from verdigris.engine import events, tls
from verdigris.engine.dialect import adapt
from verdigris.engine.driver import DriverSettings
from verdigris.engine.limits import connector, server_limits
from verdigris.engine.pool import Pool, adopt
from verdigris.engine.secrecy import Password, without_frames
from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from verdigris.database.settings import Settings
    from verdigris.database.url import Address

_PATIENCE = 10.0  # seconds that a client or proxy commonly waits for an answer


def build(found: Address, settings: Settings) -> AsyncEngine:
    """Return the engine for an address, with the guards on it."""
    options = dict(settings.options)
    arguments = {**found.connect, **options.pop("connect_args", {})}
    server = {**found.settings, **arguments.pop("server_settings", {})}
    if options.keys() & {"async_creator", "creator"}:
        raise events.unguarded()
    arguments["async_creator_fn"] = connector(arguments.get("async_creator_fn"), set())
    if found.url.password is not None:
        arguments.setdefault("password", Password(str(found.url.password)))
    if settings.isolation_level is not None:
        options["isolation_level"] = settings.isolation_level
    if issubclass(options.setdefault("poolclass", Pool), QueuePool):  # the others have no size
        chosen, overflow = settings.pool_size, settings.max_overflow
        options["pool_size"] = sizing.DEFAULT_SIZE if chosen is None else chosen
        options["max_overflow"] = sizing.DEFAULT_OVERFLOW if overflow is None else overflow
        options["pool_timeout"] = settings.pool_timeout
        options.setdefault("pool_use_lifo", True)  # what a quiet hour does not need stays idle, and may be closed
    options.setdefault("hide_parameters", settings.hide_parameters)
    arguments.setdefault("timeout", settings.connect_timeout)
    arguments.setdefault("command_timeout", settings.command_timeout)
    try:
        engine = create_async_engine(
            found.url,
            connect_args={**arguments, "server_settings": {**_limits(settings), **server}},
            pool_pre_ping=settings.pool_pre_ping,
            pool_recycle=settings.pool_recycle,
            **options,
        )
    except TypeError as error:
        unknown = misspelt(settings.options)
        if unknown is None:
            raise
        raise unknown from without_frames(error)
    adapt(
        cast("Any", engine.sync_engine.dialect),
        driver_settings(settings, arguments),
        pgbouncer=found.pgbouncer if settings.pgbouncer is None else settings.pgbouncer,
        verifies=not tls.is_told(arguments) and not all(map(tls.is_local, tls.hosts_of(found.url))),
    )
    _finish(engine, settings)
    return engine


def take_over(engine: AsyncEngine, settings: Settings) -> None:
    """Put the guards and the limits on an engine that exists already; what it was told itself stays."""
    if engine.dialect.driver != "asyncpg":
        raise ConfigurationError(
            f"from_engine() got an engine on {engine.dialect.name}+{engine.dialect.driver}.",
            why="The guards are built on asyncpg.",
            do=['Write create_async_engine("postgresql+asyncpg://…").'],
            page="engine/async-driver",
        )
    pool = engine.sync_engine.pool
    if type(pool) is AsyncAdaptedQueuePool:
        if pool.checkedout() or pool.checkedin():
            raise ConfigurationError(
                "from_engine() got an engine that is in use already.",
                why="Its open connections would lack the guards.",
                do=["Call Database.from_engine(engine) where the engine is made."],
                page="session/single-factory",
            )
        engine.sync_engine.pool = adopt(pool)
    adapt(
        cast("Any", engine.sync_engine.dialect),
        driver_settings(settings),
        pgbouncer=settings.pgbouncer,
        limits=_limits(settings),
    )
    engine.sync_engine.hide_parameters = engine.sync_engine.hide_parameters or settings.hide_parameters
    _finish(engine, settings)


def driver_settings(settings: Settings, arguments: Mapping[str, Any] | None = None) -> DriverSettings:
    """Return what every connection gets; arguments of asyncpg's say it before the settings do."""
    told = arguments or {}
    return DriverSettings(
        connect_timeout=told.get("timeout", settings.connect_timeout),
        command_timeout=told.get("command_timeout", settings.command_timeout),
        commit_timeout=settings.commit_timeout,
        close_timeout=settings.close_timeout,
        guard_commit=settings.guard_commit,
        shortcuts=settings.shortcuts,
    )


def lacking(engine: AsyncEngine) -> Iterator[str]:
    """Yield what an engine that was taken over lacks of ours, and what to write; ask when it has connected."""
    pool, dialect = engine.sync_engine.pool, cast("Any", engine.sync_engine.dialect)
    seconds, recycle = getattr(pool, "_timeout", 0.0), pool._recycle  # noqa: SLF001 - settings without a public name
    if not isinstance(pool, Pool):
        yield f"its {type(pool).__name__} has no line, names no holders and clears nothing that is left in a session"
    elif seconds > _PATIENCE:
        shorter = f"pool_timeout={USUAL.pool_timeout:g}"
        yield f"callers wait {seconds:g} s for a connection, longer than their clients: {shorter}"
    if isinstance(pool, QueuePool) and recycle < 0:
        yield f"connections live for ever, also those to an address that moved: pool_recycle={USUAL.pool_recycle}"
    if dialect.verdigris.trusts_anybody and not all(map(tls.is_local, tls.hosts_of(engine.url))):
        yield "nobody verifies the server's certificate: connect_args={'ssl': 'verify-full'}"


def _limits(settings: Settings) -> dict[str, str]:
    """Return the server's own limits, as they are sent when connecting."""
    return server_limits(
        statement=settings.statement_timeout,
        transaction=settings.transaction_timeout,
        idle_in_transaction=settings.idle_in_transaction_timeout,
    )


def _finish(engine: AsyncEngine, settings: Settings) -> None:
    pool = engine.sync_engine.pool
    if isinstance(pool, Pool):
        pool.extras.queue.limit, pool.extras.clears = settings.max_waiting, settings.reset
    events.listen(engine.sync_engine, pool._recycle)  # noqa: SLF001 - the setting has no public name
