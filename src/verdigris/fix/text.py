"""Edits written into the text of a file: everything else of it stays, to the byte.

An edit finds its node by the span that the checker saw. What was written is parsed again and has to be the tree that
the edits mean, so that no layout, however odd, can make an edit say something else.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

from verdigris.evidence.judgement import How
from verdigris.fix.imports import imported
from verdigris.fix.layout import Layout, Unwritable, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from verdigris.evidence.judgement import Edit
    from verdigris.evidence.values import Place
    from verdigris.fix.layout import Change

__all__ = ["Unwritable", "edited"]
N = TypeVar("N", bound="ast.stmt | ast.expr")


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return a file's text with edits written; raise Unwritable where it is not certain to mean what it should."""
    writing = _Writing(Layout(text))
    changes = writing.changes(list(edits))
    changes.sort()
    if any(later < end for (_, end, _), (later, _, _) in pairwise(changes)):
        raise Unwritable("two edits are in each other's way")
    for start, end, written in reversed(changes):
        text = text[:start] + written + text[end:]
    _verify(writing, text)
    return text


def _verify(writing: _Writing, text: str) -> None:
    try:
        same = ast.dump(parsed(text)) == writing.expected()
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Unwritable("the file would be no Python afterwards") from error
    if not same:
        raise Unwritable("the file would say something else too")


class _Writing:
    """The edits of one text: what each changes in the text, and in the tree that the text has to be afterwards."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.instead: dict[int, ast.expr | ast.stmt] = {}  # nodes by the ids of those in whose place they are
        self.added: dict[int, list[ast.ImportFrom]] = {}
        self.later: list[tuple[ast.Call | ast.Dict, Mapping[str, str]]] = []

    def changes(self, edits: list[Edit]) -> list[Change]:
        """Return what to write, in no order; the tree is changed on the way."""
        changes: list[Change] = []
        keywords: dict[Place, dict[str, str]] = defaultdict(dict)
        items: dict[Place, dict[str, str]] = defaultdict(dict)
        for edit in edits:
            if edit.how is How.KEYWORD:
                keywords[edit.place][edit.name] = edit.value
            elif edit.how is How.ITEM:
                items[edit.place][edit.name] = edit.value
            else:
                changes.append(self._change(edit))
        for place, given in keywords.items():
            changes += self._keywords(self._found(place, ast.Call), given)
        for place, given in items.items():
            changes += self._items(self._found(place, ast.Dict), given)
        more, self.added = imported(self.layout, (name for edit in edits for name in edit.imports))
        return [*changes, *more]

    def _found(self, place: Place, kind: type[N]) -> N:
        found = next((node for node in self.layout.at(place) if isinstance(node, kind)), None)
        if found is None:
            raise Unwritable(f"the {'call' if kind is ast.Call else 'code'} is not where it was")
        return found

    def _change(self, edit: Edit) -> Change:
        match edit.how:
            case How.CALLEE:
                return self._callee(self._found(edit.place, ast.Call), edit.value)
            case How.ANNOTATION:
                return self._annotation(self._found(edit.place, ast.Assign), edit.value)
            case How.ASSIGNMENT:
                return self._assignment(self._found(edit.place, ast.AnnAssign), edit.value)
        return self._expression(self._found(edit.place, ast.expr), edit.value)

    def _callee(self, call: ast.Call, value: str) -> Change:
        start, end = self.layout.span(call.func)
        if not value.startswith("."):
            self.instead[id(call.func)] = _expression(value)
            return self.layout.replaced((start, end), value)
        if not isinstance(call.func, ast.Attribute):
            raise Unwritable("the call is not where it was")
        start = end - len(call.func.attr)
        if self.layout.text[start:end] != call.func.attr:  # as Python writes it: a name may have several spellings
            raise Unwritable("the call is not where it was")
        call.func.attr = value[1:]
        return (start, end, value[1:])

    def _annotation(self, statement: ast.Assign, value: str) -> Change:
        match statement.targets:
            case [ast.Name() as target]:
                new = ast.AnnAssign(target, _expression(value), statement.value, 1)
                self.instead[id(statement)] = new
                _, end = self.layout.span(target)
                return (end, end, f": {value}")
        raise Unwritable("the code is not where it was")

    def _assignment(self, statement: ast.AnnAssign, value: str) -> Change:
        if statement.value is not None:
            raise Unwritable("the code is not where it was")
        statement.value = _expression(value)
        _, end = self.layout.span(statement)
        return (end, end, f" = {value}")

    def _expression(self, node: ast.expr, value: str) -> Change:
        self.instead[id(node)] = _expression(value)
        return self.layout.replaced(self.layout.span(node), value)

    def _keywords(self, call: ast.Call, keywords: Mapping[str, str]) -> list[Change]:
        """Return what to write for the keywords of one call."""
        new = dict(keywords)
        there = [(each.value, new.pop(each.arg)) for each in call.keywords if each.arg in new]
        changes = [self.layout.replaced(self.layout.span(node), value) for node, value in there]
        if new:
            _, end = self.layout.span(call)
            written = [f"{name}={value}" for name, value in new.items()]
            changes += self.layout.inserted(end, written, [*call.args, *call.keywords])
        self.later.append((call, keywords))
        return changes

    def _items(self, dictionary: ast.Dict, items: Mapping[str, str]) -> list[Change]:
        """Return what to write for the keys of one dictionary."""
        new = dict(items)
        pairs = [*zip(dictionary.keys, dictionary.values, strict=True)]
        there = [
            (value, new.pop(key.value)) for key, value in pairs if isinstance(key, ast.Constant) and key.value in new
        ]
        changes = [self.layout.replaced(self.layout.span(node), value) for node, value in there]
        if new:
            _, end = self.layout.span(dictionary)
            given = [key or value for key, value in pairs]
            changes += self.layout.inserted(end, [f'"{name}": {value}' for name, value in new.items()], given)
        self.later.append((dictionary, items))
        return changes

    def expected(self) -> str:
        """Return the tree that the edits mean."""
        for node, given in self.later:
            for name, value in given.items():
                if isinstance(node, ast.Call):
                    _set_keyword(node, name, _expression(value))
                else:
                    _set_item(node, name, _expression(value))
        body = self.layout.tree.body
        for index in sorted(self.added, reverse=True):
            body[index:index] = self.added[index]
        return ast.dump(_Instead(self.instead).visit(self.layout.tree))


def _set_keyword(call: ast.Call, name: str, value: ast.expr) -> None:
    given = next((each for each in call.keywords if each.arg == name), None)
    if given is None:
        call.keywords.append(ast.keyword(name, value))
    else:
        given.value = value


def _set_item(dictionary: ast.Dict, name: str, value: ast.expr) -> None:
    for index, key in enumerate(dictionary.keys):
        if isinstance(key, ast.Constant) and key.value == name:
            dictionary.values[index] = value
            return
    dictionary.keys.append(ast.Constant(name))
    dictionary.values.append(value)


class _Instead(ast.NodeTransformer):
    """Puts nodes in the places of others."""

    def __init__(self, instead: Mapping[int, ast.AST]) -> None:
        self.instead = instead

    def visit(self, node: ast.AST) -> ast.AST:
        """Visit what stands in a node's place, and all within it."""
        return super().generic_visit(self.instead.get(id(node), node))


def _expression(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body
