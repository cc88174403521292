"""How long a cold check takes, beside ruff's F rules on the same tree: whole processes, interleaved.

    python benchmarks/bench_check.py [TREE] [ROUNDS]

TREE is this project's own sources unless another is named. ruff reads one file at a time and is written in Rust: it is
the floor for anything that parses Python, not a rival that answers the same questions.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENDINGS = {0, 1}  # nothing found, something found


def run(command: list[str]) -> float:
    """Return the seconds that a command takes."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
    if done.returncode not in ENDINGS:
        raise SystemExit(f"{command[0]} ended with {done.returncode}: {done.stderr.decode()[-300:]}")
    return time.perf_counter() - began


def main() -> None:
    tree = sys.argv[1] if len(sys.argv) > 1 else "src"
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    check = [sys.executable, "-m", "verdigris", "check", tree, "--output-format", "json"]
    commands = {
        "verdigris, cold": [*check, "--no-cache"],
        "verdigris, unchanged tree": check,
    }
    ruff = shutil.which("ruff", path=str(Path(sys.executable).parent)) or shutil.which("ruff")
    if ruff is not None:
        commands["ruff --select F, cold"] = [ruff, "check", "--select", "F", "--no-cache", "--isolated", tree]
    run(check)  # fills the cache
    found: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            found[name].append(run(command))
    lines = sum(len(path.read_bytes().splitlines()) for path in Path(ROOT, tree).rglob("*.py"))
    print(f"{tree}: {lines:,} lines of Python, {rounds} rounds")
    for name, times in found.items():
        print(f"{name:28} {statistics.median(times):7.3f} s median   {min(times):7.3f} s least")


if __name__ == "__main__":
    main()
