"""The names that an edit needs, imported where a file imports already."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.fix.layout import Unwritable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.fix.layout import Change, Layout


def imported(layout: Layout, needed: Iterable[str]) -> tuple[list[Change], dict[int, list[ast.ImportFrom]]]:
    """Return what to write for names that are not imported yet, and the imports to add to the tree, by their places.

    A place is an index of the module's body. Names go to an import of the same module, else behind the last import of
    the file's head; whoever sorts imports sorts these too.
    """
    missing: dict[str, list[str]] = {}
    for module, _, name in (each.partition(":") for each in sorted(set(needed))):
        if not _is_imported(layout.tree, module, name):
            missing.setdefault(module, []).append(name)
    if not missing:
        return [], {}
    taken = set(_bound(layout.tree))
    for name in (name for names in missing.values() for name in names):
        if name in taken:
            raise Unwritable(f"`{name}`, which would have to be imported, is something else there")
    changes: list[Change] = []
    added: dict[int, list[ast.ImportFrom]] = {}
    for module, names in missing.items():
        there = next((node for node in layout.tree.body if _takes(node, module)), None)
        if isinstance(there, ast.ImportFrom):
            changes += _appended(layout, there, names)
            there.names += [ast.alias(name) for name in names]
        else:
            added.setdefault(_head(layout.tree), []).append(
                ast.ImportFrom(module, [ast.alias(name) for name in names], 0)
            )
    for index, new in added.items():
        changes.append(_line(layout, layout.tree.body[index - 1], new))
    return changes, added


def _is_imported(tree: ast.Module, module: str, name: str) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module, node.level) == (module, 0)
        and any(alias.name == name and alias.asname in {None, name} for alias in node.names)
        for node in tree.body
    )


def _takes(node: ast.stmt, module: str) -> bool:
    return isinstance(node, ast.ImportFrom) and (node.module, node.level) == (module, 0) and node.names[0].name != "*"


def _bound(tree: ast.Module) -> Iterator[str]:
    """Yield every name that is given a meaning anywhere in a file."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
                yield name
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.alias(name=name, asname=other):
                yield other or name.partition(".")[0]
            case ast.ExceptHandler(name=str(name)) | ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
                yield name
            case ast.MatchMapping(rest=str(name)):
                yield name


def _appended(layout: Layout, node: ast.ImportFrom, names: list[str]) -> list[Change]:
    start, end = layout.span(node)
    if layout.text[end - 1] == ")":
        return layout.inserted(end, names, node.names)
    del start
    return [(end, end, f", {', '.join(names)}")]


def _head(tree: ast.Module) -> int:
    """Return the place behind the imports that a file begins with."""
    found = 0
    for index, node in enumerate(tree.body):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            found = index + 1
        elif not (index == 0 and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)):
            break
    if not found:
        raise Unwritable("it has no imports that another could stand behind")
    return found


def _line(layout: Layout, before: ast.stmt, new: list[ast.ImportFrom]) -> Change:
    """Return new lines behind a statement; one that shares its line with others is left alone."""
    line = before.end_lineno or 0
    if line >= len(layout.starts):
        raise Unwritable("its last import ends the file")
    _, end = layout.span(before)
    begin = layout.starts[line]
    rest = layout.text[end:begin].strip()
    if rest and not rest.startswith("#"):
        raise Unwritable("its last import shares a line with other code")
    newline = layout.newline(begin)
    return (begin, begin, "".join(f"{ast.unparse(node)}{newline}" for node in new))
