"""What `verdigris fix` promises, on every example of every page and in every layout that files have.

After it each file is Python, only what the edits say has changed, the finding is gone, and a second run writes nothing.
"""

from __future__ import annotations

import ast
import io
import tokenize
from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

import pytest

from tests.checklist.pages import Example, pages
from verdigris.checker.check import Plan, check
from verdigris.evidence.judgement import Edit
from verdigris.fix.files import changes, snapshot, write
from verdigris.report.report import Report

LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.COMMENT, tokenize.ENDMARKER}
GLUE = {"from", "import", ",", "(", ")", "=", ":", "."}
PARTLY = {"models/mapped/unannotated", "models/mapped-column/column"}  # one finding a class: a column may be left


def tokens(data: bytes) -> Iterator[tokenize.TokenInfo]:
    yield from list(tokenize.tokenize(io.BytesIO(data.replace(b"\r\n", b"\n")).readline))[1:]  # without the encoding


def words(data: bytes) -> list[str]:
    return [token.string for token in tokens(data) if token.type not in LAYOUT]


def comments(data: bytes) -> list[str]:
    return [token.string for token in tokens(data) if token.type == tokenize.COMMENT]


def commented(text: str) -> str:
    """Return a text with a comment of its own at the end of each line that code ends on."""
    lines = text.split("\n")
    ends = {
        token.start[0]: token.start[1]
        for token in tokens(text.encode())
        if token.type in {tokenize.NL, tokenize.NEWLINE} and token.start[1] and "#" not in token.line
    }
    for number, column in ends.items():
        lines[number - 1] = f"{lines[number - 1][:column]}  # {number}: é{lines[number - 1][column:]}"
    return "\n".join(lines)


def tabbed(text: str) -> str:
    lines = text.split("\n")
    return "\n".join("\t" * ((len(line) - len(line.lstrip(" "))) // 4) + line.lstrip(" ") for line in lines)


def paged(text: str) -> str:
    return text.replace("\n\n\n", "\n\n\x0c\n")


LAYOUTS: dict[str, Callable[[str], bytes]] = {
    "as it is": str.encode,
    "CRLF": lambda text: text.replace("\n", "\r\n").encode(),
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "latin-1": lambda text: f"# -*- coding: latin-1 -*-\n{commented(text)}".encode("latin-1", "replace"),
    "tabs": lambda text: tabbed(text).encode(),
    "form feeds": lambda text: paged(text).encode(),
    "comments": lambda text: commented(text).encode(),
    "no last newline": lambda text: text.rstrip("\n").encode(),
    "all at once": lambda text: (
        b"\xef\xbb\xbf" + commented(paged(tabbed(text))).rstrip("\n").replace("\n", "\r\n").encode()
    ),
}


def written(folder: Path, example: Example, layout: Callable[[str], bytes]) -> dict[Path, bytes]:
    """Write an example's Python files in a layout, and its other files as they are."""
    example.write(folder)
    found = {folder / name: layout(text) for name, text in example.files.items() if name.endswith(".py")}
    for path, data in found.items():
        path.write_bytes(data)
    return found


def fixed(folder: Path) -> tuple[Report, Report, list[str]]:
    """Fix all that can be fixed; return the reports before and after, and why files were left alone."""
    looks = snapshot(folder, ())
    before = check(Plan(path=folder, cache=False))
    made = list(changes(folder, before.edits, looks))
    left = [why for change in made if (why := change.left or write(folder, change)) is not None]
    return before, check(Plan(path=folder, cache=False)), left


@pytest.fixture(scope="module")
def examples(tmp_path_factory) -> list[Example]:
    """The examples of all pages in which there is something to write."""
    found = []
    for example in (example for page in pages() for example in page.examples):
        folder = tmp_path_factory.mktemp("example")
        example.write(folder)
        if check(Plan(path=folder, cache=False)).edits:
            found.append(example)
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_example_keeps_the_promises_in_every_layout(layout, examples, tmp_path):
    done, faults = 0, []
    for number, example in enumerate(examples):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = written(folder, example, LAYOUTS[layout])
        before, after, left = fixed(folder)
        done += len(before.edits)
        faults += [f"{example.id}: {fault}" for fault in (*left, *broken(before, after, files))]

    assert faults == []
    assert done > 100


def broken(before: Report, after: Report, files: dict[Path, bytes]) -> Iterator[str]:
    """Yield which promise was not kept."""
    if after.edits:
        yield f"a second run would write {[edit.told for edit in after.edits]}"
    still = {(box.rule(finding), finding.subject) for box, finding in after.findings}
    for box, finding in before.findings:
        rule = box.rule(finding)
        if finding.edits and rule not in PARTLY and (rule, finding.subject) in still:
            yield f"{rule} of {finding.subject} is still there"
    for path, data in files.items():
        yield from changed(path, data, before.edits)


def changed(path: Path, data: bytes, edits: tuple[Edit, ...]) -> Iterator[str]:
    found = path.read_bytes()
    try:
        ast.parse(found)
    except SyntaxError as error:
        yield f"{path.name} is no Python any more: {error}"
        return
    if comments(found) != comments(data):
        yield f"{path.name} lost a comment"
    if data.count(b"\r\n") and found.count(b"\n") != found.count(b"\r\n"):
        yield f"{path.name} has two ends of lines"
    said = {
        token
        for edit in edits
        for text in (edit.name, edit.value, *(name.replace(":", " ") for name in edit.imports))
        for token in words(f"({text})".encode())
    }
    allowed = said | GLUE | {f'"{edit.name}"' for edit in edits}
    old, new = words(data), words(found)
    for kind, first, last, begin, end in SequenceMatcher(a=old, b=new, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        if not allowed.issuperset(new[begin:end]):
            yield f"{path.name}: {new[begin:end]} was written, which no edit says"
        if kind != "insert" and len(old[first:last]) > len(said):
            yield f"{path.name}: {old[first:last]} was taken out"
