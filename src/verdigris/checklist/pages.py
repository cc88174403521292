"""The boxes' pages: ten Markdown files, a heading for each box. Read here without importing a single box."""

from __future__ import annotations

import os

SECTIONS = (
    "engine",
    "session",
    "fastapi",
    "models",
    "loading",
    "bulk",
    "concurrency",
    "errors",
    "testing",
    "performance",
)
_HERE = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs more to import than this module to run


def page(name: str) -> str:
    """Return the page of a box: the part of its section's file under its heading."""
    section = name.partition("/")[0]
    for heading, text in _parts(section) if section in SECTIONS else ():
        if heading == name:
            return text.rstrip() + "\n"
    message = f"{name} has no page"
    raise LookupError(message)


def numbers() -> dict[str, str]:
    """Return the number of each box that has a page, in the checklist's order: the headings keep that order."""
    return {
        heading: f"{place}.{ordinal}"
        for place, section in enumerate(SECTIONS, 1)
        for ordinal, (heading, _) in enumerate(_parts(section), 1)
    }


def _parts(section: str) -> list[tuple[str, str]]:
    """Return each heading of a section's file with its text, the heading included."""
    try:
        with open(os.path.join(_HERE, f"{section}.md"), encoding="utf-8") as file:  # noqa: PTH118, PTH123 - as above
            lines = file.readlines()
    except FileNotFoundError:
        return []
    parts: list[tuple[str, list[str]]] = []
    for line in lines:
        if line.startswith("## "):
            parts.append((line[3:].strip(), [line]))
        elif parts:
            parts[-1][1].append(line)
    return [(heading, "".join(text)) for heading, text in parts]
