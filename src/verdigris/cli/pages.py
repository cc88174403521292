"""`verdigris boxes` and `verdigris explain`."""

from __future__ import annotations

import sys

from verdigris.checklist.pages import numbers
from verdigris.checklist.pages import page as page_of
from verdigris.cli.options import Parser, choice


def boxes(given: list[str]) -> int:
    """List the checklist: number, name, and what holds."""
    parser = Parser("boxes", "List the checklist: number, name, and what holds.")
    parser.add_argument(
        "--output-format", metavar="FORMAT", type=choice("text", "json"), default="text", help="text, json"
    )
    options = parser.read(given)
    from verdigris.checklist.registry import boxes as registered

    listed = [(number, name, box) for name, (number, box) in registered().items()]
    if options.output_format == "json":
        import json

        plain = [
            {"number": number, "name": name, "holds": box.holds, "fails": box.fails} for number, name, box in listed
        ]
        sys.stdout.write(json.dumps(plain, indent=2) + "\n")
        return 0
    widest = max(len(name) for _, name, _ in listed)
    sys.stdout.writelines(f"{number:>4}  {name:<{widest}}  {box.holds}\n" for number, name, box in listed)
    return 0


def explain(given: list[str]) -> int:
    """Show a box's page: when it holds, on which evidence, why, what to do."""
    parser = Parser("explain", "Show a box's page: when it holds, on which evidence, why, what to do.")
    parser.add_argument(
        "box", metavar="BOX", help="its name (engine/pre-ping), its number (1.3), or a section (engine)"
    )
    parser.add_argument("--color", metavar="WHEN", type=choice("auto", "always", "never"), default="auto")
    options = parser.read(given)
    from verdigris.report.page import terminal
    from verdigris.report.style import style_for
    from verdigris.usage import matching

    known = numbers()
    wanted = options.box
    if wanted.count("/") > 1:  # a rule: box/variant
        wanted = wanted.rpartition("/")[0]
    style = style_for(sys.stdout, options.color)
    for name in matching([wanted], known, "`verdigris explain`"):
        sys.stdout.write(terminal(page_of(name), known[name], style))
    return 0
