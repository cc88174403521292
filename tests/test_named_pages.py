"""Every page that an error names is there: what `verdigris explain` takes, or a command that shows it."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from verdigris.cli import main

SOURCE = Path(__file__).parents[1] / "src" / "verdigris"
FILES = {path: ast.parse(path.read_text("utf-8")) for path in sorted(SOURCE.rglob("*.py"))}


def named():
    """Yield each `page=` of the code, and each default of a parameter of that name, with where it stands."""
    for path, tree in FILES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and node.arg == "page":
                yield path, node.value
            elif isinstance(node, ast.arguments):
                defaults = zip(node.kwonlyargs, node.kw_defaults, strict=True)
                yield from ((path, value) for each, value in defaults if each.arg == "page" and value is not None)


@cache
def constants(path):
    return {
        node.targets[0].id: node.value
        for node in FILES[path].body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


def text_of(path, node):
    """Return what a page is named; a command that says its own name counts as `verdigris check`."""
    if isinstance(node, ast.JoinedStr):
        return re.sub(r"\{self\.prog\}", "verdigris check", ast.unparse(node)[2:-1])
    if isinstance(node, ast.Name):
        return text_of(path, constants(path)[node.id])
    return ast.literal_eval(node)


PAGES = sorted({text for path, node in named() if (text := text_of(path, node))})


def test_errors_of_the_library_and_of_the_checker_are_among_them():
    assert {"engine/async-driver", "verdigris explain docs/recording.md", "verdigris boxes"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_that_an_error_names_is_there(page, capsys):
    command = page.split()[1:] if page.startswith("verdigris ") else ["explain", page]

    try:
        code = main(command)
    except SystemExit as left:
        code = left.code

    assert code == 0
    assert capsys.readouterr().out
