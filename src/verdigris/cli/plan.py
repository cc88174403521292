"""From options and pyproject.toml to a plan: the command line is asked first, nothing is merged in between."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from verdigris.checker import baseline as baselines
from verdigris.checker.check import Plan
from verdigris.checker.config import Config, find, kind
from verdigris.checker.naming import matching
from verdigris.checker.usage import UsageError
from verdigris.checklist.pages import numbers
from verdigris.cli.options import Parser, positive, words
from verdigris.evidence.judgement import Kind

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

URL = "VERDIGRIS_DATABASE_URL"


def add_options(parser: Parser) -> None:
    """Add what `check` and `baseline` have in common."""
    add = parser.add_argument
    add("path", nargs="?", default=".", metavar="PATH", help="the directory (or file) to check; default: this one")
    add("--evidence", metavar="KINDS", action="append", default=[], help="source, recording, database; default: source")
    add("--recording", metavar="FILE", action="append", default=[], help="what `verdigris record` wrote; repeatable")
    add("--database-url-env", metavar="NAME", default=URL, help=f"the variable with the database's URL; default: {URL}")
    add("--workers", metavar="N", type=positive, help="how many processes serve the application")
    add("--select", metavar="BOXES", action="append", default=[], help="only these: boxes, numbers, sections or globs")
    add("--ignore", metavar="BOXES", action="append", default=[], help="not these")
    add("--baseline", metavar="FILE", help=f"the known findings; default: {baselines.NAME}, where there is one")
    add("--no-cache", action="store_true", help="judge afresh, and remember nothing")


def plan(options: Namespace) -> Plan:
    """Settle what is checked, on which evidence, and what the team has decided."""
    path = Path(options.path)
    config = find(_absolute(path))
    known = numbers()
    table = f"[tool.verdigris] of {config.file}"
    kinds = _kinds(options, config)
    settled = Plan(
        path=path,
        shown=options.path,
        recordings=_recordings(options, config) if Kind.RECORDING in kinds else (),
        database_url=_url(options.database_url_env) if Kind.DATABASE in kinds else None,
        workers=options.workers or config.workers,
        selected=_selected(options, config, known, table),
        ignored=_reasons(config.ignore, known, f"`ignore` in {table}")
        | dict.fromkeys(matching(words(options.ignore), known, "--ignore"), "--ignore"),
        accepted=_reasons(config.accept, known, f"`accept` in {table}"),
        exclude=_excluded(config, _absolute(path)),
        whole=_absolute(path) == config.folder,
        baseline=baseline_of(options, config),
        cache=not options.no_cache,
    )
    if not settled.boxes:
        why = "Everything that was selected is ignored too; nothing would be checked, and that is no success."
        raise UsageError("No box is left to judge.", why=why, page="verdigris boxes")
    return settled


def _absolute(path: Path) -> Path:
    """Return where a path leads; a shell may stand in a directory that is gone."""
    try:
        return path.resolve()
    except FileNotFoundError as error:
        why = "The directory that this command was started in has been deleted."
        raise UsageError(f"There is no {path}.", why=why, do=("cd to one that exists",)) from error


def baseline_of(options: Namespace, config: Config) -> Path | None:
    """Return the baseline that was named, else the one that lies beside the configuration."""
    if options.baseline:
        return Path(options.baseline)
    beside = config.folder / baselines.NAME
    return config.baseline or (beside if beside.is_file() else None)


def _kinds(options: Namespace, config: Config) -> set[Kind]:
    given = {kind(word, "--evidence") for word in words(options.evidence)} or set(config.evidence)
    if options.recording and not options.evidence:
        given.add(Kind.RECORDING)
    return given


def _recordings(options: Namespace, config: Config) -> tuple[Path, ...]:
    recordings = tuple(Path(name) for name in options.recording) or config.recording
    if not recordings:
        raise UsageError(
            "No recording was given.",
            why="Evidence from a recording is what a run did, and nobody said which run.",
            do=("verdigris record --output recording.json -- pytest", "verdigris check --recording recording.json"),
        )
    return recordings


def _url(variable: str) -> str:
    url = os.environ.get(variable, "").strip()
    if not url:
        raise UsageError(
            f"{variable} is not set.",
            why="Evidence from the database needs its URL, which is read from that variable and from nowhere else.",
            do=(f"{variable}=postgresql://user:password@host/name verdigris check --evidence source,database",),
        )
    return url


def _selected(options: Namespace, config: Config, known: Mapping[str, str], table: str) -> frozenset[str] | None:
    if options.select:
        return frozenset(matching(words(options.select), known, "--select"))
    return frozenset(matching(config.select, known, f"`select` in {table}")) if config.select else None


def _reasons(given: Mapping[str, str], known: Mapping[str, str], where: str) -> dict[str, str]:
    return {name: given[pattern] for name, pattern in matching(given, known, where).items()}


def _excluded(config: Config, path: Path) -> tuple[str, ...]:
    """Return the patterns relative to the checked path; those that name something beside it are dropped."""
    if not path.is_relative_to(config.folder):
        return config.exclude
    inside = PurePosixPath(path.relative_to(config.folder).as_posix())
    patterns = []
    for pattern in config.exclude:
        given = PurePosixPath(pattern.removeprefix("./"))
        patterns.append(str(given.relative_to(inside)) if given.is_relative_to(inside) else str(given))
    return tuple(pattern for pattern in patterns if pattern != ".")
