"""How the engines of one database are made, the primary's and its replicas' alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, QueuePool

from verdigris.engine import events, sizing, tls
from verdigris.engine.dialect import adapt
from verdigris.engine.driver import DriverSettings
from verdigris.engine.limits import connector, server_limits
from verdigris.engine.pool import Pool, adopt
from verdigris.engine.secrecy import Password
from verdigris.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.engine.url import Address

_PATIENCE = 10.0  # seconds that a client or proxy commonly waits for an answer


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """What `Database` was told about its engines; seconds."""

    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float = 3.0
    pool_recycle: int = 1800
    pool_pre_ping: bool = True
    max_waiting: int | None = None
    connect_timeout: float = 5.0
    command_timeout: float = 60.0
    statement_timeout: float | None = 30.0
    transaction_timeout: float | None = 300.0
    idle_in_transaction_timeout: float | None = 60.0
    commit_timeout: float = 10.0
    close_timeout: float = 2.0
    isolation_level: str | None = None
    guard_commit: bool = True
    pgbouncer: bool | None = None
    reset: bool = True
    hide_parameters: bool = True
    options: dict[str, Any] = field(default_factory=dict)  # of create_async_engine

    @property
    def limits(self) -> dict[str, str]:
        """The server's own limits, as they are sent when connecting."""
        return server_limits(
            statement=self.statement_timeout,
            transaction=self.transaction_timeout,
            idle_in_transaction=self.idle_in_transaction_timeout,
        )


def build(found: Address, settings: EngineSettings) -> AsyncEngine:
    """Return the engine for an address, with the guards on it."""
    options = dict(settings.options)
    arguments = {**found.connect, **options.pop("connect_args", {})}
    server = {**found.settings, **arguments.pop("server_settings", {})}
    if options.keys() & {"async_creator", "creator"}:
        raise events.unguarded()
    arguments.setdefault("async_creator_fn", connector())
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
    options.setdefault("hide_parameters", True)
    driver = DriverSettings(
        connect_timeout=arguments.setdefault("timeout", settings.connect_timeout),
        command_timeout=arguments.setdefault("command_timeout", settings.command_timeout),
        commit_timeout=settings.commit_timeout,
        close_timeout=settings.close_timeout,
        guard_commit=settings.guard_commit,
    )
    engine = create_async_engine(
        found.url,
        connect_args={**arguments, "server_settings": {**settings.limits, **server}},
        pool_pre_ping=settings.pool_pre_ping,
        pool_recycle=settings.pool_recycle,
        **options,
    )
    adapt(
        cast("Any", engine.sync_engine.dialect),
        driver,
        pgbouncer=found.pgbouncer if settings.pgbouncer is None else settings.pgbouncer,
        verifies=not tls.is_told(arguments) and not all(map(tls.is_local, tls.hosts_of(found.url))),
    )
    _finish(engine, settings)
    return engine


def take_over(engine: AsyncEngine, settings: EngineSettings) -> None:
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
    driver = DriverSettings(
        settings.connect_timeout,
        settings.command_timeout,
        settings.commit_timeout,
        settings.close_timeout,
        guard_commit=settings.guard_commit,
    )
    adapt(cast("Any", engine.sync_engine.dialect), driver, pgbouncer=settings.pgbouncer, limits=settings.limits)
    engine.sync_engine.hide_parameters = engine.sync_engine.hide_parameters or settings.hide_parameters
    _finish(engine, settings)


def lacking(engine: AsyncEngine) -> Iterator[str]:
    """Yield what an engine that was taken over lacks of ours, and what to write; ask when it has connected."""
    pool, dialect = engine.sync_engine.pool, cast("Any", engine.sync_engine.dialect)
    seconds, recycle = getattr(pool, "_timeout", 0.0), pool._recycle  # noqa: SLF001 - settings without a public name
    if not isinstance(pool, Pool):
        yield f"its {type(pool).__name__} has no line, names no holders and clears nothing that is left in a session"
    elif seconds > _PATIENCE:
        yield f"callers wait {seconds:g} s for a connection, longer than their clients: pool_timeout=3"
    if isinstance(pool, QueuePool) and recycle < 0:
        yield "connections live for ever, also those to an address that moved: pool_recycle=1800"
    if dialect.verdigris.trusts_anybody and not all(map(tls.is_local, tls.hosts_of(engine.url))):
        yield "nobody verifies the server's certificate: connect_args={'ssl': 'verify-full'}"


def _finish(engine: AsyncEngine, settings: EngineSettings) -> None:
    pool = engine.sync_engine.pool
    if isinstance(pool, Pool):
        pool.extras.queue.limit, pool.extras.clears = settings.max_waiting, settings.reset
    events.listen(engine.sync_engine, pool._recycle)  # noqa: SLF001 - the setting has no public name
