"""The command line. This module only dispatches: each command imports what it needs when it runs."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from contextlib import suppress

from verdigris import __version__

TYPE_CHECKING = False  # as typing has it, without its 20 ms
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

COMMANDS: Mapping[str, tuple[str, str]] = {
    "check": ("check:check", "say of every box whether it holds, and show why"),
    "fix": ("fix:fix", "write what of the findings a tool can write"),
    "boxes": ("pages:boxes", "list the checklist"),
    "explain": ("pages:explain", "show the page of a box"),
    "baseline": ("check:baseline", "write or prune the file of known findings"),
    "record": ("runs:record", "run a command and write down what it does with its databases"),
    "demo": ("runs:demo", "serve, drive and prove a real shop on a real PostgreSQL"),
}


_ANSWERS = {  # what is nobody's bug, and where it shows
    errno.ENOSPC: "What it has to say could not be written: make room, or write elsewhere.",
    errno.EDQUOT: "What it has to say could not be written: make room, or write elsewhere.",
    errno.ENAMETOOLONG: "A path of this command is longer than the file system takes: name a shorter one.",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 nothing fails, 1 a box fails, 2 wrong use or our own bug."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell, `>&-`: the exit code still tells
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115 - open to the end
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream of another kind, or a closed one
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # as above
    if arguments is None and given[:1] == ["check"]:
        _collector_off()
    try:
        code = _dispatch(given)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, `head` say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141  # as a shell says of a command that ended so
    except KeyboardInterrupt:
        sys.stderr.write("verdigris: stopped.\n")
        return 130
    except Exception as error:
        told = _told(error)
        if told is None:
            raise
        sys.stderr.write(f"verdigris: {told}\n")
        if isinstance(error, OSError):  # what could not be written would be tried again at the end, and end with 120
            with suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 2
    return code


def _collector_off() -> None:
    """Let a check end with its process: to search what it read for cycles, after it and at exit, is an eighth of it."""
    gc.disable()
    atexit.register(gc.freeze)


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in {"-h", "--help", "help"}:
        sys.stdout.write(_overview())
        return 0 if given else 2
    if given[0] in {"-V", "--version"}:
        sys.stdout.write(f"verdigris {__version__}\n")
        return 0
    return _command(given[0])(given[1:])


def _command(word: str) -> Callable[[list[str]], int]:
    if word not in COMMANDS:
        from verdigris.checker.naming import nearest
        from verdigris.checker.usage import UsageError

        raise UsageError(
            f"`{word}` is no {'option' if word.startswith('-') else 'command'}.",
            why="The first word names what to do.",
            do=(nearest(word, COMMANDS, "There is"),),
            page="verdigris --help",
        )
    from importlib import import_module

    module, _, function = COMMANDS[word][0].partition(":")
    command: Callable[[list[str]], int] = getattr(import_module(f"{__name__}.{module}"), function)
    return command


def _told(error: Exception) -> str | None:
    """Say what happened: wrong use in its own words, a bug of ours as one; None to let the traceback through."""
    from verdigris.evidence.failure import ToldError

    if isinstance(error, ToldError):
        return str(error)
    if isinstance(error, OSError) and error.errno in _ANSWERS:
        return f"The command was cut short: {error.strerror}.\n  {_ANSWERS[error.errno]}"
    if os.environ.get("VERDIGRIS_DEBUG"):
        return None
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    where = "" if frame is None else f" ({os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno})"  # noqa: PTH119 - no pathlib here
    return (
        f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{where}\n"
        "  This is a bug of verdigris, not of the code it looked at; nothing is said about that.\n"
        "  VERDIGRIS_DEBUG=1 shows where it happened: put that into the report, with `verdigris --version`."
    )


def _overview() -> str:
    lines = [f"  {name:<10} {about}\n" for name, (_, about) in COMMANDS.items()]
    return (
        "usage: verdigris COMMAND [OPTION ...]\n\n"
        "The async SQLAlchemy + FastAPI + PostgreSQL checklist, proved.\n\n"
        f"{''.join(lines)}\n"
        "verdigris COMMAND --help shows its options, verdigris --version the version.\n"
    )
