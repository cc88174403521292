"""What every peer's engine is told: the checklist's options, and the driver's own limits, so that waits end."""

from __future__ import annotations

from typing import Any

POOL, OVERFLOW = 3, 2
LIMIT = 2.0  # seconds: of the pool, of connecting and of a statement in the driver
ENGINE: dict[str, Any] = {
    "pool_size": POOL,
    "max_overflow": OVERFLOW,
    "pool_timeout": LIMIT,
    "pool_pre_ping": True,
    "pool_recycle": 1800,
    "connect_args": {"timeout": LIMIT, "command_timeout": LIMIT},
}
