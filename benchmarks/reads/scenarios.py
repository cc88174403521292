"""What is asked: four kinds of reads, each over many different keys so that nobody gains by repeating an answer."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from reads.dataset import ORDERS

if TYPE_CHECKING:
    from collections.abc import Callable

_PATHS = 499


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of read."""

    name: str
    title: str
    path: Callable[[int], str]

    def paths(self) -> list[str]:
        """Return the paths that are asked for, in the same order for every peer."""
        chosen = random.Random(self.name)
        return [self.path(chosen.randint(1, ORDERS - 200)) for _ in range(_PATHS)]


SCENARIOS = {
    each.name: each
    for each in (
        Scenario("row", "One order by its key", "/orders/{}".format),
        Scenario("page20", "A page of 20 orders", "/orders?after={}&limit=20".format),
        Scenario("nested20", "A page of 20 orders with customer and lines", "/nested?after={}&limit=20".format),
        Scenario("nested100", "A page of 100 orders with customer and lines", "/nested?after={}&limit=100".format),
    )
}
