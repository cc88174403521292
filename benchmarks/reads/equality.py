"""Whether all peers answer the same: no figure counts for a peer whose answers differ."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from reads.peer import Peer
    from reads.scenarios import Scenario

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)")
_SAMPLES = 7


class UnequalError(Exception):
    """A peer answers otherwise than the first one."""


def served(peers: list[Peer], scenario: Scenario) -> list[Peer]:
    """Return the peers that take part in a scenario, all of which answer the same; raises UnequalError."""
    taking_part = []
    reference: dict[str, Any] = {}
    for peer in peers:
        with peer.awake():
            paths = [scenario.path(0 if scenario.name != "row" else 1)] if peer.is_floor else _samples(scenario)
            answers = {path: peer.get(path) for path in paths}
        if all(answer.status == 404 for answer in answers.values()):
            continue
        for path, answer in answers.items():
            if answer.status != 200:
                raise UnequalError(f"{peer.name} answers {path} with {answer.status}: {answer.body[:300]!r}")
            value = plain(json.loads(answer.body))
            expected = reference.setdefault(path, value)
            if value != expected:
                raise UnequalError(f"{peer.name} answers {path} otherwise: {_first_difference(expected, value)}")
        taking_part.append(peer)
    return taking_part


def _samples(scenario: Scenario) -> list[str]:
    return [scenario.path(0 if scenario.name != "row" else 1), *scenario.paths()[:_SAMPLES]]


def plain(value: Any) -> Any:
    """Return the value with times as times: `Z` and `+00:00` say the same, and so do `.5` and `.500000`."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, str) and _TIME.fullmatch(value):
        return datetime.fromisoformat(value)
    return value


def _first_difference(expected: Any, value: Any) -> str:
    if isinstance(expected, dict) and isinstance(value, dict) and expected.keys() == value.keys():
        expected, value = [expected[key] for key in value], list(value.values())
    if isinstance(expected, list) and isinstance(value, list) and len(expected) == len(value):
        pairs: Iterable[tuple[Any, Any]] = zip(expected, value, strict=True)
        return next(_first_difference(one, other) for one, other in pairs if one != other)
    return f"{expected!r} was expected, {value!r} came"
