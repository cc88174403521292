"""The checklist to read: ten modules and their ten pages, a heading for each box. No box is imported for it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import ast

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
_NAME = re.compile(r'^    name = "([^"]+)"$', re.MULTILINE)
_VARIANT = re.compile(r"^```\w+ fails ([\w-]+)$", re.MULTILINE)
_HERE = os.path.dirname(__file__)  # noqa: PTH120 - pathlib costs more to import than this module to run


def page(name: str) -> str:
    """Return the page of a box: the part of its section's file under its heading."""
    section = name.partition("/")[0]
    for heading, text in _parts(section) if section in SECTIONS else ():
        if heading == name:
            return text.rstrip() + "\n"
    message = f"{name} has no page"
    raise LookupError(message)


def variants(name: str) -> list[str]:
    """Return the ways of failing that a box's page shows an example of: ```` ```python fails off ````."""
    return list(dict.fromkeys(_VARIANT.findall(page(name))))


def documents() -> dict[str, str]:
    """Return the path of each page that is no box's by the name that errors give it, `docs/recording.md`.

    They lie beside the sources in a clone, and inside the package where it was installed.
    """
    package = os.path.dirname(_HERE)  # noqa: PTH120 - as above
    for folder in (os.path.join(package, "_docs"), os.path.join(package, "..", "..", "docs")):  # noqa: PTH118 - as above
        if os.path.isfile(os.path.join(folder, "configuration.md")):  # noqa: PTH113, PTH118 - as above
            found = sorted(name for name in os.listdir(folder) if name.endswith(".md"))  # noqa: PTH208 - as above
            return {f"docs/{name}": os.path.join(folder, name) for name in found}  # noqa: PTH118 - as above
    return {}


def numbers() -> dict[str, str]:
    """Return the number of each box by its name, in the checklist's order."""
    return {
        name: f"{place}.{ordinal}"
        for place, section in enumerate(SECTIONS, 1)
        for ordinal, name in enumerate(_NAME.findall(_read(f"{section}.py")), 1)
    }


class Entry(NamedTuple):
    """What a box says of itself."""

    number: str
    name: str
    holds: str
    fails: str


def entries() -> list[Entry]:
    """Return the checklist as its modules state it, read like anybody's source: no box is imported for it."""
    import ast

    numbered = numbers()
    bodies = [node for section in SECTIONS for node in ast.parse(_read(f"{section}.py")).body]
    said = [_said(node) for node in bodies if isinstance(node, ast.ClassDef)]
    boxes = (each for each in said if each.get("name") in numbered)
    return [Entry(numbered[each["name"]], each["name"], each["holds"], each["fails"]) for each in boxes]


def _said(box: ast.ClassDef) -> dict[str, str]:
    """Return the texts that a class body assigns to names."""
    import ast

    said = {}
    for node in box.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                said[name] = text
    return said


def _parts(section: str) -> list[tuple[str, str]]:
    """Return each heading of a section's file with its text, the heading included."""
    parts: list[tuple[str, list[str]]] = []
    for line in _read(f"{section}.md").splitlines(keepends=True):
        if line.startswith("## "):
            parts.append((line[3:].strip(), [line]))
        elif parts:
            parts[-1][1].append(line)
    return [(heading, "".join(text)) for heading, text in parts]


def _read(file: str) -> str:
    try:
        with open(os.path.join(_HERE, file), encoding="utf-8") as text:  # noqa: PTH118, PTH123 - as above
            return text.read()
    except FileNotFoundError:
        return ""
