"""Writes the tables of docs/errors.md from the code; with --check says whether they are current."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris import errors
from verdigris.errors import DRIVER_TEXTS, SQLSTATES, RetryLevel, VerdigrisError, classify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from verdigris.errors import Fault

PAGE = Path(__file__).resolve().parent.parent / "docs" / "errors.md"
COLUMNS = ("name", "HTTP", "Retry-After", "repeated")


def main(arguments: Sequence[str]) -> int:
    """Write the page, or compare it."""
    now = PAGE.read_text()
    text = filled(now)
    if "--check" in arguments:
        print("docs/errors.md is current" if text == now else "docs/errors.md is not: run tools/write_tables.py")
        return int(text != now)
    PAGE.write_text(text)
    return 0


def filled(page: str) -> str:
    """Return a page with its tables as the code has them."""
    tables = {
        "sqlstates": table(["SQLSTATE", *COLUMNS], ((f"`{code}`", *cells(fault)) for code, fault in SQLSTATES.items())),
        "texts": table(["text", *COLUMNS], ((f"`{part}`", *cells(fault)) for part, fault in DRIVER_TEXTS)),
        "exceptions": table(["exception", "also a", "what happened", *COLUMNS], exceptions()),
    }
    return re.sub(
        r"(<!-- table: (\w+) -->\n).*?(?=<!-- end -->)",
        lambda found: found[1] + tables[found[2]],
        page,
        flags=re.DOTALL,
    )


def exceptions() -> Iterator[tuple[str, ...]]:
    """Give a row for each public exception."""
    for name in sorted(errors.__all__):
        kind = getattr(errors, name)
        if inspect.isclass(kind) and issubclass(kind, VerdigrisError) and kind is not VerdigrisError:
            bases = ", ".join(f"`{base.__name__}`" for base in public_bases(kind) if base is not VerdigrisError)
            said = " ".join((inspect.getdoc(kind) or "").split())
            yield (f"`{name}`", bases, said, *cells(classify(kind("")), configured=kind is errors.ConfigurationError))


def public_bases(kind: type) -> Iterator[type]:
    """Give the classes that an exception is one of; those of a private class in its place."""
    for base in kind.__bases__:
        yield from public_bases(base) if base.__name__.startswith("_") else (base,)


def cells(fault: Fault, *, configured: bool = False) -> tuple[str, ...]:
    """Return what the columns say of a fault."""
    if configured:
        return ("–", "–", "–", "no")  # raised before the first request
    times = {
        RetryLevel.NEVER: "no",
        RetryLevel.UNIT: f"unit, {fault.repeats}×",
        RetryLevel.CONNECT: "connect",
    }
    after = f"{fault.retry_after}–{2 * fault.retry_after} s" if fault.retry_after else "–"
    return (fault.name, str(fault.status), after, times[fault.retry])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
