"""One check from beginning to end: gather the evidence, judge the boxes, apply what the team has decided."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris import __version__
from verdigris.checklist.registry import boxes
from verdigris.config import UsageError
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Kind
from verdigris.evidence.source import Source
from verdigris.evidence.source.files import Role
from verdigris.report.report import BoxReport, Report, judge, order

if TYPE_CHECKING:
    from verdigris.evidence.database import Catalogue
    from verdigris.evidence.recording.artefact import Recording


@dataclass(frozen=True, slots=True)
class Plan:
    """What to check and on which evidence; everything is settled, nothing is read from the environment any more."""

    path: Path
    shown: str = "."
    recordings: tuple[Path, ...] = ()
    database_url: str | None = field(default=None, repr=False)
    workers: int | None = None
    selected: frozenset[str] | None = None
    ignored: Mapping[str, str] = field(default_factory=dict)
    accepted: Mapping[str, str] = field(default_factory=dict)
    exclude: tuple[str, ...] = ()
    baseline: Path | None = None
    cache: bool = True


def check(plan: Plan) -> Report:
    """Gather, judge and report; raise EvidenceError (UsageError) when the evidence asked for cannot be had."""
    started = time.perf_counter()
    recording = _recording(plan.recordings)
    source = _source(plan)
    database = None if plan.database_url is None else _database(plan.database_url)
    evidence = Evidence(source, recording, database, plan.workers)
    names = [name for name in boxes() if name not in plan.ignored and (plan.selected is None or name in plan.selected)]
    found = tuple(_sorted(box) for box in judge(evidence, names))
    tests = None if recording is None or recording.tests is None else recording.tests.run
    return Report(
        version=__version__,
        root=plan.shown,
        understood=understood(source),
        kinds=evidence.kinds,
        boxes=tuple(replace(box, accepted=plan.accepted.get(box.name)) for box in found),
        unread=tuple(source.unread),
        files=source.files.count,
        seconds=time.perf_counter() - started,
        recorded="" if tests is None else f"{tests} tests",
        ignored=tuple((boxes()[name][0], name, reason) for name, reason in plan.ignored.items()),
        lines=_lines(source, found),
    )


def _sorted(box: BoxReport) -> BoxReport:
    return replace(box, findings=tuple(sorted(box.findings, key=lambda finding: order(finding.place))))


def _source(plan: Plan) -> Source:
    if not plan.path.exists():
        raise UsageError(
            f"There is no {plan.shown}.",
            why="The path to check has to be a directory or a Python file.",
            do=("verdigris check .",),
        )
    source = Source.read(plan.path, plan.exclude)
    if not source.files.count:
        raise UsageError(
            f"There is no Python file under {plan.shown}.",
            why="Nothing was checked, and that is no success.",
            do=("Name the directory that holds the application:   verdigris check path/to/app",),
        )
    return source


def _recording(paths: tuple[Path, ...]) -> Recording | None:
    if not paths:
        return None
    from verdigris.evidence.recording.artefact import Recording

    recordings = [Recording.load(path) for path in paths]
    return recordings[0]


def _database(url: str) -> Catalogue:
    from verdigris.evidence.database import gather  # type: ignore[import-not-found,unused-ignore]  # its room is being built

    return gather(url)  # type: ignore[no-any-return,unused-ignore]  # as above


def _lines(source: Source, found: Iterable[BoxReport]) -> dict[str, list[str]]:
    """Return the lines of the files that findings point to."""
    paths = {finding.place.path for box in found for finding in box.findings if finding.place is not None}
    lines = {file.path: file.lines for file in source.files.python if file.path in paths}
    lines.update({path: text.splitlines() for path, text in source.files.settings.items() if path in paths})
    return lines


def understood(source: Source) -> str:
    """Say in one line what the source was taken for."""
    parts = [
        _count(len(source.engines), "engine"),
        _count(_factories(source), "factory"),
        _count(len(source.routes), "route"),
        _count(len(source.mapped_classes), "model"),
    ]
    return f"{', '.join(parts)}; {_commits(source)}"


def _count(number: int, noun: str) -> str:
    if noun == "factory" and number != 1:
        return f"{number} factories"
    return f"{number} {noun}{'s' * (number != 1)}"


def _factories(source: Source) -> int:
    calls = source.calls.outside({"sqlalchemy", "sqlmodel"}, "async_sessionmaker", "sessionmaker")
    made = {call.place for call, _ in calls if call.module.role is Role.APPLICATION}
    databases = sum(1 for engine in source.engines if engine.maker.package == "verdigris")
    return len(made) + databases


def _commits(source: Source) -> str:
    """Say who commits: the session dependency, the services, both or nobody."""
    dependency = any(source.transactions.commit_of(each) is not None for each in source.session_dependencies)
    services = bool(source.transactions.committers)
    if dependency:
        return "the session dependency and services commit" if services else "the session dependency commits"
    return "services commit" if services else "nothing commits"
