"""What a machine did on its way, as far as later calls depend on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdigris.evidence.source.reading.modules import Scope

DEPTH = 14  # calls inside calls


@dataclass(slots=True)
class Trail:
    """Tells whether a call can be summed up, and where its summary holds."""

    beyond: int = 0  # times that it looked beyond what arguments lead to, was cut short, or did what is done but once
    once: int = 0  # steps taken for what the machine remembers
    deepest: int = 0  # calls inside calls
    entered: list[Scope] = field(default_factory=list)

    def enter(self, scope: Scope, depth: int) -> None:
        """Note a call."""
        self.entered.append(scope)
        self.deepest = max(self.deepest, depth)
