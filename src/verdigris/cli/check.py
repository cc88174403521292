"""`verdigris check` and `verdigris baseline`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from verdigris.checker import baseline as baselines
from verdigris.checker import check as checking
from verdigris.checker.config import find
from verdigris.checker.naming import nearest
from verdigris.checker.usage import UsageError
from verdigris.cli.options import Parser, choice
from verdigris.cli.plan import add_options, baseline_of, plan
from verdigris.report import FORMATS, renderer
from verdigris.report.style import Style, clean, style_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verdigris.report.report import Report


def check(given: list[str]) -> int:
    """Say of every box whether it holds, and show why."""
    parser = Parser("check", "Say of every box whether it holds, and show why.")
    add_options(parser)
    add = parser.add_argument
    add("--output-format", metavar="FORMAT", type=choice(*FORMATS), default="terminal", help=", ".join(FORMATS))
    add("--write", metavar="FORMAT=PATH", action="append", default=[], help="write the report there too; repeatable")
    add("--strict", action="store_true", help="doubts and advice make exit code 1 too")
    add("--color", metavar="WHEN", type=choice("auto", "always", "never"), default="auto", help="auto, always, never")
    add("-q", "--quiet", action="store_true", help="print the names of failing boxes, nothing else")
    options = parser.read(given)
    writes = [_destination(text) for text in options.write]
    with progress(sys.stderr) as tell:
        report = checking.check(plan(options), tell)
    for form, path in writes:
        _write(report, form, path)
    form = "quiet" if options.quiet else options.output_format
    sys.stdout.write(renderer(form)(report, style_for(sys.stdout, options.color)))
    sys.stdout.flush()
    for box in report.crashed:
        sys.stderr.write(f"verdigris: {box.name} broke: {box.crash}\n  This is a bug of verdigris: report it.\n")
    return report.exit_code(strict=options.strict)


@contextmanager
def progress(stream: TextIO) -> Iterator[Callable[[str], None]]:
    """Tell a person who is looking what takes the time, in one line that is wiped afterwards."""
    looked_at = stream.isatty()
    try:
        yield lambda text: _tell(stream, text) if looked_at else None
    finally:
        if looked_at:
            _tell(stream, "")


def _tell(stream: TextIO, text: str) -> None:
    stream.write(f"\r\x1b[K{clean(text)}")
    stream.flush()


def _destination(text: str) -> tuple[str, Path]:
    form, _, path = text.partition("=")
    if not path:
        example = "--write html=report.html"
        raise UsageError(f"`--write {text}` names no file.", why="It takes a format and a path.", do=(example,))
    if form not in FORMATS:
        near = nearest(form, FORMATS, "There is")
        raise UsageError(f"`--write {text}` names no format.", why="The format comes before the `=`.", do=(near,))
    return form, Path(path)


def _write(report: Report, form: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(renderer(form)(report, Style()), "utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"The report could not be written to {path}.", why=f"{error.strerror or error}.") from error


def baseline(given: list[str]) -> int:
    """Write the findings of today into a file, or take out of it what is gone."""
    usage = "verdigris baseline write|prune [PATH] [--baseline FILE] [OPTION ...]"
    parser = Parser("baseline", "Write the findings of today into a file, or take out of it what is gone.", usage)
    parser.add_argument("action", metavar="write|prune", type=choice("write", "prune"))
    add_options(parser)
    options = parser.read(given)
    config = find(Path(options.path).resolve())
    path = baseline_of(options, config) or config.folder / baselines.NAME
    old = baselines.read(path) if options.action == "prune" or path.exists() else ()
    with progress(sys.stderr) as tell:
        report = checking.check(replace(plan(options), baseline=None), tell)
    gone = baselines.gone(report, old)
    kept = [entry for entry in old if entry not in gone]
    if options.action == "prune":
        baselines.write(path, kept)
        sys.stdout.write(f"{path}: {len(gone)} gone, {len(kept)} left\n")
        return 0
    found = {entry.identity: entry for entry in (*kept, *baselines.of(report))}
    new = len(found.keys() - {entry.identity for entry in old})
    baselines.write(path, found.values())
    sys.stdout.write(f"{path}: {len(found)} known, {new} of them new, {len(gone)} gone\n")
    return 0
