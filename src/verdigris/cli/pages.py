"""`verdigris boxes` and `verdigris explain`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from verdigris.checklist.pages import documents, entries, numbers, variants
from verdigris.checklist.pages import page as page_of
from verdigris.cli.options import Parser, choice

if TYPE_CHECKING:
    from verdigris.report.style import Style


def boxes(given: list[str]) -> int:
    """List the checklist: number, name, and what holds."""
    parser = Parser("boxes", "List the checklist: number, name, and what holds.")
    parser.add_argument(
        "--output-format", metavar="FORMAT", type=choice("text", "json"), default="text", help="text, json"
    )
    options = parser.read(given)
    listed = entries()
    if options.output_format == "json":
        import json

        sys.stdout.write(json.dumps([entry._asdict() for entry in listed], indent=2) + "\n")
        return 0
    widest = max(len(entry.name) for entry in listed)
    sys.stdout.writelines(f"{entry.number:>4}  {entry.name:<{widest}}  {entry.holds}\n" for entry in listed)
    return 0


def explain(given: list[str]) -> int:
    """Show a box's page: when it holds, on which evidence, why, what to do."""
    parser = Parser("explain", "Show a box's page: when it holds, on which evidence, why, what to do.")
    parser.add_argument(
        "box",
        metavar="BOX",
        help="its name (engine/pre-ping), its number (1.3), a section (engine), or another page (docs/recording.md)",
    )
    parser.add_argument("--color", metavar="WHEN", type=choice("auto", "always", "never"), default="auto")
    options = parser.read(given)
    from verdigris.checker.naming import matching
    from verdigris.report.page import terminal
    from verdigris.report.style import style_for

    known = numbers()
    wanted = options.box
    if wanted.startswith("docs/"):
        sys.stdout.write(_document(wanted, style_for(sys.stdout, options.color)))
        return 0
    variant = ""
    if wanted.count("/") > 1:  # a rule: box/variant
        wanted, _, variant = wanted.rpartition("/")
    style = style_for(sys.stdout, options.color)
    for name in matching([wanted], known, "`verdigris explain`"):
        sys.stdout.write(terminal(page_of(name), known[name], style))
        shown = variants(name)
        if variant and variant not in shown:  # a finding may have one that no example shows
            told = f"it shows {', '.join(shown)}" if shown else "its examples name none"
            sys.stderr.write(f"The page of {name} has no example of `{variant}`; {told}.\n")
    return 0


def _document(name: str, style: Style) -> str:
    """Return a page as it is written, its tables and code included, with its headings in bold."""
    known = documents()
    if name not in known:
        from verdigris.checker.naming import nearest
        from verdigris.checker.usage import UsageError

        raise UsageError(
            f"There is no page {name}.",
            why="`verdigris explain` shows a box or a page.",
            do=(nearest(name, known, "There is"),),
        )
    with open(known[name], encoding="utf-8") as file:  # noqa: PTH123 - pathlib costs more to import than this to run
        lines = file.read().splitlines()
    fenced, shown = False, []
    for line in lines:
        fenced ^= line.startswith("```")
        shown.append(style.paint(line, "bold") if line.startswith("#") and not fenced else line)
    return style.finish("\n".join(shown) + "\n")
