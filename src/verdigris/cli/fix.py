"""`verdigris fix`: write what of the findings a tool can write."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris.checker import check as checking
from verdigris.cli.check import progress
from verdigris.cli.options import Parser
from verdigris.cli.plan import add_options, plan
from verdigris.fix.files import changes, snapshot, write
from verdigris.report.style import clean
from verdigris.report.words import address, shown_path

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verdigris.evidence.judgement import Edit
    from verdigris.fix.files import Changed

UNREAD = 5  # files that are named as not read


def fix(given: list[str]) -> int:
    """Write the edits of the findings that count, or show them; 0 done, 1 `--diff` has some, 2 a file was left."""
    parser = Parser("fix", "Write what of the findings a tool can write, and nothing else of a file.")
    add_options(parser)
    parser.add_argument("--diff", action="store_true", help="show what would be written, and write nothing")
    parser.add_argument(
        "--unsafe", action="store_true", help="also what code may have relied on: expiry, loading on touch"
    )
    options = parser.read(given)
    settled = plan(options)
    root = Path(options.path)
    looks = snapshot(root, settled.exclude)
    with progress(sys.stderr) as tell:
        report = checking.check(settled, tell)
    chosen = [edit for edit in report.edits if edit.safe or options.unsafe]
    done: list[Changed] = []
    left: list[tuple[str, str]] = []
    for change in changes(root, chosen, looks):
        why = change.left
        if why is None and not options.diff:
            why = write(root, change)
        path = shown_path(report, change.path)
        if why is not None:
            left.append((path, why))
            continue
        done.append(change)
        if options.diff:
            _show(change, address(report, change.path))
        else:
            sys.stdout.write(f"{path}: {_told(change.edits)}\n")
    sys.stdout.flush()
    for path, why in left:
        sys.stderr.write(f"verdigris: {path} is left alone: {clean(why)}\n")
    for file in report.unread[:UNREAD]:
        sys.stderr.write(f"verdigris: {shown_path(report, file.path)} is not read: {clean(file.reason)}\n")
    if len(report.unread) > UNREAD:
        sys.stderr.write(f"verdigris: {len(report.unread) - UNREAD} more are not read: verdigris check names them\n")
    sys.stderr.write(_summary(done, len(report.edits) - len(chosen), would=options.diff))
    if left:
        return 2
    return int(options.diff and bool(done))


def _show(change: Changed, path: str) -> None:
    """Show a diff: to a person in letters, to a program in the bytes that the file has."""
    binary = getattr(sys.stdout, "buffer", None)
    if binary is None or sys.stdout.isatty():
        sys.stdout.write(change.shown_diff(path))
        return
    sys.stdout.flush()
    binary.write(change.diff(path))
    binary.flush()


def _told(edits: Iterable[Edit]) -> str:
    counts = Counter(edit.told for edit in edits)
    return ", ".join(f"{what} × {count}" if count > 1 else what for what, count in sorted(counts.items()))


def _summary(done: list[Changed], kept: int, *, would: bool) -> str:
    count = sum(len(change.edits) for change in done)
    told = f"{count} edit{'s' * (count != 1)} in {len(done)} file{'s' * (len(done) != 1)}"
    told = f"{told} {'would be written' if would else 'written'}" if done else "nothing to write"
    more = f"; {kept} more with --unsafe" if kept else ""
    return f"verdigris: {told}{more}. What is left is for people: verdigris check\n"
