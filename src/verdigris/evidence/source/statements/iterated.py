"""What a loop goes over: rows, or chunks, attempts, messages, the parts of one thing, a few written-out things."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.nodes import leaf_of
from verdigris.evidence.source.statements.rounds import LOOPS, Loop, header, names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.statements.asking import Asking

DEPTH = 5
_CHUNKS = re.compile(
    r"(^|_)(chunks?|batch(es)?|pages?|attempts?|retr(y|ies)|shards?|partitions?|slices?|windows?)($|_)"
)
_PASSING = {"enumerate", "sorted", "reversed", "list", "tuple", "set", "iter", "tqdm", "zip", "filter", "dict"}
_CHUNKERS = {"batched", "chunked", "chunks", "ichunked", "partitions", "grouper", "batch", "chunk", "make_batches"}
_GROWING = {"append", "extend", "add", "update", "insert"}
_FIELDS = {"model_dump", "dict", "asdict", "vars", "__subclasses__"}  # calls that give the parts of one thing
_PARTS = {
    "model_fields",
    "model_fields_set",
    "__fields__",
    "__dict__",
    "__annotations__",
    "sorted_tables",
    "column_attrs",
}
_OWNED = {"relationships", "columns", "attrs", "c", "tables"}  # of a mapper, a table, the metadata
_OWNERS = {"mapper", "__mapper__", "__table__", "inspect", "metadata"}


class Iterated:
    """The iterables of one tree's loops."""

    def __init__(self, source: Source, asking: Asking) -> None:
        """Read them from an index; `asking` tells generators that query."""
        self.source = source
        self.asking = asking

    def is_over_rows(self, loop: Loop, scope: Scope) -> bool:
        """Tell a loop over rows from one over chunks, attempts, messages or a few written-out things."""
        target, over = header(loop)
        if isinstance(loop, ast.AsyncFor) and not self._streams(over, scope):
            return False
        if any(_CHUNKS.search(name.lower()) for name in names(target)):
            return False
        return not self._is_few(over, scope, 0)

    def _streams(self, over: ast.expr, scope: Scope) -> bool:
        """Tell whether `async for` goes over rows: a streamed result, or a generator of the tree that queries."""
        node = over.value if isinstance(over, ast.Await) else over
        if isinstance(node, ast.Call):
            if self._is_streamed(node.func, scope):
                return True
            callee = self.source.types.callee(node, scope)
            if not isinstance(callee, Scope) or not callee.is_function:
                return False
            produces = self.source.types.produced(callee)
            if produces is not None and self.source.types.session_type(produces) is not None:
                return False  # `async for session in get_session()` goes round once
            return self.asking.asked_by(callee) is not None
        meaning = self.source.names.resolve(node, scope) if isinstance(node, ast.Name) else None
        value = meaning.value if isinstance(meaning, Assigned) else None
        return value is not None and self._streams(value, scope)

    def _is_streamed(self, func: ast.expr, scope: Scope) -> bool:
        if not isinstance(func, ast.Attribute) or func.attr not in {"stream", "stream_scalars"}:
            return False
        return self.source.types.sends(func.value, scope)

    def _is_few(self, over: ast.expr, scope: Scope, depth: int) -> bool:
        """Tell whether an iterable is chunks, a range of attempts, or a handful that the source writes out."""
        match over:
            case ast.Tuple() | ast.List() | ast.Set() | ast.Dict():
                elements = over.keys if isinstance(over, ast.Dict) else over.elts
                return bool(elements) and not any(isinstance(element, ast.Starred) for element in elements)
            case ast.Constant():
                return True
            case ast.Call(func=func, args=args):
                return self._is_few_call(func, args, scope, depth)
            case ast.Name() | ast.Attribute():
                return self._is_few_named(over, scope, depth)
            case ast.Subscript(value=base, slice=ast.Slice(upper=ast.Constant())):
                return True
            case ast.Subscript(value=ast.Call()):
                return False  # what a call gives may be few; one of its values need not be
            case ast.Subscript(value=base):
                return self._is_few(base, scope, depth + 1) if depth < DEPTH else False
            case ast.Await(value=inner):
                return isinstance(inner, ast.Call) and leaf_of(inner.func) in _CHUNKERS
            case _:
                return False

    def _is_few_call(self, func: ast.expr, args: list[ast.expr], scope: Scope, depth: int) -> bool:
        name = leaf_of(func)
        if name == "range":
            return not (len(args) == 1 and isinstance(args[0], ast.Call) and leaf_of(args[0].func) == "len")
        if name in _CHUNKERS or (name in _FIELDS and (name != "dict" or not args)):
            return True
        if name in _PASSING and args:
            return any(self._is_few(arg, scope, depth + 1) for arg in args)
        if isinstance(func, ast.Attribute) and name in {"items", "keys", "values", "copy"}:
            return self._is_few(func.value, scope, depth + 1)
        meaning = self.source.types.reach(func, scope)
        if isinstance(meaning, Scope) and meaning.is_function:
            return depth < DEPTH and self._gives_few(meaning, depth)
        return isinstance(meaning, External) and meaning.package not in {
            "sqlalchemy",
            "sqlmodel",
            "builtins",
            "collections",
        }

    def _gives_few(self, function: Scope, depth: int) -> bool:
        """Tell whether all that a function returns is written out: `def backends(): return [Backend("vllm"), ...]`."""
        returned = [node.value for node in function.nodes() if isinstance(node, ast.Return)]
        return bool(returned) and all(
            isinstance(value, (ast.Tuple, ast.List, ast.Set, ast.Dict)) and self._is_few(value, function, depth + 1)
            for value in returned
        )

    def _is_few_named(self, over: ast.Name | ast.Attribute, scope: Scope, depth: int) -> bool:
        meaning = self.source.names.resolve(over, scope)
        if isinstance(meaning, External) or (isinstance(meaning, Scope) and meaning.is_class):
            return True  # the members of an enumeration, a constant of a library
        if leaf_of(over).isupper() or _is_part(over):
            return True
        if meaning is None and isinstance(over, ast.Attribute) and self._is_written_out(over, scope):
            return True
        if not isinstance(meaning, Assigned) or depth > 3:
            return False
        if not meaning.scope.is_function:
            return isinstance(meaning.value, (ast.Tuple, ast.List, ast.Set, ast.Dict))
        value = meaning.value
        if isinstance(value, (ast.List, ast.Dict, ast.Set)):  # a list that is filled later is no handful
            if isinstance(value, ast.List) and not value.elts:
                return _is_appended_one_by_one(meaning)
            return self._is_few(value, meaning.scope, depth + 1) and not _grows(meaning)
        return value is not None and value is not over and self._is_few(value, meaning.scope, depth + 1)

    def _is_written_out(self, over: ast.Attribute, scope: Scope) -> bool:
        """Tell whether the class of a method writes out what `self.kinds` is; of another object it may be a default."""
        if not (isinstance(over.value, ast.Name) and over.value.id in {"self", "cls"}):
            return False
        owner = self.source.types.of(over.value, scope)
        member = self.source.names.class_attribute(owner, over.attr) if isinstance(owner, Scope) else None
        return (
            isinstance(member, Assigned) and isinstance(member.value, (ast.Tuple, ast.List)) and any(member.value.elts)
        )


def _is_part(node: ast.Name | ast.Attribute) -> bool:
    """Tell whether a name means the parts of one thing: the fields of a model, the tables of the metadata."""
    if not isinstance(node, ast.Attribute):
        return False
    if node.attr in _PARTS:
        return True
    owner = node.value.func if isinstance(node.value, ast.Call) else node.value
    name = leaf_of(owner)
    return node.attr in _OWNED and (name in _OWNERS or (node.attr == "tables" and "meta" in name.lower()))


def _grows(meaning: Assigned) -> bool:
    return any(_growths(meaning))


def _growths(meaning: Assigned) -> Iterator[ast.Attribute]:
    for node in meaning.scope.nodes():
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=attr) if name == meaning.name and attr in _GROWING:
                yield node
            case _:
                pass


def _is_appended_one_by_one(meaning: Assigned) -> bool:
    """Tell whether an empty list gets what the source writes out: `if mine: found.append(...)`, in no loop."""
    growths = list(_growths(meaning))
    module = meaning.scope.module
    return bool(growths) and not any(
        node.attr != "append" or any(isinstance(around, LOOPS) for around in _within(module.ancestors(node), meaning))
        for node in growths
    )


def _within(ancestors: Iterable[ast.AST], meaning: Assigned) -> Iterator[ast.AST]:
    for ancestor in ancestors:
        if ancestor is meaning.scope.node:
            return
        yield ancestor
