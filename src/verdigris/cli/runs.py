"""`verdigris record` and `verdigris demo`: the commands that run code."""

from __future__ import annotations

from pathlib import Path

from verdigris.checker.usage import UsageError
from verdigris.cli.options import Parser


def record(given: list[str]) -> int:
    """Run a command and write down what it does with its databases; its exit code is ours."""
    usage = "verdigris record [--output FILE] [--root DIR] -- COMMAND [ARGUMENT ...]"
    parser = Parser("record", "Run a command and write down what it does with its databases.", usage)
    parser.add_argument("--output", metavar="FILE", default="recording.json", help="default: recording.json")
    parser.add_argument("--root", metavar="DIR", default=".", help="the project's directory; default: this one")
    place = given.index("--") if "--" in given else len(given)
    options = parser.read(given[:place])
    command = given[place + 1 :]
    if not command:
        raise UsageError(
            "No command was given to record.",
            why="Everything after `--` is run as it stands.",
            do=("verdigris record -- pytest", "verdigris record --output recording.json -- python -m app"),
        )
    from verdigris.evidence.recording.command import run

    return run(command, output=Path(options.output), root=Path(options.root))


def demo(given: list[str]) -> int:
    """Serve, drive and prove the shop of the examples."""
    try:
        from verdigris.demo import main
    except ImportError as error:
        raise UsageError(
            f"The demo needs {error.name or 'a package'}, which is not installed.",
            why="It serves a real shop on a real PostgreSQL; the checker alone needs none of it.",
            do=("pip install 'verdigris[demo]'", "make demo   # in a clone: sets up everything by itself"),
        ) from error
    return int(main(given))
