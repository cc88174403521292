"""Reads the boxes' pages: every example on them is a test.

An example is a fenced block marked ```` ```python fails ```` or ```` ```python holds ```` (or `unproven`, or
`not-applicable`). A line `# app/models.py` starts another file of the same example; a block without one is `app.py`.
Blocks that follow at once belong to the same example: ```` ```toml pyproject.toml ```` and the like are further files,
```` ```json recording ```` and ```` ```json database ```` are the other two kinds of evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verdigris.checklist.box import SECTIONS
from verdigris.evidence import Evidence
from verdigris.evidence.catalogue import Catalogue, Index, Table
from verdigris.evidence.recording.artefact import FORMAT, SCHEMA_VERSION, Recording
from verdigris.evidence.source import Source

PAGES = Path(__file__).parents[2] / "src" / "verdigris" / "checklist"
MARKS = ("fails", "holds", "unproven", "not-applicable")
HEADINGS = ("Holds when", "Evidence", "Why", "Do", "Ignore when")
_FENCE = re.compile(r"^```(\S+)(?: +(.*))?$")
_FILE = re.compile(r"^# ([\w./{}-]+\.(?:py|toml|ini|env|cfg|ya?ml)|\.env)\s*$")


@dataclass
class Example:
    """One example of one page."""

    box: str
    ordinal: int
    mark: str
    line: int
    files: dict[str, str] = field(default_factory=dict)
    recording: dict[str, object] | None = None
    database: dict[str, object] | None = None
    variant: str | None = None  # ```python fails off``` names the rule's variant

    @property
    def id(self) -> str:
        return f"{self.box}-{self.mark}-{self.ordinal}"

    def evidence(self, folder: Path) -> Evidence:
        """Write the example's files below a folder and gather all that it offers."""
        self.write(folder / "project")
        recording = database = None
        if self.recording is not None:
            told = {"format": FORMAT, "schema_version": SCHEMA_VERSION, **self.recording}
            (folder / "recording.json").write_text(json.dumps(told), "utf-8")
            recording = Recording.load(folder / "recording.json")
        if self.database is not None:
            database = catalogue(self.database)
        return Evidence(Source.read(folder / "project"), recording, database)

    def write(self, folder: Path) -> None:
        for name, text in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")


@dataclass
class Page:
    """The page of one box."""

    box: str
    text: str
    examples: list[Example]


def pages() -> Iterator[Page]:
    for section in SECTIONS:
        path = PAGES / f"{section}.md"
        if path.exists():
            yield from _pages(path.read_text("utf-8"))


def catalogue(told: dict[str, Any]) -> Catalogue:
    """Make the catalogue of an example: a server with 100 connections and what the block tells."""
    tables = [
        Table("public", each["name"], True, each["rows"], 0, tuple(each["columns"])) for each in told.get("tables", ())
    ]
    indexes = [
        Index("public", each["table"], each["name"], tuple(each["columns"]), predicate=each.get("predicate"))
        for each in told.get("indexes", ())
    ]
    return Catalogue(
        version="18.0",
        version_number=180000,
        database="shop",
        user="shop",
        max_connections=told.get("max_connections", 100),
        superuser_reserved_connections=3,
        in_recovery=told.get("in_recovery", False),
        idle_session_timeout=told.get("idle_session_timeout", 0.0),
        tables=tuple(tables),
        indexes=tuple(indexes),
    )


def _pages(text: str) -> Iterator[Page]:
    box, body, examples, example = "", [], [], None
    lines = iter(enumerate(text.splitlines(), 1))
    for number, line in lines:
        if line.startswith("## "):
            if box:
                yield Page(box, "\n".join(body), examples)
            box, body, examples, example = line[3:].strip(), [], [], None
        elif (fence := _FENCE.match(line)) is not None:
            block = []
            for _, inner in lines:
                if inner.startswith("```"):
                    break
                block.append(inner)
            example = _add(box, number, fence[1], fence[2] or "", block, example, examples)
        else:
            body.append(line)
            if line.strip():
                example = None
    if box:
        yield Page(box, "\n".join(body), examples)


def _add(box, number, language, info, block, example, examples):
    words = info.split()
    if words and words[0] in MARKS:
        example = Example(box, len(examples) + 1, words[0], number, variant=words[1] if len(words) > 1 else None)
        examples.append(example)
        _split(example, block, "app.py")
    elif language == "json" and example is not None and words and words[0] in {"recording", "database"}:
        setattr(example, words[0], json.loads("\n".join(block)))
    elif example is not None and words:
        example.files[words[0]] = "\n".join(block) + "\n"
    return example


def _split(example: Example, block: list[str], name: str) -> None:
    content: list[str] = []
    for line in block:
        found = _FILE.match(line)
        if found is not None:
            if any(part.strip() for part in content):
                example.files[name] = "\n".join(content) + "\n"
            name, content = found[1], []
        else:
            content.append(line)
    example.files[name] = "\n".join(content) + "\n"
