"""Functions of Python, and of the libraries around, that hand on what they are given."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.flow.values import (
    Const,
    Entity,
    Func,
    Many,
    Opaque,
    Outside,
    Plain,
    Record,
    Row,
    Value,
    alternatives,
    either,
    element,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.machine import Machine

_PACKAGES = {"builtins", "functools", "itertools", "operator", "sqlalchemy", "pydantic", "fastapi", "copy"}
_PASSING = {
    "list", "sorted", "set", "tuple", "reversed", "iter", "frozenset", "deque", "filter", "chain", "islice", "cast",
    "copy", "deepcopy",
}  # fmt: skip


class Standard:
    """Calls of functions that are known by name, for one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine

    def call(self, package: str, leaf: str, call: Call) -> Value | None:
        """Return what a function known here gives; None for any other."""
        if package in _PACKAGES:
            known: Callable[[Call], Value] | None = getattr(self, f"_do_{leaf.lower()}", None)
            if known is not None:
                return known(call)
        return self._passed(leaf, call) if leaf in _PASSING and call.arguments else None

    # -- what takes a collection and gives one --------------------------------------------------------

    def _passed(self, leaf: str, call: Call) -> Value:
        first = call.arguments[-1] if leaf in {"filter", "cast"} else call.arguments[0]
        if leaf == "cast":
            return first
        key = call.keywords.get("key")
        if isinstance(key, Func):
            self.machine.call(key, [element(first)], {})
        if leaf == "filter" and isinstance(call.arguments[0], Func):
            self.machine.call(call.arguments[0], [element(first)], {})
        if leaf in {"copy", "deepcopy"}:
            return first
        return either([Many(element(arm), arm.held if isinstance(arm, Many) else None) for arm in alternatives(first)])

    def _do_enumerate(self, call: Call) -> Value:
        return Many(Row((Plain(), element(call.arguments[0])))) if call.arguments else Plain()

    def _do_zip(self, call: Call) -> Value:
        return Many(Row(tuple(element(arg) for arg in call.arguments)))

    def _do_map(self, call: Call) -> Value:
        if len(call.arguments) < 2:
            return Plain()
        return Many(self.machine.library.call(call.arguments[0], call.of([element(call.arguments[1])])))

    def _do_next(self, call: Call) -> Value:
        return element(call.arguments[0]) if call.arguments else Plain()

    def _do_anext(self, call: Call) -> Value:
        return self._do_next(call)

    def _do_max(self, call: Call) -> Value:
        key = call.keywords.get("key")
        values = call.arguments
        each = element(values[0]) if len(values) == 1 else either(values) if values else Plain()
        if isinstance(key, Func):
            self.machine.call(key, [each], {})
        return each

    def _do_min(self, call: Call) -> Value:
        return self._do_max(call)

    def _do_dict(self, call: Call) -> Value:
        first = call.get(0)
        if isinstance(first, Record):
            return Record((*first.items, *call.keywords.items()), first.rest)
        inner = element(first) if first is not None else Plain()
        rest = inner.values[1] if isinstance(inner, Row) and len(inner.values) == 2 else Plain()
        return Record(tuple(call.keywords.items()), rest)

    def _do_groupby(self, call: Call) -> Value:
        key = call.keywords.get("key") or call.get(1)
        each = element(call.arguments[0]) if call.arguments else Plain()
        if isinstance(key, Func):
            self.machine.call(key, [each], {})
        return Many(Row((Plain(), Many(each))))

    # -- attributes by name ---------------------------------------------------------------------------

    def _do_getattr(self, call: Call) -> Value:
        owner, name = call.get(0), call.get(1)
        if owner is None or not (isinstance(name, Const) and isinstance(name.value, str)):
            return Opaque("an attribute is chosen when the code runs")
        prepared = len(call.arguments) > 2
        call.frame.guarded += prepared
        try:
            return either(
                [self.machine.attributes.of(arm, name.value, call.node, call.frame) for arm in alternatives(owner)]
            )
        finally:
            call.frame.guarded -= prepared

    def _do_hasattr(self, call: Call) -> Value:
        return Plain()

    def _do_setattr(self, call: Call) -> Value:
        owner, name = call.get(0), call.get(1)
        for arm in alternatives(owner) if owner is not None else ():
            if isinstance(arm, Entity):
                if isinstance(name, Const):
                    self.machine.assignments.set_relation(
                        arm, str(name.value), call.get(2) or Plain(), call.node, call.frame
                    )
                else:
                    where, shape = self.machine.heap.locate(arm)
                    if shape.made:
                        self.machine.heap.set(where, replace(shape, given=shape.given | {"*"}))
        return Plain()

    def _do_set_committed_value(self, call: Call) -> Value:
        return self._do_setattr(call)

    # -- values and wrappers --------------------------------------------------------------------------

    def _do_partial(self, call: Call) -> Value:
        return call.arguments[0] if call.arguments else Plain()

    def _do_typeadapter(self, call: Call) -> Value:
        return Outside("pydantic.TypeAdapter", made=True)

    def _do_jsonable_encoder(self, call: Call) -> Value:
        return Plain()
