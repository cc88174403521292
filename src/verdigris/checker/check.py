"""One check from beginning to end: gather the evidence, judge the boxes, apply what the team has decided."""

from __future__ import annotations

import errno
import gc
import re
import time
import tokenize
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from verdigris import __version__
from verdigris.checker import baseline, cache
from verdigris.checker.cache import Judged
from verdigris.checker.masking import masked, masked_box
from verdigris.checker.suppressions import Suppression, scan
from verdigris.checker.usage import UsageError
from verdigris.checklist.pages import numbers
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Finding, Kind
from verdigris.evidence.tree import found as files_under
from verdigris.evidence.tree import matching_nothing
from verdigris.report.report import BoxReport, Report, judge, order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from verdigris.evidence.catalogue import Catalogue
    from verdigris.evidence.recording.artefact import Recording


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check and on which evidence; everything is settled, nothing is read from the environment any more.

    `shown` is the path as the user wrote it; `ignored` and `accepted` give each box its reason.
    """

    path: Path
    shown: str = "."
    recordings: tuple[Path, ...] = ()
    database_url: str | None = field(default=None, repr=False)
    workers: int | None = None
    selected: frozenset[str] | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    whole: bool = False  # the path is the configuration's own folder, of which all its patterns speak
    baseline: Path | None = None
    cache: bool = True

    @property
    def boxes(self) -> tuple[str, ...]:
        """The boxes to judge, in the checklist's order."""
        chosen = (name for name in numbers() if self.selected is None or name in self.selected)
        return tuple(name for name in chosen if name not in self.ignored)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The evidence to gather; the source is always part of it, for it names the subjects."""
        given = {Kind.RECORDING: bool(self.recordings), Kind.DATABASE: self.database_url is not None}
        return tuple(kind for kind in Kind if given.get(kind, True))


def check(plan: Plan, tell: Callable[[str], None] = lambda _: None) -> Report:
    """Gather, judge and report; raise EvidenceError (UsageError) when the evidence asked for cannot be had.

    `tell` hears what is being done, for whoever waits.
    """
    started = time.perf_counter()
    _look(plan)
    known = None if plan.baseline is None else baseline.read(plan.baseline)
    judged = _remembered(plan, tell)
    decided, notices = _suppressed(judged)
    notices[:0] = judged.notices
    report = Report(
        version=__version__,
        root=plan.shown,
        understood=judged.understood,
        kinds=plan.kinds,
        boxes=tuple(replace(box, accepted=plan.accepted.get(box.name)) for box in decided),
        unread=judged.unread,
        files=judged.files,
        recorded=judged.recorded,
        ignored=tuple((numbers()[name], name, reason) for name, reason in plan.ignored.items()),
    )
    stale = [] if known is None else baseline.gone(report, known)
    if stale:
        notices.append(
            f"{_many(stale)} of the baseline {'is' if len(stale) == 1 else 'are'} gone: verdigris baseline prune"
        )
    notices += _needless(report)
    needless = matching_nothing(plan.path, plan.exclude) if plan.whole else []
    notices += [f"`exclude`: {pattern} matches nothing here" for pattern in needless]
    settled = baseline.apply(report.boxes, known or ())
    lines = _lines(plan.path, settled)
    seconds = time.perf_counter() - started
    return replace(report, boxes=settled, notices=tuple(notices), lines=lines, seconds=seconds)


def _look(plan: Plan) -> None:
    """Refuse a path with nothing to check before anything dear is done."""
    if not _is_there(plan.path):
        raise UsageError(
            f"There is no {plan.shown}.",
            why="The path to check is a directory or a Python file.",
            do=("verdigris check .",),
        )
    if not any(path.suffix == ".py" for path in files_under(plan.path, plan.exclude)):
        raise UsageError(
            f"There is no Python file {'under ' if plan.path.is_dir() else 'in '}{plan.shown}.",
            why="Nothing was checked, and that is no success.",
            do=("Name the directory that holds the application:   verdigris check path/to/app",),
        )


def _is_there(path: Path) -> bool:
    """Say whether a path is there; raise for one too long for the file system, which Python 3.14's `exists()` hides."""
    try:
        path.stat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise
        return path.exists()
    except ValueError:  # a null byte
        return False
    return True


def _remembered(plan: Plan, tell: Callable[[str], None]) -> Judged:
    """Judge, or remember having judged the same input; what a database says is never remembered."""
    name = None
    if plan.cache and plan.database_url is None:
        name = cache.key(plan.path.resolve(), plan.exclude, plan.boxes, plan.workers, also=plan.recordings)
    judged = None if name is None else cache.load(name)
    if judged is None:
        with _collector_off():
            judged = _judge(plan, tell)
        if name is not None and not any(box.crash for box in judged.boxes):
            cache.store(name, judged)
    return judged


@contextmanager
def _collector_off() -> Iterator[None]:
    """Keep the collector from scanning millions of syntax nodes that all live to the end: a fifth of a large check."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _judge(plan: Plan, tell: Callable[[str], None]) -> Judged:
    from verdigris.checker.understood import understood
    from verdigris.evidence import Evidence
    from verdigris.evidence.source import Source

    recording, notices = _recording(plan.recordings)
    if plan.database_url is not None:
        tell("asking the database")
    database = None if plan.database_url is None else _database(plan.database_url)
    tell(f"reading {plan.shown}")
    source = Source.read(plan.path, plan.exclude)
    tell(f"judging {source.files.count:,} files")
    found = judge(Evidence(source, recording, database, plan.workers), plan.boxes)
    tests = 0 if recording is None or recording.tests is None else recording.tests.run
    texts = [(file.path, file.text) for file in source.files.python] + sorted(source.files.settings.items())
    return Judged(
        understood(source),
        f"{tests} test{'s' * (tests != 1)}" if tests else "",
        source.files.count,
        tuple(source.unread),
        tuple(masked_box(replace(box, findings=tuple(sorted(box.findings, key=_order)))) for box in found),
        tuple(comment for path, text in texts for comment in scan(path, text)),
        notices,
    )


def _order(finding: Finding) -> tuple[str, int, int]:
    return order(finding.place)


def _recording(paths: tuple[Path, ...]) -> tuple[Recording | None, tuple[str, ...]]:
    if not paths:
        return None, ()
    from verdigris.checker.recordings import read

    return read(paths)


def _database(url: str) -> Catalogue:
    from verdigris.evidence.database import inspect

    return inspect(url)


def _suppressed(judged: Judged) -> tuple[tuple[BoxReport, ...], list[str]]:
    """Take out the findings that a comment excuses; say which comments excuse nothing."""
    used: set[Suppression] = set()
    decided = []
    for box in judged.boxes:
        pairs = [(finding, _covering(box, finding, judged.suppressions)) for finding in box.findings]
        used.update(comment for _, comment in pairs if comment is not None)
        counting = tuple(finding for finding, comment in pairs if comment is None)
        excused = tuple((finding, comment.reason) for finding, comment in pairs if comment is not None)
        decided.append(replace(box, findings=counting, suppressed=excused) if excused else box)
    names = {box.name for box in judged.boxes}
    known = numbers()
    notices = []
    for comment in judged.suppressions:
        fault = comment.fault(known)
        judged_here = any(name in names or name.rpartition("/")[0] in names for name in comment.names)
        if fault is not None:
            notices.append(fault)
        elif comment not in used and judged_here:
            notices.append(f"{comment.place}: nothing to suppress here: {', '.join(comment.names)} ({comment.reason})")
    return tuple(decided), notices


def _covering(box: BoxReport, finding: Finding, comments: Iterable[Suppression]) -> Suppression | None:
    return next((comment for comment in comments if comment.covers(box.name, finding)), None)


def _needless(report: Report) -> list[str]:
    """Name the accepted boxes that there is nothing to accept about."""
    return [
        f"{box.name} {'holds' if box.verdict is Verdict.HOLDS else 'is not applicable'}: "
        f"take it out of [tool.verdigris.accept] ({box.accepted})"
        for box in report.boxes
        if box.accepted is not None and box.verdict in {Verdict.HOLDS, Verdict.NOT_APPLICABLE}
    ]


def _many(stale: list[baseline.Entry]) -> str:
    return f"{len(stale)} finding{'s' * (len(stale) != 1)}"


def _lines(root: Path, settled: Iterable[BoxReport]) -> dict[str, list[str]]:
    """Return the lines of the files that findings point to, as the parser counts them."""
    paths = {finding.place.path for box in settled for finding in box.findings if finding.place is not None}
    lines = {}
    for path in paths:
        text = _text(root / path if root.is_dir() else root)
        lines[path] = re.split(r"\r\n|\r|\n", masked(text))
    return lines


def _text(path: Path) -> str:
    """Read a file as Python would; nothing if it has gone since it was judged."""
    try:
        with tokenize.open(path) as file:
            return file.read()
    except (OSError, SyntaxError, ValueError):
        with suppress(OSError, ValueError):
            return path.read_text("utf-8-sig", errors="replace")
    return ""
