"""How rows are written: loops that add, statements that carry many, chunks and what is done between them."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.reading.evaluate import Argument
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.nodes import inside
from verdigris.evidence.source.statements.lengths import Lengths
from verdigris.evidence.values import Missing, Place, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.reading.calls import Call

_DEFAULT = Missing()
_ADDS = {"add", "merge"}
MERGES = "merge() for each row"  # which asks for the row first
INSERTS = "one INSERT for each row"
_SENDS = {"flush", "commit", "refresh"}
_CHUNKERS = {
    "batched",
    "chunked",
    "chunks",
    "chunk",
    "chunk_list",
    "batch",
    "batches",
    "in_batches",
    "in_chunks",
    "ichunked",
    "grouper",
}
_BULK = {"add_all", "bulk_save_objects", "bulk_insert_mappings"}


@dataclass(frozen=True, slots=True)
class Writer(Subject):
    """A function that inserts; `row_wise` is where it waits for the server once a row."""

    key: str
    place: Place
    function: Scope
    row_wise: Place | None
    how: str = ""


@dataclass(frozen=True, slots=True)
class BulkWrite(Subject):
    """One statement that carries many rows; `how` is values, add_all, execute or bulk.insert."""

    key: str
    place: Place
    how: str
    bounded: bool | None  # None: the source does not settle it
    chunk: Value = _DEFAULT


@dataclass(frozen=True, slots=True)
class ChunkLoop(Subject):
    """A loop over chunks that writes each; `released` is where each chunk's objects leave the session."""

    key: str
    place: Place
    size: Value
    adds: bool
    released: Place | None


class Writes:
    """Writes of one tree."""

    def __init__(self, source: Source) -> None:
        """Read them from an index."""
        self.source = source
        self.lengths = Lengths(source)

    def _on_session(self, node: ast.AST, scope: Scope, methods: set[str]) -> bool:
        return (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in methods
            and self.source.types.sends(node.func.value, scope)
        )

    @cached_property
    def writers(self) -> list[Writer]:
        """Every function of application code that inserts."""
        functions: dict[Scope, None] = {}
        for call in self.source.calls.named(*sorted(_ADDS | _BULK)):
            inside = call.module.role is Role.APPLICATION and call.scope.function is not None
            if inside and call.scope.function and self._on_session(call.node, call.scope, _ADDS | _BULK):
                functions.setdefault(call.scope.function)
        for call, _ in self.source.calls.outside({"sqlalchemy", "sqlmodel", "verdigris"}, "insert"):
            if call.module.role is Role.APPLICATION and call.scope.function is not None:
                functions.setdefault(call.scope.function)
        writers = [self._writer(function) for function in functions]
        callers = {call.scope.function for each in functions for call in self.source.calls.to(each)} - {
            None,
            *functions,
        }
        looping = [self._writer(each) for each in callers if each is not None and each.module.role is Role.APPLICATION]
        return writers + sorted((each for each in looping if each.row_wise is not None), key=lambda each: each.place)

    def _writer(self, function: Scope) -> Writer:
        for loop in function.nodes():
            if isinstance(loop, ast.For) and self._over_rows(loop, function):
                found = self._row_wise(loop, function)
                if found is not None:
                    return Writer(function.key, function.place, function, function.module.place(found[0]), found[1])
        return Writer(function.key, function.place, function, None)

    def _over_rows(self, loop: ast.For, scope: Scope) -> bool:
        """Tell a loop over rows from one over chunks, attempts or a few named things."""
        if self.chunk_size(loop.iter, scope) is not None or isinstance(loop.iter, (ast.Tuple, ast.List, ast.Constant)):
            return False
        if isinstance(loop.iter, ast.Call) and isinstance(loop.iter.func, ast.Name) and loop.iter.func.id == "range":
            return False
        text = ast.unparse(loop.target).lower() + " " + ast.unparse(loop.iter).lower()
        return not any(word in text for word in ("chunk", "batch", "attempt", "retr", "page"))

    def _row_wise(self, loop: ast.For, scope: Scope) -> tuple[ast.AST, str] | None:
        """Return what a loop sends to the server in each round: a flush after an add, an insert, a merge."""
        body = list(inside(loop.body))
        if any(isinstance(node, (ast.Break, ast.Return)) for node in body):
            return None
        added = [node for node in body if self._on_session(node, scope, {"add"})]
        if any(
            isinstance(node, ast.AsyncWith) and "begin_nested" in ast.unparse(node.items[0].context_expr)
            for node in body
        ):
            return None  # one savepoint a row: each row may fail by itself
        for node in body:
            if not (isinstance(node, ast.Await) and isinstance(node.value, ast.Call)) or self._conditional(
                node, loop, scope
            ):
                continue
            if self._on_session(node.value, scope, _SENDS) and any(self._each(node, add, loop, scope) for add in added):
                if _chained(loop, added, node):
                    continue
                return node, f"{getattr(node.value.func, 'attr', '')}() after each add()"
            if self._on_session(node.value, scope, {"merge"}) and _of_the_round(node.value, loop):
                return node, MERGES
            if self._on_session(node.value, scope, {"execute", "exec", "scalar", "scalars"}) and self._inserts(
                node.value, scope
            ):
                return node, INSERTS
            saved = None if _attempted(node, loop, scope) else self._saves(node.value, scope)
            if saved is not None:
                return node, f"{saved}(), which adds and sends one"
        merged = next((node for node in body if self._merges(node, loop, scope)), None)
        return None if merged is None else (merged, MERGES)

    def _merges(self, node: ast.AST, loop: ast.For, scope: Scope) -> bool:
        """Tell whether a loop merges its rows through a session that is not awaited."""
        if not (isinstance(node, ast.Call) and self._on_session(node, scope, {"merge"})):
            return False
        return self.source.types.session(node.func.value, scope) == "sync" and _of_the_round(node, loop)  # type: ignore[attr-defined]  # _on_session saw an attribute call

    def _saves(self, call: ast.Call, scope: Scope) -> str | None:
        """Name the function of the tree that a call reaches, if all it does is to add an object and to send it.

        It may add what belongs to the object in a loop, and choose values with an `if`: it sends once a call.
        """
        function = self.source.types.callee(call, scope)
        if not (isinstance(function, Scope) and function.is_function):
            return None
        body = function.node.body if isinstance(function.node, (ast.FunctionDef, ast.AsyncFunctionDef)) else []
        plain = list(inside(body))
        if any(isinstance(node, (ast.AsyncFor, ast.While, ast.Try, ast.AsyncWith)) for node in plain):
            return None  # it looks or retries: no plain insert
        if any(isinstance(node, (ast.For, ast.If)) and self._decides(node, function) for node in plain):
            return None
        waits = [node.value for node in plain if isinstance(node, ast.Await)]
        if not all(self._on_session(node, function, _SENDS) for node in waits):
            return None  # it asks for something first
        adds = any(self._on_session(node, function, {"add"}) for node in plain)
        sends = any(self._on_session(node, function, _SENDS) for node in plain)
        return function.name if adds and sends else None

    def _decides(self, block: ast.For | ast.If, scope: Scope) -> bool:
        """Tell whether a block of a function settles if, or how often, the function sends."""
        within = list(inside([*block.body, *block.orelse]))
        if any(isinstance(node, (ast.Await, ast.Return, ast.Raise)) for node in within):
            return True
        return isinstance(block, ast.If) and any(self._on_session(node, scope, _ADDS | _SENDS) for node in within)

    def _each(self, sent: ast.AST, add: ast.AST, loop: ast.For, scope: Scope) -> bool:
        """Tell whether what is sent follows each add, not only the end of an inner loop full of them."""
        return set(map(id, _loops(add, loop, scope))) <= set(map(id, _loops(sent, loop, scope)))

    def _conditional(self, node: ast.AST, loop: ast.For, scope: Scope) -> bool:
        """`if i % 1000 == 0: await session.flush()` is a flush for each chunk."""
        for ancestor in scope.module.ancestors(node):
            if ancestor is loop:
                return False
            if isinstance(ancestor, ast.If) and any(
                isinstance(inner, (ast.Mod, ast.GtE)) for inner in ast.walk(ancestor.test)
            ):
                return True
        return False

    def _inserts(self, call: ast.Call, scope: Scope) -> bool:
        first = call.args[0] if len(call.args) == 1 else None
        return first is not None and any(
            isinstance(node, ast.Call) and self._is_insert(node, scope) for node in ast.walk(first)
        )

    def _is_insert(self, node: ast.Call, scope: Scope) -> bool:
        meaning = self.source.names.resolve(node.func, scope)
        return (
            isinstance(meaning, External) and meaning.package in {"sqlalchemy", "sqlmodel"} and meaning.leaf == "insert"
        )

    def chunk_size(self, node: ast.expr, scope: Scope) -> Value | None:
        """Return the size of the chunks that an iterable gives, or None if it does not give chunks."""
        if not isinstance(node, ast.Call):
            return None
        leaf = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if leaf == "range" and len(node.args) == 3:
            return self.source.evaluator.value(Argument(node.args[2], scope))
        if leaf in _CHUNKERS:
            given = node.args[1] if len(node.args) > 1 else next((kw.value for kw in node.keywords), None)
            return Missing() if given is None else self.source.evaluator.value(Argument(given, scope))
        if leaf == "enumerate" and node.args:
            return self.chunk_size(node.args[0], scope)
        return None

    @cached_property
    def bulk(self) -> list[BulkWrite]:
        """Every statement that carries many rows."""
        return [*self._values(), *self._listed(), *self._copied()]

    def _values(self) -> Iterator[BulkWrite]:
        """`insert(Model).values(rows)`: one bind parameter for each value of each row."""
        for call in self.source.calls.named("values"):
            base = call.node.func.value if isinstance(call.node.func, ast.Attribute) else None
            if (
                call.module.role is not Role.APPLICATION
                or not isinstance(base, ast.Call)
                or not self._is_insert(base, call.scope)
            ):
                continue
            given = call.node.args[0] if len(call.node.args) == 1 else None
            if given is not None and self._many(given, call):
                bounded = self._bounded(given, call)
                yield BulkWrite(f"{call.scope.key}:values", call.place, "values", bounded)

    def _many(self, node: ast.expr, call: Call) -> bool:
        """Tell whether an expression is a list of rows, as opposed to one row's mapping."""
        if isinstance(node, (ast.ListComp, ast.GeneratorExp, ast.List)):
            return True
        if isinstance(node, ast.Name):
            found = call.scope.lookup(node.id)
            return found is not None and any(
                isinstance(binding.value, (ast.ListComp, ast.List))
                or _annotated_list(binding.annotation)
                or (
                    binding.kind == "for"
                    and binding.value is not None
                    and self.chunk_size(binding.value, found[0]) is not None
                )
                for binding in found[1]
            )
        return False

    def _listed(self) -> Iterator[BulkWrite]:
        for call in self.source.calls.named(*sorted(_BULK)):
            if (
                call.module.role is Role.APPLICATION
                and call.node.args
                and self._on_session(call.node, call.scope, _BULK)
            ):
                yield BulkWrite(
                    f"{call.scope.key}:add_all", call.place, "add_all", self._bounded(call.node.args[0], call)
                )
        for call in self.source.calls.named("execute"):
            given = call.node.args
            if call.module.role is not Role.APPLICATION or len(given) < 2:
                continue
            inserts = any(
                isinstance(node, ast.Call) and self._is_insert(node, call.scope) for node in ast.walk(given[0])
            )
            if inserts and self._on_session(call.node, call.scope, {"execute"}):
                yield BulkWrite(f"{call.scope.key}:execute", call.place, "execute", self._bounded(given[1], call))

    def _copied(self) -> Iterator[BulkWrite]:
        for call, meaning in self.source.calls.outside({"verdigris"}, "insert"):
            if call.module.role is Role.APPLICATION and meaning.dotted.startswith("verdigris.bulk"):
                chunk = next((kw.value for kw in call.node.keywords if kw.arg == "chunk"), None)
                worth = Missing() if chunk is None else self.source.evaluator.value(Argument(chunk, call.scope))
                yield BulkWrite(f"{call.scope.key}:bulk.insert", call.place, "bulk.insert", bounded=True, chunk=worth)

    def _bounded(self, node: ast.expr, call: Call) -> bool | None:
        """Tell whether a list is a chunk of a loop around the call, or bounded by what it is made of."""
        names = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
        for ancestor in call.module.ancestors(call.node):
            if isinstance(ancestor, (ast.For, ast.AsyncFor)) and (
                self.chunk_size(ancestor.iter, call.scope) is not None
                or names & {inner.id for inner in ast.walk(ancestor.target) if isinstance(inner, ast.Name)}
            ):
                return True
            if isinstance(ancestor, (ast.FunctionDef, ast.AsyncFunctionDef)):
                break
        if any(word in name.lower() for name in names for word in ("chunk", "batch")):
            return True
        return self.lengths.bounded(node, call.scope)

    @cached_property
    def chunk_loops(self) -> list[ChunkLoop]:
        """Every loop over chunks that writes."""
        found = []
        for function in {writer.function: None for writer in self.writers}:
            for loop in function.nodes():
                if isinstance(loop, ast.For):
                    size = self.chunk_size(loop.iter, function)
                    if size is not None and self._writes(loop, function):
                        found.append(self._chunk_loop(loop, function, size))
        return found

    def _writes(self, loop: ast.For, scope: Scope) -> bool:
        inserts = any(isinstance(node, ast.Call) and self._is_insert(node, scope) for node in ast.walk(loop))
        return inserts or self._adds_many(loop, scope)

    def _adds_many(self, loop: ast.For, scope: Scope) -> bool:
        """Tell whether a round adds many objects; one that makes one object of a whole chunk does not."""
        return any(
            self._on_session(node, scope, _BULK) or (self._on_session(node, scope, _ADDS) and _loops(node, loop, scope))
            for node in ast.walk(loop)
        )

    def _chunk_loop(self, loop: ast.For, scope: Scope, size: Value) -> ChunkLoop:
        adds = self._adds_many(loop, scope)
        released = next(
            (node for node in ast.walk(loop) if self._on_session(node, scope, {"flush", "commit", "expunge_all"})), None
        )
        place = scope.module.place(released) if released is not None else None
        return ChunkLoop(f"{scope.key}:chunks", scope.module.place(loop.iter), size, adds, place)


def _attempted(node: ast.AST, loop: ast.For, scope: Scope) -> bool:
    """Tell whether a row may fail by itself: a `try` inside the loop."""
    for ancestor in scope.module.ancestors(node):
        if ancestor is loop:
            return False
        if isinstance(ancestor, ast.Try):
            return True
    return False


def _of_the_round(call: ast.Call, loop: ast.For) -> bool:
    """Tell whether a call is given a row of its round: `merge(order)` in a loop over lines is one order each time."""
    carried = {node.id for node in ast.walk(loop.target) if isinstance(node, ast.Name)}
    bound = [node for node in inside(loop.body) if isinstance(node, (ast.Assign, ast.For))]
    for _ in range(3):
        for node in bound:
            value, targets = (node.iter, [node.target]) if isinstance(node, ast.For) else (node.value, node.targets)
            if {inner.id for inner in ast.walk(value) if isinstance(inner, ast.Name)} & carried:
                carried |= {name for target in targets for name in _kept_in(target)}
    given = [inner for argument in call.args for inner in ast.walk(argument)]
    return not call.args or any(isinstance(inner, ast.Name) and inner.id in carried for inner in given)


def _loops(node: ast.AST, outermost: ast.For, scope: Scope) -> list[ast.AST]:
    """Return the loops around a node inside another loop."""
    found: list[ast.AST] = []
    for ancestor in scope.module.ancestors(node):
        if ancestor is outermost:
            break
        if isinstance(ancestor, (ast.For, ast.AsyncFor, ast.While)):
            found.append(ancestor)
    return found


def _chained(loop: ast.For, added: list[ast.AST], sent: ast.AST) -> bool:
    """Tell whether a row needs what the flush gave the row before it: its key as the next one's parent."""
    given = [node.args[0] for node in added if isinstance(node, ast.Call) and node.args]
    carried = {node.id for node in given if isinstance(node, ast.Name)}
    assigned = [node for node in ast.walk(loop) if isinstance(node, ast.Assign)]
    objects = set(carried)
    for _ in range(2):
        for statement in assigned:
            if {node.id for node in ast.walk(statement.value) if isinstance(node, ast.Name)} & carried:
                carried |= {name for target in statement.targets for name in _kept_in(target)}
    line = getattr(sent, "lineno", 0)
    targets = {inner for statement in assigned for target in statement.targets for inner in ast.walk(target)}
    return any(
        isinstance(node, ast.Name) and node.id in carried - objects and node.lineno < line and node not in targets
        for statement in loop.body
        for node in ast.walk(statement)
    )


def _kept_in(target: ast.expr) -> set[str]:
    """Return the names that an assignment to this keeps something in: `ids[name] = x` keeps it in `ids`."""
    while isinstance(target, ast.Subscript):
        target = target.value
    parts = target.elts if isinstance(target, (ast.Tuple, ast.List)) else [target]
    return {part.id for part in parts if isinstance(part, ast.Name)}


def _annotated_list(annotation: ast.expr | None) -> bool:
    return isinstance(annotation, ast.Subscript) and getattr(annotation.value, "id", "") in {"list", "List", "Sequence"}
