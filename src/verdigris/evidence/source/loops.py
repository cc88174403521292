"""Queries in loops: which of them run once for each row, and which only look like it.

A loop over chunks, attempts, a few written-out things or a queue's messages is none, nor is a query that does not
depend on what the loop goes over. What may be answered from memory, or ends with the first that fits, is a doubt.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.modules import Scope
from verdigris.evidence.source.names import Assigned, External

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.values import Place

DEPTH = 5  # calls followed from the loop to the query
_READS = {"execute", "exec", "scalar", "scalars", "get", "get_one", "refresh", "stream", "stream_scalars"}
_CHANGES = {"add", "add_all", "delete", "merge"}
_WRITES = {"update", "delete", "insert"}
_CHUNKS = re.compile(
    r"(^|_)(chunks?|batch(es)?|pages?|attempts?|retr(y|ies)|shards?|partitions?|slices?|windows?)($|_)"
)
_PASSING = {"enumerate", "sorted", "reversed", "list", "tuple", "set", "iter", "tqdm", "zip", "filter", "dict"}
_CHUNKERS = {"batched", "chunked", "chunks", "ichunked", "partitions", "grouper", "batch", "chunk", "make_batches"}
_CACHES = re.compile(r"cache|memo|alru", re.IGNORECASE)

Loop: TypeAlias = ast.For | ast.AsyncFor | ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
_LOOPS = (ast.For, ast.AsyncFor, ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True)
class RowQuery(Subject):
    """A query that a loop sends in each round: `rows` is what the loop goes over, `unsure` why it may not."""

    key: str
    place: Place
    loop: Place
    rows: str
    call: str
    query: Place  # where it is sent, which may be in a function that is called
    function: Place
    gathered: bool = False
    works: bool = False  # what is called for each row does more than to read: a unit of work for each
    unsure: str | None = None


class Loops:
    """Loops of one tree that send queries."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self._asks: dict[Scope, Place | None] = {}
        self._working: dict[Scope, bool] = {}

    @cached_property
    def row_queries(self) -> list[RowQuery]:
        """Every loop of application code that queries once for each row, by its first such query."""
        found: list[RowQuery] = []
        for function in self.source.functions:
            if not isinstance(function.node, ast.Lambda):
                found += self._of(function)
        return found

    def _of(self, function: Scope) -> Iterator[RowQuery]:
        claimed: set[ast.AST] = set()
        for node in function.nodes():
            if not isinstance(node, _LOOPS) or not self._is_over_rows(node, function):
                continue
            for sent, asked, gathered in self._sent(node, function):
                if sent not in claimed and self._depends(sent, node):
                    claimed |= {inner for inner, _, _ in self._sent(node, function)}
                    yield self._row_query(node, sent, asked, function, gathered=gathered)
                    break

    def _row_query(
        self, loop: Loop, sent: ast.Call | ast.Attribute, asked: Place, function: Scope, *, gathered: bool
    ) -> RowQuery:
        module = function.module
        _, over = _header(loop)
        return RowQuery(
            f"{function.key} for {module.text(over)[:60]}",
            module.place(sent),
            module.place(loop),
            module.text(over)[:60],
            module.text(sent.func if isinstance(sent, ast.Call) else sent)[:60],
            asked,
            function.place,
            gathered,
            self._does_work(sent, function),
            self._unsure(loop, sent, function),
        )

    def _does_work(self, sent: ast.Call | ast.Attribute, scope: Scope) -> bool:
        """Tell whether what is called for each row does more than to read: writes, or waits for something else."""
        callee = self.source.types.callee(sent, scope) if isinstance(sent, ast.Call) else None
        return isinstance(callee, Scope) and callee.is_function and self._works(callee, 0)

    def _works(self, function: Scope, depth: int) -> bool:
        if function not in self._working:
            self._working[function] = False
            self._working[function] = any(self._is_work(node, function, depth) for node in function.nodes())
        return self._working[function]

    def _is_work(self, node: ast.AST, scope: Scope, depth: int) -> bool:
        if isinstance(node, ast.Await):
            inner = node.value
            return isinstance(inner, ast.Call) and not self._reads_only(inner, scope, depth)
        if not isinstance(node, ast.Call):
            return False
        func = node.func
        if isinstance(func, ast.Attribute) and func.attr in _CHANGES and self._session(func.value, scope):
            return True
        meaning = self.source.types.callee(node, scope)
        if isinstance(meaning, External):
            return meaning.package in {"sqlalchemy", "sqlmodel"} and meaning.leaf in _WRITES
        return isinstance(meaning, Scope) and not meaning.is_async and self._does(meaning, depth)

    def _reads_only(self, call: ast.Call, scope: Scope, depth: int) -> bool:
        """Tell whether awaiting a call does nothing but to read from the database."""
        func = call.func
        if isinstance(func, ast.Attribute) and self._session(func.value, scope):
            return func.attr not in _CHANGES
        callee = self.source.types.callee(call, scope)
        if isinstance(callee, Scope) and callee.is_function:
            return not self._does(callee, depth)
        return isinstance(callee, External) and callee.leaf in {"gather", "sleep", "wait_for", "shield"}

    def _does(self, function: Scope, depth: int) -> bool:
        return function.is_function and depth < DEPTH and self._works(function, depth + 1)

    def _session(self, node: ast.expr, scope: Scope) -> bool:
        return self.source.types.session(node, scope) is not None

    # -- what a loop sends ------------------------------------------------------------------------

    def _sent(self, loop: Loop, scope: Scope) -> Iterator[tuple[ast.Call | ast.Attribute, Place, bool]]:
        """Yield the queries that each round sends: awaited, or gathered afterwards."""
        together = self._gathered(loop, scope)
        for node in _rounds(loop):
            if isinstance(node, ast.Await):
                inner = node.value
                if isinstance(inner, ast.Attribute) and _is_awaitable_attribute(inner):
                    yield inner, scope.module.place(inner), False
                elif isinstance(inner, ast.Call):
                    asked = self._query(inner, scope, 0)
                    if asked is not None:
                        yield inner, asked, False
            elif together and isinstance(node, ast.Call):
                asked = self._query(node, scope, 0)
                if asked is not None:
                    yield node, asked, True

    def _gathered(self, loop: Loop, scope: Scope) -> bool:
        """Tell whether the coroutines that a loop makes are awaited together: `gather(*[load(x) for x in rows])`."""
        if isinstance(loop, (ast.For, ast.AsyncFor)):
            return any(
                isinstance(node, ast.Call) and _leaf(node.func) in {"append", "create_task"} for node in _rounds(loop)
            ) and any(isinstance(node, ast.Call) and _leaf(node.func) == "gather" for node in scope.nodes())
        for ancestor in scope.module.ancestors(loop):
            if isinstance(ancestor, ast.Call):
                meaning = self.source.names.resolve(ancestor.func, scope)
                return isinstance(meaning, External) and meaning.leaf in {"gather", "as_completed", "wait"}
            if isinstance(ancestor, ast.Assign) and isinstance(ancestor.targets[0], ast.Name):
                return self._is_gathered_later(ancestor.targets[0].id, scope)
            if isinstance(ancestor, ast.stmt):
                return False
        return False

    def _is_gathered_later(self, name: str, scope: Scope) -> bool:
        return any(
            isinstance(node, ast.Call)
            and _leaf(node.func) == "gather"
            and any(isinstance(inner, ast.Name) and inner.id == name for arg in node.args for inner in ast.walk(arg))
            for node in scope.nodes()
        )

    def _query(self, call: ast.Call, scope: Scope, depth: int) -> Place | None:
        """Return where awaiting a call reads from the database, or None if it does not."""
        func = call.func
        if (
            isinstance(func, ast.Attribute)
            and func.attr in _READS
            and self.source.types.session(func.value, scope) is not None
        ):
            return scope.module.place(call) if self._reads(call, scope) else None
        callee = self.source.types.callee(call, scope)
        if isinstance(callee, Scope) and callee.is_function and callee.is_async and depth < DEPTH:
            return self._asked_by(callee, depth)
        return None

    def _asked_by(self, function: Scope, depth: int) -> Place | None:
        """Return the first read that a function sends, itself or through what it awaits."""
        if function not in self._asks:
            self._asks[function] = None  # while it is being found out: a circle asks nothing by itself
            cached = any(_CACHES.search(ast.unparse(decorator)) for decorator in function.decorators)
            self._asks[function] = None if cached else self._first(function, depth)
        return self._asks[function]

    def _first(self, function: Scope, depth: int) -> Place | None:
        for node in function.nodes():
            if isinstance(node, ast.Await) and isinstance(node.value, ast.Call):
                asked = self._query(node.value, function, depth + 1)
                if asked is not None:
                    return asked
        return None

    def _reads(self, call: ast.Call, scope: Scope) -> bool:
        """Tell a SELECT from a write: what is executed is a select, a get, a refresh, or text that begins so."""
        if isinstance(call.func, ast.Attribute) and call.func.attr in {"get", "get_one", "refresh"}:
            return True
        verbs = set(self._verbs(call.args[0], scope, 0)) if call.args else set()
        if verbs & _WRITES or not call.args:
            return False
        return "select" in verbs or (not verbs and _is_used(call, scope))

    def _verbs(self, node: ast.expr, scope: Scope, depth: int) -> Iterator[str]:
        """Yield the verbs of a statement, through the variables and functions that built it."""
        for inner in ast.walk(node):
            if isinstance(inner, ast.Call):
                yield from self._verb(inner, scope, depth)
            elif isinstance(inner, ast.Name) and depth < 3:
                meaning = self.source.names.resolve(inner, scope)
                for binding in meaning.bindings if isinstance(meaning, Assigned) else ():
                    if binding.kind == "value" and binding.value is not None and binding.value is not node:
                        yield from self._verbs(binding.value, scope, depth + 1)

    def _verb(self, call: ast.Call, scope: Scope, depth: int) -> Iterator[str]:
        meaning = self.source.types.reach(call.func, scope)
        if isinstance(meaning, External) and meaning.package in {"sqlalchemy", "sqlmodel"}:
            if meaning.leaf in {"select", *_WRITES}:
                yield meaning.leaf
            elif meaning.leaf == "text" and call.args:
                value = call.args[0]
                words = (
                    value.value.split(None, 1)
                    if isinstance(value, ast.Constant) and isinstance(value.value, str)
                    else []
                )
                yield words[0].lower() if words else ""
        elif isinstance(meaning, Scope) and meaning.is_function and not meaning.is_async and depth < 3:
            for node in meaning.nodes():
                if isinstance(node, ast.Return) and node.value is not None:
                    yield from self._verbs(node.value, meaning, depth + 1)

    # -- what a loop goes over --------------------------------------------------------------------

    def _is_over_rows(self, loop: Loop, scope: Scope) -> bool:
        """Tell a loop over rows from one over chunks, attempts, messages or a few written-out things."""
        target, over = _header(loop)
        if isinstance(loop, ast.AsyncFor) and not self._streams(over, scope):
            return False
        if any(_CHUNKS.search(name.lower()) for name in _names(target)):
            return False
        return not self._is_few(over, scope, 0)

    def _streams(self, over: ast.expr, scope: Scope) -> bool:
        """Tell whether `async for` goes over rows: a streamed result, or a generator of the tree that queries."""
        node = over.value if isinstance(over, ast.Await) else over
        if isinstance(node, ast.Call):
            func = node.func
            if isinstance(func, ast.Attribute) and func.attr in {"stream", "stream_scalars"}:
                return self.source.types.session(func.value, scope) is not None
            callee = self.source.types.callee(node, scope)
            produces = self.source.types.produced(callee) if isinstance(callee, Scope) and callee.is_function else None
            if produces is not None and self.source.types.session_type(produces) is not None:
                return False  # `async for session in get_session()` goes round once
            return isinstance(callee, Scope) and callee.is_function and self._asked_by(callee, 0) is not None
        meaning = self.source.names.resolve(node, scope) if isinstance(node, ast.Name) else None
        value = meaning.value if isinstance(meaning, Assigned) else None
        return value is not None and self._streams(value, scope)

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
            case ast.Subscript(value=base):
                return self._is_few(base, scope, depth + 1) if depth < DEPTH else False
            case ast.Await(value=inner):
                return isinstance(inner, ast.Call) and _leaf(inner.func) in _CHUNKERS
            case _:
                return False

    def _is_few_call(self, func: ast.expr, args: list[ast.expr], scope: Scope, depth: int) -> bool:
        leaf = _leaf(func)
        if leaf == "range":
            return not (len(args) == 1 and isinstance(args[0], ast.Call) and _leaf(args[0].func) == "len")
        if leaf in _CHUNKERS:
            return True
        if leaf in _PASSING and args:
            return any(self._is_few(arg, scope, depth + 1) for arg in args)
        if isinstance(func, ast.Attribute) and leaf in {"items", "keys", "values", "copy"}:
            return self._is_few(func.value, scope, depth + 1)
        meaning = self.source.types.reach(func, scope)
        return isinstance(meaning, External) and meaning.package not in {
            "sqlalchemy",
            "sqlmodel",
            "builtins",
            "collections",
        }

    def _is_few_named(self, over: ast.expr, scope: Scope, depth: int) -> bool:
        meaning = self.source.names.resolve(over, scope)
        if isinstance(meaning, External) or (isinstance(meaning, Scope) and meaning.is_class):
            return True  # the members of an enumeration, a constant of a library
        if isinstance(over, (ast.Name, ast.Attribute)) and _leaf(over).isupper():
            return True
        if not isinstance(meaning, Assigned) or depth > 3:
            return False
        if not meaning.scope.is_function:
            return isinstance(meaning.value, (ast.Tuple, ast.List, ast.Set, ast.Dict))
        value = meaning.value
        if isinstance(value, (ast.List, ast.Dict, ast.Set)):  # a list that is filled later is no handful
            return self._is_few(value, meaning.scope, depth + 1) and not self._grows(meaning)
        return value is not None and value is not over and self._is_few(value, meaning.scope, depth + 1)

    def _grows(self, meaning: Assigned) -> bool:
        return any(
            isinstance(node, ast.Attribute)
            and node.attr in {"append", "extend", "add", "update", "insert"}
            and isinstance(node.value, ast.Name)
            and node.value.id == meaning.name
            for node in meaning.scope.nodes()
        )

    # -- doubts -----------------------------------------------------------------------------------

    def _depends(self, sent: ast.Call | ast.Attribute, loop: Loop) -> bool:
        """Tell whether a query asks something else in each round: it mentions what the loop goes over."""
        target, _ = _header(loop)
        moving = set(_names(target))
        if not isinstance(loop, (ast.For, ast.AsyncFor)):
            moving |= {name for generator in loop.generators for name in _names(generator.target)}
        for _ in range(2):  # what is assigned further up in the round, then what is assigned from that
            for node in _rounds(loop):
                if isinstance(node, (ast.Assign, ast.AnnAssign, ast.NamedExpr, ast.For, ast.AugAssign)):
                    value = node.iter if isinstance(node, ast.For) else node.value
                    if value is not None and value is not sent and moving & set(_names(value)):
                        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                        moving |= {name for each in targets for name in _names(each)}
        return bool(moving & set(_names(sent)))

    def _unsure(self, loop: Loop, sent: ast.AST, function: Scope) -> str | None:
        if isinstance(sent, ast.Attribute):
            return "whether the attribute is loaded already is not settled"
        if self._ends(loop, sent, function):
            return "it ends with the first that fits"
        if self._is_exceptional(loop, sent, function):
            return "it runs only for those that another way did not find"
        return None

    def _ends(self, loop: Loop, sent: ast.AST, function: Scope) -> bool:
        """Tell whether the loop is left by what was found: a search, a retry."""
        if not isinstance(loop, (ast.For, ast.AsyncFor)):
            return False
        inside = {
            id(node)
            for inner in _rounds(loop)
            if isinstance(inner, (ast.For, ast.AsyncFor, ast.While))
            for node in ast.walk(inner)
        }
        return any(
            (isinstance(node, ast.Break) and id(node) not in inside) or isinstance(node, ast.Return)
            for node in _rounds(loop)
            if getattr(node, "lineno", 0) >= getattr(sent, "lineno", 0)
        )

    def _is_exceptional(self, loop: Loop, sent: ast.AST, function: Scope) -> bool:
        """Tell whether a query runs for what is missing from a mapping that was filled before the loop."""
        inner: ast.AST = sent
        for ancestor in function.module.ancestors(sent):
            if ancestor is loop:
                return False
            if isinstance(ancestor, ast.ExceptHandler):
                caught = ast.unparse(ancestor.type) if ancestor.type is not None else ""
                around = function.module.parents.get(ancestor)
                return "KeyError" not in caught or not self._empty(around, function)
            if isinstance(ancestor, ast.If) and inner in ancestor.body and _asks_membership(ancestor.test):
                return not self._empty(ancestor.test, function)
            inner = ancestor
        return False

    def _empty(self, node: ast.AST | None, function: Scope) -> bool:
        """Tell whether the mapping that is looked into starts empty: then each new key is a query."""
        for inner in ast.walk(node) if node is not None else ():
            if isinstance(inner, ast.Name):
                bindings = function.bindings.get(inner.id, ())
                if any(
                    isinstance(binding.value, (ast.Dict, ast.Set)) and not ast.unparse(binding.value).strip("{}")
                    for binding in bindings
                ):
                    return True
        return False


def _is_used(call: ast.Call, scope: Scope) -> bool:
    """Tell whether a result is looked at: that of a statement nobody knows is a read then."""
    parent = scope.module.parents.get(call)
    if isinstance(parent, ast.Await):
        parent = scope.module.parents.get(parent)
    return not isinstance(parent, ast.Expr)


def _asks_membership(test: ast.expr) -> bool:
    """`key not in found`, `found is None`: the query is for those that are missing."""
    return any(
        isinstance(op, (ast.In, ast.NotIn))
        for node in ast.walk(test)
        if isinstance(node, ast.Compare)
        for op in node.ops
    )


def _is_awaitable_attribute(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Attribute) and node.value.attr == "awaitable_attrs"


def _header(loop: Loop) -> tuple[ast.expr, ast.expr]:
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        return loop.target, loop.iter
    return loop.generators[0].target, loop.generators[0].iter


def _rounds(loop: Loop) -> Iterator[ast.AST]:
    """Yield what a loop does in each round; what it goes over is evaluated once."""
    if isinstance(loop, (ast.For, ast.AsyncFor)):
        stack: list[ast.AST] = list(reversed(loop.body))
    else:
        first = loop.generators[0]
        results = [loop.key, loop.value] if isinstance(loop, ast.DictComp) else [loop.elt]
        stack = [*results, *first.ifs, *loop.generators[1:]]
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, (*_FUNCTIONS, ast.While)):
            stack.extend(reversed(list(ast.iter_child_nodes(node))))


def _names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Name):
            yield inner.id


def _leaf(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case _:
            return ""
