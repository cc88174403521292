"""Queries in loops that a mapping may spare: a round looks into it first, and asks for what is not there."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.source.statements.rounds import Loop, assignments, header, names, rounds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verdigris.evidence.source.reading.modules import Scope

_KEEPING = {"update", "setdefault"}
_SEEING = {"add", "append"}
_WRITTEN = (ast.Tuple, ast.List, ast.Set, ast.Constant)
_IDENTITY = re.compile(r"(^|_)(id|ids|pk|uuid|guid)($|_)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a round looks for before it asks; `empty` says that the first one cannot find anything.

    A key that is no `identity`, neither what the loop goes over nor the name of a row, may be the same in most rounds.
    """

    key: ast.expr | None
    empty: bool
    identity: bool = False
    only: ast.expr | None = None  # nothing is looked for: the rounds ask of which this is true


@dataclass(frozen=True, slots=True)
class _Look:
    """A look into something, by a condition (`key in known`) or a lookup that gives what it finds."""

    known: ast.AST | None
    key: ast.expr | None = None
    gives: bool = True


def remembered(loop: Loop, sent: ast.AST, function: Scope) -> Remembered | None:
    """Return what each round looks into before it asks; None if it asks whatever it knows."""
    return _Rounds(loop, function).before(sent)


class _Rounds:
    def __init__(self, loop: Loop, function: Scope) -> None:
        self.loop = loop
        self.function = function
        self.moving = set(names(header(loop)[0]))

    def before(self, sent: ast.AST) -> Remembered | None:
        """Go outwards from a query to the first that decides whether it is sent."""
        inner: ast.AST = sent
        for around in self.function.module.ancestors(sent):
            found = None if around is self.loop else self._decides(around, inner)
            found = found or self._skipped(around, inner)
            if found is not None or around is self.loop:
                return found
            inner = around
        return None

    def _decides(self, around: ast.AST, inner: ast.AST) -> Remembered | None:
        look: _Look | None = None
        match around:
            case ast.ExceptHandler(type=caught):
                known = caught is not None and "KeyError" in ast.unparse(caught)
                look = _Look(self.function.module.parents.get(around) if known else None)
            case ast.If(test=test, body=body) | ast.IfExp(test=test, body=body):
                missing = _holds(body, inner)
                if missing and _is_member(test, ast.In):
                    return Remembered(None, empty=False, only=test)
                look = self._condition(test, around, missing=missing)
            case ast.BoolOp(op=ast.Or(), values=values) if inner in values:
                earlier = (self._lookup(value, around) for value in values[: values.index(inner)])
                look = next((each for each in earlier if each is not None), None)
            case _:
                pass
        return None if look is None else self._told(look)

    def _condition(self, test: ast.expr, around: ast.AST, *, missing: bool) -> _Look | None:
        """Return what a condition looks into, if a query that runs where it is met (or not) is for what was missing."""
        member = _is_member(test, ast.NotIn if missing else ast.In)
        if member is not None:
            return _Look(member.comparators[0], member.left, gives=False)
        match test, missing:
            case ast.UnaryOp(op=ast.Not(), operand=ast.Name() as name), True:
                return self._lookup(name, around)
            case ast.Compare(left=ast.Name() as name, ops=[ast.Is()], comparators=[ast.Constant(value=None)]), True:
                return self._lookup(name, around)
            case ast.Compare(left=ast.Name() as name, ops=[ast.IsNot()], comparators=[ast.Constant(value=None)]), False:
                return self._lookup(name, around)
            case ast.Name() as name, False:
                return self._lookup(name, around)
            case _:
                return None

    def _lookup(self, node: ast.expr, before: ast.AST) -> _Look | None:
        """Return the lookup that a value is: `known.get(key)`, `next(...)`, or a name that was given one above."""
        values = [node]
        if isinstance(node, ast.Name):
            here = getattr(before, "lineno", 0)
            values = [value for name, value in assignments(self.loop) if name == node.id and value.lineno <= here]
        for value in values:
            match value:
                case ast.Call(func=ast.Name(id="next")):
                    return _Look(value)
                case ast.Call(func=ast.Attribute(value=known, attr="get"), args=[key, *_]):
                    if not self.moving & set(names(known)):  # or it looks into the row itself
                        return _Look(known, key)
                case _:
                    pass
        return None

    def _skipped(self, around: ast.AST, inner: ast.AST) -> Remembered | None:
        """Return what an earlier statement of the same block looked into: `if key in known: continue`."""
        for _, block in ast.iter_fields(around):
            if not (isinstance(block, list) and _holds(block, inner)):
                continue
            for statement in block[: next(index for index, each in enumerate(block) if each is inner)]:
                if not (isinstance(statement, ast.If) and isinstance(statement.body[-1], ast.Continue)):
                    continue
                look = self._condition(statement.test, statement, missing=False)
                if look is not None and (look.gives or self._puts(look.known, self._inside())):
                    return self._told(look)
        return None

    # -- what was looked into ---------------------------------------------------------------------

    def _told(self, look: _Look) -> Remembered:
        if not look.gives and self._puts(look.known, self._inside()) == "seen":
            return Remembered(look.key, empty=True, identity=True)  # it keeps no answer: what comes twice is left out
        return Remembered(look.key, self._is_empty(look.known), look.key is not None and self._is_identity(look.key))

    def _is_identity(self, key: ast.expr) -> bool:
        """Tell whether a key is what the loop goes over, or has the name of a row's identity, also further up."""
        parts, seen = [key], set[str]()
        for part in parts:
            owners = {id(node.value) for node in ast.walk(part) if isinstance(node, ast.Attribute)}
            for node in ast.walk(part):
                if _IDENTITY.search(leaf_of(node)):
                    return True
                if isinstance(node, ast.Name) and id(node) not in owners and node.id not in seen:
                    if node.id in self.moving:
                        return True
                    seen.add(node.id)
                    parts += [value for name, value in assignments(self.loop) if name == node.id]
        return False

    def _is_empty(self, known: ast.AST | None) -> bool:
        """Tell whether what is looked into is empty when the loop begins: then each new key is a query."""
        for inner in ast.walk(known) if known is not None else ():
            if isinstance(inner, ast.Name):
                bound = [each for each in self.function.bindings.get(inner.id, ()) if each.kind != "annotation"]
                if bound and all(_is_written_empty(each.value) for each in bound):
                    return self._puts(inner, self._above()) is None
        return False

    def _inside(self) -> Sequence[ast.AST]:
        return tuple(rounds(self.loop))

    def _above(self) -> Sequence[ast.AST]:
        limit = self.loop.lineno
        return [node for node in self.function.nodes() if getattr(node, "lineno", limit) < limit]

    def _puts(self, known: ast.AST | None, nodes: Sequence[ast.AST]) -> str | None:
        """Tell what some code does with what it looks into: answers are "kept" there, or keys are "seen"."""
        text = "" if known is None else ast.unparse(known)
        for node in nodes:
            match node:
                case ast.Assign(targets=[ast.Subscript(value=into)]) if ast.unparse(into) == text:
                    return "kept"
                case ast.Call(func=ast.Attribute(value=into, attr=method)) if method in _KEEPING | _SEEING:
                    if ast.unparse(into) == text:
                        return "kept" if method in _KEEPING else "seen"
                case _:
                    pass
        return None


def _is_member(test: ast.expr, kind: type[ast.In | ast.NotIn]) -> ast.Compare | None:
    """Return `key in known` within a condition; what is written out is a filter, and remembers nothing."""
    for node in ast.walk(test):
        match node:
            case ast.Compare(ops=[op], comparators=[known]) if isinstance(op, kind):
                if not isinstance(known, _WRITTEN) and not leaf_of(known).isupper():
                    return node
            case _:
                pass
    return None


def _holds(block: object, node: ast.AST) -> bool:
    return block is node or (isinstance(block, list) and any(each is node for each in block))


def _is_written_empty(value: ast.expr | None) -> bool:
    match value:
        case ast.Dict(keys=[]) | ast.List(elts=[]) | ast.Call(func=ast.Name(id="dict" | "set"), args=[], keywords=[]):
            return True
        case _:
            return False
