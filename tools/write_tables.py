"""Writes the tables of docs/errors.md and docs/database.md from the code; --check says whether they are current."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris import Database, errors
from verdigris.errors import DRIVER_TEXTS, SQLSTATES, RetryLevel, VerdigrisError, classify
from verdigris.evidence.guarantees import GUARANTEES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from verdigris.errors import Fault

DOCS = Path(__file__).resolve().parent.parent / "docs"
COLUMNS = ("name", "HTTP", "Retry-After", "repeated")
SETTINGS = ("setting", "default", "`from_engine`", "box", "what it changes")
SECONDS = {"max_lag", "pool_recycle", "slow_query"}


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or compare them."""
    status = 0
    for name, fill in (("errors.md", filled), ("database.md", with_settings)):
        now = (DOCS / name).read_text()
        text = fill(now)
        if "--check" not in arguments:
            (DOCS / name).write_text(text)
            continue
        print(f"docs/{name} is current" if text == now else f"docs/{name} is not: run tools/write_tables.py")
        status |= text != now
    return status


def with_settings(page: str) -> str:
    """Return a page with the settings as `Database` has them; what each changes is the page's own text."""
    known, told = settings(), {}

    def rows(found: re.Match[str]) -> str:
        said = [re.split(r"(?<!\\)\|", line)[1:-1] for line in found[2].splitlines()[2:]]
        names = {cells[0].strip(" `"): cells[-1].strip() for cells in said}
        told.update(names)
        return found[1] + table(
            SETTINGS, ((f"`{name}`", *known.get(name, ("?",) * 3), text) for name, text in names.items())
        )

    text = re.sub(r"(<!-- settings -->\n)(.*?)(?=<!-- end -->)", rows, page, flags=re.DOTALL)
    missing, gone = known.keys() - told.keys(), told.keys() - known.keys()
    if missing or gone:
        sys.exit(f"docs/database.md lacks {sorted(missing)} and names {sorted(gone)}, which does not exist")
    return text


def settings() -> dict[str, tuple[str, str, str]]:
    """Return the default of each setting, whether `from_engine` takes it, and the boxes that the default holds."""
    made, adopted = keywords(Database.__init__), keywords(Database.from_engine)
    return {
        name: (default(name, value), "yes" if name in adopted else "–", boxes(name))
        for name, value in {**adopted, **made}.items()
    }


def keywords(function: Callable[..., object]) -> dict[str, object]:
    """Return what can be told to a function that makes a Database, and what it is unless it is told."""
    parameters = inspect.signature(function).parameters.values()
    return {
        each.name: each.default
        for each in parameters
        if each.kind is each.KEYWORD_ONLY or (each.default is not each.empty and each.name != "engine")
    }


def default(name: str, value: object) -> str:
    """Return a default as the page shows it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g} s" if name in SECONDS or name.endswith("_timeout") else f"{value:g}"
    if isinstance(value, type):
        return f"`{value.__name__}`"
    return "none" if value == () else f"`{value!r}`"


def boxes(name: str) -> str:
    """Return the boxes that a promise about a setting holds."""
    found = {
        box: None
        for each in GUARANTEES
        if each.symbol.startswith("verdigris.Database") and (each.option == name or each.opt_out.startswith(f"{name}="))
        for box in each.boxes
    }
    return ", ".join(f"`{box}`" for box in found) or "–"


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
        RetryLevel.UNIT: "unit" if fault.repeats is None else f"unit, {fault.repeats}×",
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
