"""The run: rounds in which every peer is measured in turn, so that a slow phase of the machine is shared by all."""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from reads import cpu, load
from reads.equality import served
from reads.peer import running
from reads.proxy import counting

if TYPE_CHECKING:
    from collections.abc import Iterator

    from reads.peer import Peer
    from reads.scenarios import Scenario
    from verdigris.embedded import Server

_WARMING = 40
_COUNTED = 20


@dataclass(frozen=True, slots=True)
class Figure:
    """What one peer did in one round of one scenario; latencies in milliseconds, CPU in microseconds a request."""

    run: str
    round: int
    scenario: str
    connections: int
    peer: str
    rate: float
    p50: float
    p99: float
    app_us: float
    pg_us: float


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is measured: rounds, or as many as end within a time; pieces of load of some seconds."""

    connections: tuple[int, ...]
    seconds: int
    rounds: int
    budget: float | None = None
    #: Seconds of load before the first round: pools filled, statements prepared.
    warming: int = 1


class FailedRequestsError(Exception):
    """Answers were missing or not 200 under load: such a figure counts for nothing."""


def figures(
    server: Server, names: list[str], scenarios: list[Scenario], extent: Extent, *, only: str | None = None
) -> Iterator[Figure]:
    """Yield a figure for each peer, scenario and number of connections, round by round.

    The answers of all scenarios are compared first; measured are those of `only`, if one is named.
    """
    run = time.strftime("%Y-%m-%dT%H:%M:%S")
    with running(names, server.url) as peers, tempfile.TemporaryDirectory() as folder:
        pieces = []
        for scenario in scenarios:
            file = Path(folder, scenario.name)
            file.write_text("\n".join(scenario.paths()))
            taking_part = served(peers, scenario)
            if only not in {None, scenario.name}:
                continue
            pieces += [(scenario, connections, file, taking_part) for connections in extent.connections]
            for peer in taking_part if extent.warming else ():
                _drive(peer, server, max(extent.connections), extent.warming, file)
        began, longest = time.monotonic(), 0.0
        for number in range(extent.rounds):
            round_began = time.monotonic()
            if extent.budget is not None and round_began + longest > began + extent.budget:
                return
            for scenario, connections, file, taking_part in pieces:
                first = number % len(taking_part)
                for peer in taking_part[first:] + taking_part[:first]:
                    found = _drive(peer, server, connections, extent.seconds, file)
                    yield Figure(run, number, scenario.name, connections, peer.name, *found)
            longest = max(longest, time.monotonic() - round_began)


def _drive(
    peer: Peer, server: Server, connections: int, seconds: int, paths: Path
) -> tuple[float, float, float, float, float]:
    with peer.awake():
        app, pg = peer.cpu_seconds(), cpu.of_children(server.process_id)
        outcome = load.drive(peer.port, connections, seconds, paths)
        peer.wait_until_idle()
        app_used = peer.cpu_seconds() - app
        pg_used = cpu.used(pg, cpu.of_children(server.process_id))
    if outcome.errors or not outcome.requests:
        raise FailedRequestsError(f"{peer.name}: {outcome.errors} of {outcome.requests} requests failed ({paths.name})")
    each = 1e6 / outcome.served
    return (outcome.requests / outcome.seconds, outcome.p50, outcome.p99, app_used * each, pg_used * each)


def trips(server: Server, name: str, scenarios: list[Scenario]) -> Iterator[tuple[str, float]]:
    """Yield each scenario with a peer's round trips to PostgreSQL a request, once pool and statements are warm."""
    with counting(server.host, server.port) as proxy:
        url = server.url.replace(f":{server.port}/", f":{proxy.port}/")
        with running([name], url) as (peer,):
            for scenario in scenarios:
                for each in served([peer], scenario):
                    with each.awake():
                        paths = itertools.cycle(scenario.paths())
                        for path in itertools.islice(paths, _WARMING):
                            each.get(path)
                        counts = [proxy.trips]
                        for path in itertools.islice(paths, _COUNTED):
                            each.get(path)
                            counts.append(proxy.trips)
                        yield scenario.name, statistics.median(two - one for one, two in itertools.pairwise(counts))
