"""The command line of the benchmark; see README.md beside this file."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path

import uvloop

from reads import aims, alternatives, dataset, load, results
from reads.measure import Extent, figures, trips
from reads.peer import titles
from reads.scenarios import SCENARIOS, Scenario
from reads.settings import POOL_VARIABLE, USUAL_POOL
from verdigris import embedded

_PAGE = Path(__file__).with_name("README.md")
_BEGIN, _END = "<!-- figures -->\n", "<!-- end of figures -->"
_PACKAGES = ("SQLAlchemy", "asyncpg", "FastAPI", "pydantic", "orjson", "uvicorn", "uvloop", "httptools", "sqlmodel",
             "advanced-alchemy", "tortoise-orm", "piccolo")  # fmt: skip
#: BEGIN, the statements, COMMIT: what the counting proxy must see.
_TRIPS_OF_RECIPE = {"row": 3, "page20": 3, "nested20": 4, "nested100": 4}
_POSTGRES = {"max_connections": 600, "autovacuum": False}


def main() -> int:
    arguments = _parser().parse_args()
    names = [name for name in titles() if not arguments.peers or name in arguments.peers]
    scenarios = [SCENARIOS[name] for name in arguments.scenarios]
    if arguments.table or arguments.write:
        return _show(write=arguments.write)
    with embedded.server(durable=False, settings=_POSTGRES) as server:
        asyncio.run(dataset.fill(server.url.replace("+asyncpg", "")))
        if arguments.smoke:
            return _smoke(server, names)
        if arguments.alternatives:
            uvloop.run(alternatives.show(server.url, arguments.rounds))
            return 0
        usual = arguments.pool == USUAL_POOL
        if usual:
            results.keep_setting(_setting(server))
        if arguments.trips:
            return _count_trips(server, names, scenarios)
        os.environ[POOL_VARIABLE] = str(arguments.pool)
        extent = Extent(tuple(arguments.connections), arguments.seconds, arguments.rounds, arguments.budget)
        found = []
        for figure in figures(server, names, scenarios, extent):
            found.append(figure)
            if usual:
                results.keep(figure)
            _tell(figure.scenario, figure.connections, figure.peer, f"{figure.rate:,.0f}/s")
    if usual:
        return _show(write=False)
    print("\n".join(_tables(results.Results(found))))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="benchmarks/reads/run", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="check equality, count round trips, one second of load")
    parser.add_argument("--trips", action="store_true", help="count round trips alone")
    parser.add_argument("--alternatives", action="store_true", help="who writes the answer best, in process")
    parser.add_argument("--table", action="store_true", help="print the tables of what is kept")
    parser.add_argument("--write", action="store_true", help="write them into README.md")
    parser.add_argument("--scenarios", type=_names(SCENARIOS), default=list(SCENARIOS), metavar="A,B")
    parser.add_argument("--peers", type=_names(titles()), default=[], metavar="A,B")
    parser.add_argument("--connections", type=lambda text: list(map(int, text.split(","))), default=[1, 16, 64])
    parser.add_argument("--seconds", type=int, default=2, help="of load, a peer and round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pool", type=int, default=USUAL_POOL, help="connections of a peer; others are not kept")
    parser.add_argument("--budget", type=float, help="begin no round that would not end within these seconds")
    return parser


def _names(known: dict[str, object] | dict[str, str] | dict[str, Scenario]) -> object:
    def names(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]} is none of {', '.join(known)}")
        return chosen

    return names


def _smoke(server: embedded.Server, names: list[str]) -> int:
    """Run every part once; equality and errors are checked, times are not."""
    scenarios = list(SCENARIOS.values())
    extent = Extent(connections=(4,), seconds=1, rounds=1, warming=0)
    measured = list(figures(server, names, scenarios, extent, only="nested20"))
    for figure in measured:
        _tell(figure.scenario, figure.connections, figure.peer, f"{figure.rate:,.0f}/s")
    asyncio.run(alternatives.measured(server.url, limit=20, rounds=1))
    counted = dict(trips(server, results.RECIPE, scenarios))
    print(f"{len(measured)} peers answer the same; round trips of {results.RECIPE}: {counted}")
    return 0 if {figure.peer for figure in measured} == set(names) and counted == _TRIPS_OF_RECIPE else 1


def _count_trips(server: embedded.Server, names: list[str], scenarios: list[Scenario]) -> int:
    for name in names:
        found = dict(trips(server, name, scenarios))
        results.keep_trips(name, found)
        print(name, found)
    return 0


def _setting(server: embedded.Server) -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "Python": platform.python_version(),
        "PostgreSQL": server.version,
        "load": load.generator(),
        **{name: version(name) for name in _PACKAGES},
    }


def _show(*, write: bool) -> int:
    found = results.Results()
    said = ", ".join(f"{name} {value}" for name, value in found.setting.items() if name != "date")
    measured = f"Measured on {found.setting.get('date')} with {said}."
    text = "\n".join([measured, "", *aims.table(found), "", *_tables(found)])
    if not write:
        print(text)
        return 0
    page = _PAGE.read_text()
    before, after = page.split(_BEGIN)[0], page.split(_END)[1]
    _PAGE.write_text(f"{before}{_BEGIN}\n{text}\n{_END}{after}")
    return 0


def _tables(found: results.Results) -> list[str]:
    lines: list[str] = []
    for scenario in SCENARIOS.values():
        for connections in sorted({each.connections for each in found.figures}):
            rows = list(results.table(found, scenario.name, connections, titles()))
            if rows:
                lines += [f"### {scenario.title}, {connections} at a time", "", *rows, ""]
    return lines


def _tell(*words: object) -> None:
    print(*words, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
