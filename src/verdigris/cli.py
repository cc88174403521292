"""The command line: one function a command; each imports what it needs when it runs."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from verdigris import __version__
from verdigris.config import UsageError, nearest
from verdigris.evidence.failure import EvidenceError

if TYPE_CHECKING:
    from verdigris.check import Plan
    from verdigris.report.report import Report

URL = "VERDIGRIS_DATABASE_URL"
FORMATS = ("terminal", "full", "concise", "json", "html")  # those of verdigris.report, named here to start quickly


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 nothing fails, 1 a box fails, 2 wrong use or our own bug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a test's stream, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # suppressed if it is another kind
    try:
        return _dispatch(given)
    except EvidenceError as error:
        print(f"verdigris: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    except KeyboardInterrupt:
        print("verdigris: stopped.", file=sys.stderr)
        return 130
    except Exception as error:
        if os.environ.get("VERDIGRIS_DEBUG"):
            raise
        print(_crash(error), file=sys.stderr)
        return 2


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in {"-h", "--help", "help"}:
        print(_overview())
        return 0 if given else 2
    if given[0] in {"-V", "--version"}:
        print(f"verdigris {__version__}")
        return 0
    command, rest = given[0], given[1:]
    if command not in COMMANDS:
        raise UsageError(
            f"`{command}` is no command.",
            why="The first word names what to do.",
            do=(nearest(command, COMMANDS, "There is"),),
            page="verdigris --help",
        )
    return COMMANDS[command][0](rest)


def _crash(error: Exception) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f" ({Path(frame.tb_frame.f_code.co_filename).name}:{frame.tb_lineno})"
    told = " ".join(str(error).split())[:200]
    return (
        f"verdigris: {type(error).__name__}: {told}{where}\n"
        "  This is a bug of verdigris, not of the code it looked at; nothing can be said about that.\n"
        "  VERDIGRIS_DEBUG=1 shows where it happened: put that into the report, with `verdigris --version`."
    )


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in our own form, and knows the nearest option."""

    def error(self, message: str) -> NoReturn:
        why = f"It takes:   {self.format_usage().removeprefix('usage: ').strip()}"
        raise UsageError(f"{message}.", why=" ".join(why.split()), page=f"{self.prog} --help")

    def read(self, given: list[str]) -> argparse.Namespace:
        """Parse, and name the nearest option for one that is not there."""
        found, unknown = self.parse_known_args(given)
        if unknown:
            options = [option for action in self._actions for option in action.option_strings if len(option) > 2]  # noqa: PLR2004 - long ones
            word = unknown[0].partition("=")[0]
            near = nearest(word, options, "There is") if word.startswith("-") else f"{self.prog} takes no `{word}` there."
            raise UsageError(f"`{word}` is no option of {self.prog}.", why=near, page=f"{self.prog} --help")
        return found


def _parser(command: str, description: str) -> _Parser:
    return _Parser(prog=f"verdigris {command}", description=description, allow_abbrev=False)


def _choice(*words: str) -> Callable[[str], str]:
    def read(word: str) -> str:
        if word not in words:
            raise argparse.ArgumentTypeError(f"`{word}` is not known. {nearest(word, words, 'There is')}")
        return word

    return read


def _check_parser(command: str, description: str) -> _Parser:
    parser = _parser(command, description)
    add = parser.add_argument
    add("path", nargs="?", default=".", metavar="PATH", help="the directory (or file) to check; default: this one")
    add("--evidence", metavar="KINDS", help="source, recording, database, joined by commas; default: source")
    add("--recording", metavar="FILE", action="append", default=[], help="what `verdigris record` wrote; repeatable")
    add("--database-url-env", metavar="NAME", default=URL, help=f"the variable with the database's URL; default: {URL}")
    add("--workers", metavar="N", type=_positive, help="how many processes serve the application")
    add("--select", metavar="BOXES", action="append", default=[], help="only these: box, number, section or glob")
    add("--ignore", metavar="BOXES", action="append", default=[], help="not these")
    add("--baseline", metavar="FILE", help="findings that are known: see `verdigris baseline`")
    add("--no-cache", action="store_true", help="judge afresh, and remember nothing")
    return parser


def _positive(word: str) -> int:
    if not word.isdigit() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"`{word}` is no positive number")
    return int(word)


def _check(given: list[str]) -> int:
    parser = _check_parser("check", "Say of every box whether it holds, and show why.")
    add = parser.add_argument
    add("--output-format", metavar="FORMAT", type=_choice(*FORMATS), default="terminal", help=", ".join(FORMATS))
    add("--write", metavar="FORMAT=PATH", action="append", default=[], help="write the report there too; repeatable")
    add("--strict", action="store_true", help="doubts and advice make exit code 1 too")
    add("--color", metavar="WHEN", type=_choice("auto", "always", "never"), default="auto", help="auto, always or never")
    add("-q", "--quiet", action="store_true", help="print the names of failing boxes, nothing else")
    options = parser.read(given)
    writes = [_destination(text) for text in options.write]
    from verdigris.check import check

    report = check(_plan(options))
    _print(report, "quiet" if options.quiet else options.output_format, options.color)
    for form, path in writes:
        _write(report, form, path)
    for box in report.crashed:
        print(f"verdigris: {box.name} broke: {box.crash}\n  This is a bug of verdigris; report it.", file=sys.stderr)
    return report.exit_code(strict=options.strict)


def _destination(text: str) -> tuple[str, Path]:
    form, equals, path = text.partition("=")
    if not equals or not path:
        raise UsageError(f"`--write {text}` names no file.", why="It takes a format and a path.", do=("--write html=report.html",))
    if form not in FORMATS:
        raise UsageError(f"`--write {text}` names no format.", why=nearest(form, FORMATS, "There is"))
    return form, Path(path)


def _print(report: Report, form: str, colour: str) -> None:
    from verdigris.report import renderer
    from verdigris.report.style import style_for

    sys.stdout.write(renderer(form)(report, style_for(sys.stdout, colour)))
    sys.stdout.flush()


def _write(report: Report, form: str, path: Path) -> None:
    from verdigris.report import renderer
    from verdigris.report.style import Style

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(renderer(form)(report, Style()), "utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"The report could not be written to {path}.", why=f"{error.strerror or error}.") from error


def _plan(options: argparse.Namespace) -> Plan:
    """Settle what to check: the command line first, then pyproject.toml."""
    from verdigris import config as settings
    from verdigris.check import Plan
    from verdigris.checklist.registry import boxes
    from verdigris.evidence.judgement import Kind

    path = Path(options.path)
    config = settings.find(path.resolve())
    known = {name: number for name, (number, _) in boxes().items()}
    select = [word for text in options.select for word in text.split(",") if word.strip()]
    ignore = [word for text in options.ignore for word in text.split(",") if word.strip()]
    table = f"[tool.verdigris] of {config.file}"
    selected = settings.matching(select, known, "--select") if select else settings.matching(config.select, known, f"`select` in {table}")
    ignored = {
        name: config.ignore[pattern]
        for name, pattern in settings.matching(config.ignore, known, f"`ignore` in {table}").items()
    } | dict.fromkeys(settings.matching(ignore, known, "--ignore"), "--ignore")
    accepted = settings.matching(config.accept, known, f"`accept` in {table}")
    recordings = tuple(Path(name) for name in options.recording) or config.recording
    words = [word for word in (options.evidence or "").split(",") if word.strip()]
    kinds = {settings.kind(word, "--evidence") for word in words} or set(config.evidence)
    if options.recording and not words:
        kinds.add(Kind.RECORDING)
    if Kind.RECORDING in kinds and not recordings:
        raise UsageError(
            "No recording was given.",
            why="`--evidence recording` judges by what a run did, and nobody said which run.",
            do=("verdigris record --output recording.json -- pytest", "verdigris check --recording recording.json"),
        )
    return Plan(
        path=path,
        shown=options.path,
        recordings=recordings if Kind.RECORDING in kinds else (),
        database_url=_url(options.database_url_env) if Kind.DATABASE in kinds else None,
        workers=options.workers or config.workers,
        selected=frozenset(selected) if select or config.select else None,
        ignored=ignored,
        accepted={name: config.accept[pattern] for name, pattern in accepted.items()},
        exclude=config.exclude,
        baseline=Path(options.baseline) if options.baseline else config.baseline,
        cache=not options.no_cache,
    )


def _url(variable: str) -> str:
    url = os.environ.get(variable, "").strip()
    if not url:
        raise UsageError(
            f"{variable} is not set.",
            why="`--evidence database` asks the server, and the URL is never taken from a file or the command line.",
            do=(f"{variable}=postgresql://user:password@host/name verdigris check --evidence source,database",),
        )
    return url


def _boxes(given: list[str]) -> int:
    parser = _parser("boxes", "List the checklist: number, name, and what holds.")
    parser.add_argument("--output-format", metavar="FORMAT", type=_choice("text", "json"), default="text", help="text or json")
    options = parser.read(given)
    from verdigris.checklist.registry import boxes

    listed = [(number, name, box) for name, (number, box) in boxes().items()]
    if options.output_format == "json":
        import json

        print(json.dumps([{"number": number, "name": name, "holds": box.holds, "fails": box.fails} for number, name, box in listed], indent=2))
        return 0
    widest = max(len(name) for _, name, _ in listed)
    for number, name, box in listed:
        print(f"{number:>4}  {name:<{widest}}  {box.holds}")
    return 0


def _explain(given: list[str]) -> int:
    parser = _parser("explain", "Show a box's page: when it holds, on which evidence, why, what to do.")
    parser.add_argument("box", metavar="BOX", help="its name (engine/pre-ping), its number (1.3), or a section (engine)")
    options = parser.read(given)
    from verdigris.checklist.box import page
    from verdigris.checklist.registry import boxes
    from verdigris.config import matching

    known = {name: number for name, (number, _) in boxes().items()}
    for name in matching([options.box], known, "verdigris explain"):
        print(page(name))
    return 0


def _baseline(given: list[str]) -> int:
    raise UsageError("`verdigris baseline` is not there yet.", why="It is being written.")


def _record(given: list[str]) -> int:
    before, dashes, command = _split(given)
    parser = _parser("record", "Run a command and write down what it does with its databases.")
    parser.add_argument("--output", metavar="FILE", default="recording.json", help="default: recording.json")
    parser.add_argument("--root", metavar="DIR", default=".", help="the project's directory; default: this one")
    parser.usage = "verdigris record [--output FILE] [--root DIR] -- COMMAND [ARGUMENT ...]"
    options = parser.read(before)
    if not dashes or not command:
        raise UsageError(
            "No command was given to record.",
            why="Everything after `--` is run as it stands.",
            do=("verdigris record -- pytest", "verdigris record --output recording.json -- python -m app"),
        )
    from verdigris.evidence.recording.command import run  # type: ignore[import-not-found,unused-ignore]  # being written

    return int(run(command, output=Path(options.output), root=Path(options.root)))


def _split(given: list[str]) -> tuple[list[str], bool, list[str]]:
    if "--" not in given:
        return given, False, []
    place = given.index("--")
    return given[:place], True, given[place + 1 :]


def _demo(given: list[str]) -> int:
    from verdigris.demo import main as demo  # type: ignore[import-not-found,unused-ignore]  # being written

    return int(demo(given))


COMMANDS: Mapping[str, tuple[Callable[[list[str]], int], str]] = {
    "check": (_check, "say of every box whether it holds, and show why"),
    "boxes": (_boxes, "list the checklist"),
    "explain": (_explain, "show the page of a box"),
    "baseline": (_baseline, "write or prune the file of known findings"),
    "record": (_record, "run a command and write down what it does with its databases"),
    "demo": (_demo, "serve, drive and prove a real shop on a real PostgreSQL"),
}


def _overview() -> str:
    lines = [f"  {name:<10} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: verdigris COMMAND [OPTION ...]",
            "",
            "The async SQLAlchemy + FastAPI + PostgreSQL checklist, proved.",
            "",
            *lines,
            "",
            "verdigris COMMAND --help shows its options; verdigris --version its version.",
        ]
    )
