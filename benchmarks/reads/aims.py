"""What was aimed at, beside what was reached: written down where it was missed, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from reads.results import RECIPE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reads.results import Results, Summary

_CONNECTIONS = (16, 64)


@dataclass(frozen=True, slots=True)
class Aim:
    """At least so many times a base's requests, or so many times less of the recipe's application CPU."""

    title: str
    scenario: str
    peer: str
    of: Literal["recipe", "hand", "cpu"]
    least: float


AIMS = (
    Aim("nested 100, JSON read: × recipe", "nested100", "verdigris_json_read", "recipe", 15),
    Aim("nested 100, JSON read: × asyncpg by hand", "nested100", "verdigris_json_read", "hand", 1.8),
    Aim("nested 100, JSON read: the recipe's CPU divided by", "nested100", "verdigris_json_read", "cpu", 30),
    Aim("nested 20, JSON read: × recipe", "nested20", "verdigris_json_read", "recipe", 10),
    Aim("nested 20, JSON read: × asyncpg by hand", "nested20", "verdigris_json_read", "hand", 1.4),
    Aim("page of 20, JSON read: × recipe", "page20", "verdigris_json_read", "recipe", 5),
    Aim("page of 20, JSON read: × asyncpg by hand", "page20", "verdigris_json_read", "hand", 1.4),
    Aim("one row, JSON read: × recipe", "row", "verdigris_json_read", "recipe", 4.5),
    Aim("one row, JSON read: × asyncpg by hand", "row", "verdigris_json_read", "hand", 1.05),
    Aim("one row, ReadRouter(together=False): × recipe", "row", "verdigris_route_alone", "recipe", 9),
    Aim("one row, ReadRouter, reads together: × recipe", "row", "verdigris_route", "recipe", 13),
    Aim("nested 100, objects by db.fetch(): × recipe", "nested100", "verdigris_fetch", "recipe", 4),
    Aim("nested 100, request_session with load(): × recipe", "nested100", "verdigris_request", "recipe", 1),
    Aim("nested 100, db.read() with load(): × recipe", "nested100", "verdigris_read", "recipe", 1),
    Aim("nested 20, request_session with load(): × recipe", "nested20", "verdigris_request", "recipe", 1),
    Aim("nested 20, db.read() with load(): × recipe", "nested20", "verdigris_read", "recipe", 1),
)


def table(results: Results) -> Iterator[str]:
    """Yield a Markdown table of aims, a line at a time."""
    yield "| aim | at least | 16 at a time | 64 at a time |"
    yield "| --- | --: | --: | --: |"
    for aim in AIMS:
        cells = [_cell(aim, results, connections) for connections in _CONNECTIONS]
        yield f"| {aim.title} | {aim.least:g} | {' | '.join(cells)} |"


def _cell(aim: Aim, results: Results, connections: int) -> str:
    found = {each.peer: each for each in results.of(aim.scenario, connections)}
    if aim.peer not in found or RECIPE not in found:
        return ""
    reached = _reached(aim, found)
    return f"{reached:.2f} {'✓' if reached >= aim.least else '✗'}"


def _reached(aim: Aim, found: dict[str, Summary]) -> float:
    mine = found[aim.peer]
    if aim.of == "cpu":
        return found[RECIPE].app_us / mine.app_us
    return mine.to_recipe if aim.of == "recipe" else mine.to_hand
