"""Sequences of session operations, made from a seed: what happens depends on the seed alone, not on what is found."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

NAMES = ("ash", "elm", "fir", "oak")  # few, so that they collide: the column is unique
IDS = range(1, 7)


@dataclass(frozen=True)
class Step:
    """One operation; `within` are the operations inside of a block."""

    name: str
    arguments: tuple[Any, ...] = ()
    within: tuple[Step, ...] = ()

    def __str__(self) -> str:
        inside = f" {{{'; '.join(map(str, self.within))}}}" if self.within else ""
        return f"{self.name}({', '.join(map(repr, self.arguments))}){inside}"


#: Each operation and how often it is drawn.
WEIGHTS = {
    "add_tree": 6,
    "add_leaf": 4,
    "set_name": 5,
    "move_leaf": 2,
    "get": 6,
    "get_anew": 1,
    "get_locked": 1,
    "get_one": 2,
    "trees": 6,
    "trees_with_leaves": 4,
    "leaves_joined": 3,
    "by_name": 3,
    "pairs": 2,
    "count": 3,
    "locked": 1,
    "stream": 2,
    "run_sync": 2,
    "lazy_inside": 2,
    "flush": 3,
    "commit": 6,
    "rollback": 3,
    "begin": 1,
    "begin_nested": 2,
    "end_nested": 3,
    "refresh": 2,
    "expire": 2,
    "expire_all": 1,
    "expunge": 1,
    "expunge_all": 1,
    "delete": 3,
    "merge": 3,
    "update": 2,
    "update_by_criteria": 1,
    "insert": 2,
    "remove": 1,
    "divide": 1,
    "misspelt": 1,
    "connection": 1,
    "from_outside": 2,
    "close": 1,
    "reset": 1,
    "invalidate": 1,
    "afterwards": 2,
    "block": 3,
    "nested_block": 3,
}
BLOCKS = ("block", "nested_block")


def sequence(random: Random, length: int) -> list[Step]:
    """Return a sequence of so many operations."""
    return [_step(random, depth=0) for _ in range(length)]


def _step(random: Random, depth: int) -> Step:
    names = [name for name in WEIGHTS if depth < 2 or name not in BLOCKS]
    (name,) = random.choices(names, [WEIGHTS[name] for name in names])
    if name in BLOCKS:
        within = tuple(_step(random, depth + 1) for _ in range(random.randint(0, 4)))
        return Step(name, (random.random() < 0.3,), within)
    return Step(name, (random.choice(IDS), random.choice(NAMES), random.randrange(1000)))
