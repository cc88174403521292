"""The command line of the comparison; see README.md beside this file."""

from __future__ import annotations

import argparse
import ast
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from faults.columns import whole_column
from faults.rows import ROWS, Cell

HERE = Path(__file__).parent
PAGE = HERE / "README.md"
BEGIN, END = "<!-- table -->\n", "<!-- end of table -->"
ORDER = (
    "recipe",
    "recipe_function",
    "advanced_alchemy",
    "toolsets",
    "fastsqla",
    "context",
    "verdigris_plain",
    "verdigris_route",
)
PACKAGES = (
    "SQLAlchemy",
    "asyncpg",
    "FastAPI",
    "uvicorn",
    "advanced-alchemy",
    "fastapi-toolsets",
    "fastsqla",
    "context-async-sqlalchemy",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks/faults/run", description=__doc__)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=list(ORDER), metavar="A,B")
    parser.add_argument("--faults", type=lambda text: text.split(","), default=list(ROWS), metavar="A,B")
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    parser.add_argument(
        "--kept", type=Path, metavar="FILE", help="a run in parts: do what is not in it, and keep it there"
    )
    arguments = parser.parse_args()
    kept = _kept(arguments.kept)
    missing = [peer for peer in arguments.peers if not set(arguments.faults) <= kept.get(peer, {}).keys()]
    # apart from each other: a server, a proxy and a process each; three at once, as most of the time is waiting
    with ProcessPoolExecutor(3, multiprocessing.get_context("spawn")) as pool:
        columns = pool.map(whole_column, missing, [arguments.faults] * len(missing))
        for peer, cells in zip(missing, columns, strict=True):
            kept[peer] = kept.get(peer, {}) | cells
    if arguments.kept is not None:
        cells = {peer: {name: asdict(cell) for name, cell in column.items()} for peer, column in kept.items()}
        arguments.kept.write_text(json.dumps({"of": _made_of(), "cells": cells}, indent=1))
    text = rendered({peer: kept[peer] for peer in arguments.peers}, arguments.faults)
    print(text)
    if arguments.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}{text}\n{END}{rest.partition(END)[2]}")
    return 0


def rendered(table: dict[str, dict[str, Cell]], faults: list[str]) -> str:
    titles = [(ast.get_docstring(ast.parse((HERE / "peers" / f"{peer}.py").read_text())) or peer) for peer in table]
    lines = [f"| Fault | {' | '.join(titles)} |", "|---|" + "---|" * len(table)]
    lines += [f"| {ROWS[name][0]} | {' | '.join(str(cells[name]) for cells in table.values())} |" for name in faults]
    good = [f"**{sum(cells[name].good for name in faults)}**" for cells in table.values()]
    lines.append(f"| **As docs/faults.md asks, of {len(faults)}** | {' | '.join(good)} |")
    return "\n".join([*lines, "", f"{_made_of()}."])


def _made_of() -> str:
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"Python {sys.version.split()[0]}, {versions}"


def _kept(path: Path | None) -> dict[str, dict[str, Cell]]:
    """Return the cells that earlier parts of a run have made, at the same versions."""
    if path is None or not path.exists():
        return {}
    kept = json.loads(path.read_text())
    if kept["of"] != _made_of():
        raise SystemExit(f"{path} is of other versions: {kept['of']}")
    return {peer: {name: Cell(**cell) for name, cell in column.items()} for peer, column in kept["cells"].items()}


if __name__ == "__main__":
    sys.exit(main())
