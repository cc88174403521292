"""`verdigris boxes` and `verdigris explain`."""

from __future__ import annotations

import sys

from verdigris.checklist.pages import entries, numbers
from verdigris.checklist.pages import page as page_of
from verdigris.cli.options import Parser, choice


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
        "box", metavar="BOX", help="its name (engine/pre-ping), its number (1.3), or a section (engine)"
    )
    parser.add_argument("--color", metavar="WHEN", type=choice("auto", "always", "never"), default="auto")
    options = parser.read(given)
    from verdigris.checker.usage import matching
    from verdigris.report.page import terminal
    from verdigris.report.style import style_for

    known = numbers()
    wanted = options.box
    if wanted.count("/") > 1:  # a rule: box/variant
        wanted = wanted.rpartition("/")[0]
    style = style_for(sys.stdout, options.color)
    for name in matching([wanted], known, "`verdigris explain`"):
        sys.stdout.write(terminal(page_of(name), known[name], style))
    return 0
