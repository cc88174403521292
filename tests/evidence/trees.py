"""Small trees of files for tests of the source evidence."""

from __future__ import annotations

import ast
from pathlib import Path
from textwrap import dedent

from verdigris.evidence.source import Source
from verdigris.evidence.source.reading.arguments import Argument
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.values import Value


def tree(folder: Path, files: dict[str, str]) -> Source:
    """Write files and index them; every file gets a word of the field, or it would not be parsed at once."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).lstrip("\n"), "utf-8")
    return Source.read(folder)


def scope(source: Source, path: str, name: str = "") -> Scope:
    """Find a module's scope, or one inside it by its dotted name."""
    found = source.names.by_path[path].scope
    for part in filter(None, name.split(".")):
        inner = found.member(part)
        assert inner is not None
        found = inner
    return found


def meaning(source: Source, path: str, expression: str, name: str = "") -> object:
    """Resolve an expression as if it stood at the end of a scope."""
    return source.names.resolve(expression, scope(source, path, name))


def value(source: Source, path: str, expression: str, name: str = "") -> Value:
    """Evaluate an expression as if it stood at the end of a scope."""
    node = ast.parse(expression, mode="eval").body
    return source.evaluator.value(Argument(node, scope(source, path, name)))
