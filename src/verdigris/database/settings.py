"""What a `Database` can be told, with the defaults of all of it: the one place where they are written."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from verdigris.concurrency import Retry
from verdigris.database.levels import known_level
from verdigris.database.sessions import checked
from verdigris.errors import ConfigurationError
from verdigris.performance.queries import SLOW
from verdigris.session import AsyncSession

if TYPE_CHECKING:
    from collections.abc import Mapping

_WAITS = (
    "max_lag",
    "pool_timeout",
    "commit_timeout",
    "close_timeout",
    "drain_timeout",
    "dispose_timeout",
    "resolve_timeout",
    "slow_query",
)
_OF_THE_SERVER = ("statement_timeout", "transaction_timeout", "idle_in_transaction_timeout")  # None: its own
_OF_THE_DRIVER = ("connect_timeout", "command_timeout")  # None: no limit; 0, which asyncpg refuses, would be no time


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a `Database` was told; times are seconds. Raises ConfigurationError for a value that none can have."""

    max_lag: float = 1.0
    workers: int | None = None
    pool_size: int | None = None
    max_overflow: int | None = None
    pool_timeout: float = 3.0
    pool_recycle: int = 1800
    pool_pre_ping: bool = True
    max_waiting: int | None = None
    reset: bool = True
    pgbouncer: bool | None = None
    connect_timeout: float | None = 5.0
    command_timeout: float | None = 60.0
    statement_timeout: float | None = 30.0
    transaction_timeout: float | None = 300.0
    idle_in_transaction_timeout: float | None = 60.0
    commit_timeout: float = 10.0
    close_timeout: float = 2.0
    drain_timeout: float = 10.0
    dispose_timeout: float = 5.0
    resolve_timeout: float = 5.0
    isolation_level: str | None = None
    hide_parameters: bool = True
    expire_on_commit: bool = False
    autoflush: bool = True
    close_resets_only: bool = False
    guard_tasks: bool = True
    guard_commit: bool = True
    retry: Retry | bool = True
    slow_query: float = SLOW
    explain_slow: bool | Literal["analyze"] = True
    time_queries: bool = True
    pool_metrics: bool = True
    shortcuts: bool = True
    session_class: type[AsyncSession] = AsyncSession
    options: Mapping[str, Any] = field(default_factory=dict)  # of create_async_engine()

    def __post_init__(self) -> None:
        known_level(self.isolation_level)
        checked(self.session_class)
        for name in (*_WAITS, *_OF_THE_SERVER, *_OF_THE_DRIVER):
            value = getattr(self, name)
            if value is None and name not in _WAITS:
                continue
            if not isinstance(value, int | float) or value < 0 or (value == 0 and name in _OF_THE_DRIVER):
                raise _no_seconds(name, value)
        workers: Any = self.workers
        if workers is not None and (not isinstance(workers, int) or workers < 1):
            raise ConfigurationError(
                f"workers={workers!r} is not a number of workers.",
                why="The pool of each is its share of what the server gives.",
                do=["Write how many processes serve the application, or leave it out: WEB_CONCURRENCY is read then."],
                page="engine/pool-size",
            )
        if not isinstance(self.retry, bool | Retry):
            raise ConfigurationError(
                f"retry={self.retry!r} is neither True nor False nor a Retry.",
                do=[
                    "Write how often units run:   Database(retry=Retry(attempts=5))   (from verdigris import Retry)",
                    "or say it for one of them:   db.transaction(work, attempts=5)",
                ],
                page="errors/retry-transient",
            )
        if self.explain_slow not in (True, False, "analyze"):
            raise ConfigurationError(
                f"explain_slow={self.explain_slow!r} is none of True, False and 'analyze'.",
                do=['Write explain_slow=True for EXPLAIN, explain_slow="analyze" for EXPLAIN ANALYZE.'],
                page="performance/explained",
            )


#: What a `Database` does that was told nothing.
USUAL: Final = Settings()


def _no_seconds(name: str, value: object) -> ConfigurationError:
    usual: float = getattr(USUAL, name)
    ways = [f"Write a number:   {name}={usual:g}"]
    if name in _OF_THE_SERVER:
        ways.append(f"or leave it to the server:   {name}=None")
    if name in _OF_THE_DRIVER:
        ways.append(f"or have no limit:   {name}=None")
    return ConfigurationError(f"{name}={value!r} is no time in seconds.", do=ways, page="errors/connection-errors")
