"""Checks what the documentation says of itself: links lead somewhere, Python blocks parse, `make` targets exist."""

from __future__ import annotations

import ast
import re
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("*.md", "docs/**/*.md", "benchmarks/**/*.md", "examples/**/*.md", "src/verdigris/**/*.md")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^([ \t]*)```(\w*)([^\n]*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
TARGET = re.compile(r"^([a-z]+):", re.MULTILINE)
MAKE = re.compile(r"\bmake ([a-z]+)\b")


def main() -> int:
    """Print one line per fault; 1 if there is any."""
    pages = sorted({page for place in PLACES for page in ROOT.glob(place)})
    faults = [f"{page.relative_to(ROOT)}: {fault}" for page in pages for fault in faults_of(page)]
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    print(f"{len(pages)} pages, {len(faults)} faults")
    return 1 if faults else 0


def faults_of(page: Path) -> Iterator[str]:
    """Yield what is wrong on one page."""
    text = page.read_text()
    prose = FENCE.sub("", text)
    for link in LINK.findall(prose):
        path, _, anchor = link.partition("#")
        if "://" in link or link.startswith("mailto:"):
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"the link {link} leads nowhere"
        elif anchor and target.suffix == ".md" and anchor not in anchors(target):
            yield f"the link {link} names a heading that is not there"
    targets = set(TARGET.findall((ROOT / "Makefile").read_text()))
    for indent, language, rest, code in FENCE.findall(text):
        if language in {"python", "py"} and "fragment" not in rest:
            yield from python_faults(textwrap.dedent(code.replace(f"\n{indent}", "\n")))
        if language in {"", "sh", "bash", "shell", "console"}:
            yield from (f"there is no `make {name}`" for name in MAKE.findall(code) if name not in targets)


def python_faults(code: str) -> Iterator[str]:
    """Yield the syntax error of a block, if it has one; `...` and top-level await are as good as code."""
    try:
        compile(code, "block", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    except SyntaxError as error:
        yield f"a Python block does not parse: {error.msg}: {(error.text or '').strip()}"


def anchors(page: Path) -> set[str]:
    """Return the anchors that the page's headings get."""
    headings = re.findall(r"^#+ +(.+)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


if __name__ == "__main__":
    sys.exit(main())
