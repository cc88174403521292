"""What was measured, kept as one line of JSON a figure, so that a run can be made in slices; and the tables of it."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

from reads.measure import Figure
from reads.peer import FLOOR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

STORE = Path(__file__).parent / ".results"
RECIPE = "sqlalchemy_recipe"
BY_HAND = "asyncpg_orjson"
_SETTING, _TRIPS, _FIGURES = STORE / "setting.json", STORE / "trips.json", STORE / "figures.jsonl"


def keep_setting(setting: dict[str, str]) -> None:
    STORE.mkdir(exist_ok=True)
    _SETTING.write_text(json.dumps(setting))


def keep_trips(peer: str, found: dict[str, float]) -> None:
    STORE.mkdir(exist_ok=True)
    known = json.loads(_TRIPS.read_text()) if _TRIPS.exists() else {}
    _TRIPS.write_text(json.dumps({**known, peer: found}))


def keep(figure: Figure) -> None:
    STORE.mkdir(exist_ok=True)
    with _FIGURES.open("a") as file:
        file.write(json.dumps(asdict(figure)) + "\n")


def _kept() -> list[Figure]:
    lines = _FIGURES.read_text().splitlines() if _FIGURES.exists() else []
    return [Figure(**json.loads(line)) for line in lines]


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians over the rounds; the ratios are medians of each round's ratio."""

    peer: str
    rounds: int
    rate: float
    p50: float
    p99: float
    app_us: float
    pg_us: float
    to_recipe: float
    to_hand: float


class Results:
    """All that is kept, merged over the slices; or some figures by themselves."""

    def __init__(self, figures: list[Figure] | None = None) -> None:
        self.figures = _kept() if figures is None else figures
        self.trips: dict[str, dict[str, float]] = json.loads(_TRIPS.read_text()) if _TRIPS.exists() else {}
        self.setting: dict[str, str] = json.loads(_SETTING.read_text()) if _SETTING.exists() else {}

    def of(self, scenario: str, connections: int) -> list[Summary]:
        """Return one summary a peer, the fastest first."""
        chosen = [each for each in self.figures if (each.scenario, each.connections) == (scenario, connections)]
        peers = dict.fromkeys(each.peer for each in chosen)
        found = [self._summary(peer, chosen) for peer in peers]
        return sorted(found, key=lambda each: -each.to_recipe)

    def _summary(self, peer: str, chosen: list[Figure]) -> Summary:
        mine = {(each.run, each.round): each for each in chosen if each.peer == peer}

        def median(value: Callable[[Figure], float]) -> float:
            return statistics.median(map(value, mine.values()))

        def ratio(base: str) -> float:
            others = {(each.run, each.round): each for each in chosen if each.peer == base}
            shared = [mine[key].rate / others[key].rate for key in mine if key in others]
            return statistics.median(shared) if shared else float("nan")

        return Summary(
            peer,
            len(mine),
            median(lambda each: each.rate),
            median(lambda each: each.p50),
            median(lambda each: each.p99),
            median(lambda each: each.app_us),
            median(lambda each: each.pg_us),
            ratio(RECIPE),
            ratio(BY_HAND),
        )


def table(results: Results, scenario: str, connections: int, titles: dict[str, str]) -> Iterator[str]:
    """Yield one Markdown table, a line at a time; nothing where nothing was measured."""
    found = results.of(scenario, connections)
    if not found:
        return
    yield "| | × recipe | × by hand | req/s | p50 ms | p99 ms | app CPU µs | PostgreSQL CPU µs | round trips |"
    yield "| --- | --: | --: | --: | --: | --: | --: | --: | --: |"
    for each in found:
        trips = results.trips.get(each.peer, {}).get(scenario)
        cells = [
            _name(each.peer, titles),
            "" if isnan(each.to_recipe) else f"{each.to_recipe:.2f}",
            "" if isnan(each.to_hand) else f"{each.to_hand:.2f}",
            f"{each.rate:,.0f}",
            f"{each.p50:.1f}",
            f"{each.p99:.1f}",
            f"{each.app_us:,.0f}",
            "" if each.peer.startswith(FLOOR) else f"{each.pg_us:,.0f}",
            "" if trips is None or each.peer.startswith(FLOOR) else f"{trips:g}",
        ]
        yield f"| {' | '.join(cells)} |"
    yield f"\n{min(each.rounds for each in found)} rounds."


def _name(peer: str, titles: dict[str, str]) -> str:
    title = titles.get(peer, peer)
    mark = "**" if peer.startswith("verdigris") else "*" if peer.startswith(FLOOR) else ""
    return f"{mark}{title}{mark}"
