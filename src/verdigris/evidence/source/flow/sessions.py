"""Sessions as the interpreter knows them: what their methods run, load, flush and forget."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.source.fastapi.schemas import ListType
from verdigris.evidence.source.flow.shapes import Link, Shape
from verdigris.evidence.source.flow.values import (
    Attr,
    Const,
    Entity,
    Func,
    Klass,
    Many,
    Opaque,
    Outside,
    Plain,
    Result,
    Row,
    Statement,
    Value,
    alternatives,
    either,
    element,
    entities,
)

if TYPE_CHECKING:
    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.machine import Machine
    from verdigris.evidence.source.flow.orm import Orm

_EXECUTING = {"execute", "exec", "scalars", "scalar", "stream", "stream_scalars", "scalar_one", "scalar_one_or_none"}
_READS = {"json", "json_stream", "json_read", "fetch"}


class Sessions:
    """Calls of sessions, and of a `Database`, on behalf of one machine."""

    def __init__(self, machine: Machine, orm: Orm) -> None:
        """Share the machine's state, and what is known of statements."""
        self.machine = machine
        self.source = machine.source
        self.orm = orm

    def method(self, owner: Value, name: str, call: Call) -> Value | None:
        """Return what a session's method gives, recognised by what it is given; None if it is no session's."""
        first = call.get(0, "statement", "entity", "instance", "instances")
        if name in _EXECUTING and first is not None:
            arms = [arm for arm in alternatives(first) if isinstance(arm, Statement)]
            if not arms:
                return Opaque("what is executed is not settled") if isinstance(first, Opaque) else Plain()
            return either([self._answer(name, self.orm.executed(arm, call)) for arm in arms])
        if name in {"get", "get_one"} and isinstance(first, Klass) and call.get(1, "ident") is not None:
            return self._get(first, call)
        if name == "query":
            return self.orm.select(call.arguments, call, legacy=True)
        if name == "refresh" and first is not None:
            return self._refresh(first, call)
        if name in {"flush", "commit"}:
            self.machine.flush()
            return Plain()
        if name == "merge" and first is not None:
            return either([self._merged(arm) for arm in alternatives(first)])
        if name == "expire" and first is not None:
            for entity in entities(first):
                where, shape = self.machine.heap.locate(entity)
                self.machine.heap.set(where, replace(shape, opened="it was expired"))
            return Plain()
        if name in {"add", "add_all"} and first is not None:
            for entity in entities(first):
                self.machine.heap.add(entity, sync=self.orm.session(call) == "sync")
            return Plain()
        if name in {"delete", "expunge", "expunge_all", "rollback", "close", "begin", "begin_nested"}:
            return Plain()
        if name in {"run_sync", "run"} and isinstance(first, Func):
            self.machine.greenlet += 1
            made = self.machine.call(first, [owner, *call.arguments[1:]], call.keywords)
            self.machine.greenlet -= 1
            return made
        return self._unit(owner, name, call)

    def _json(self, name: str, call: Call) -> Value:
        """`db.json(select(Order), OrderOut)` answers with what the model names, `db.fetch()` gives Pydantic's own."""
        statement = call.get(0, "statement")
        if name in {"fetch", "json_read"}:
            return Plain()
        if not isinstance(statement, Statement) or len(statement.columns) != 1:
            return Opaque(f"what {name}() selects is not settled")
        shape = statement.shapes[0]
        if shape is None or shape.links or shape.opened or shape.hidden:
            return Opaque(f"the statement of {name}() has loader options of its own")
        option = self.orm.load(statement.columns[0], call, "verdigris.Database.json")
        if option.doubt is None and len(option.loads) == 1:
            return Plain()  # a flat model, or a page around the rows: no relationship is read
        row = self.orm.executed(statement, call, options=option).columns[0]
        return Many(row) if isinstance(self.orm.schema(call), ListType) else row

    def _unit(self, owner: Value, name: str, call: Call) -> Value | None:
        """`db.transaction(fn)` and `db.gather(fn, ...)` give each function a session."""
        if not (isinstance(owner, Outside) and owner.package == "verdigris"):
            return None
        if name in _READS and owner.dotted.endswith(".Database"):
            return self._json(name, call)
        if name not in {"transaction", "gather"}:
            return None
        session = Outside("sqlalchemy.ext.asyncio.AsyncSession", made=True)
        made = [
            self.machine.call(arg, [session], {}) if isinstance(arg, Func) else Opaque("a unit is not settled")
            for arg in call.arguments
        ]
        return Row(tuple(made)) if name == "gather" else made[0] if made else Plain()

    def _answer(self, name: str, result: Result) -> Value:
        if name in {"scalars", "stream_scalars"}:
            return Result(result.columns[:1], scalars=True)
        if name in {"scalar", "scalar_one", "scalar_one_or_none"}:
            return result.columns[0] if result.columns else Plain()
        if name == "exec" and len(result.columns) == 1:
            return Result(result.columns, scalars=True)
        return result

    def _get(self, klass: Klass, call: Call) -> Value:
        statement = self.orm.select([klass], call)
        given = call.get(-1, "options")
        if not isinstance(statement, Statement):
            return statement
        return element(
            Result(
                self.orm.executed(
                    statement, call, options=self.orm.collect([given]) if given is not None else None
                ).columns,
                scalars=True,
            )
        )

    def _refresh(self, first: Value, call: Call) -> Value:
        names = call.get(1, "attribute_names")
        for entity in entities(first):
            where, shape = self.machine.heap.locate(entity)
            shape = replace(shape, fresh=False, added=True, sync=shape.sync or self.orm.session(call) == "sync")
            self.machine.heap.set(where, shape)
            if names is None:
                self._refresh_mapped(where, shape)
                continue
            for wanted in self._texts(names):
                if wanted is None:
                    self.machine.heap.set(
                        where,
                        replace(
                            self.machine.heap.locate(where)[1], opened="which attributes are refreshed is not settled"
                        ),
                    )
                elif self.source.relations.of(shape.model, wanted) is not None:
                    self.machine.heap.mark(where, wanted, Link("loaded"))
        return Plain()

    def _refresh_mapped(self, entity: Entity, shape: Shape) -> None:
        """A refresh without names loads what the mapping loads eagerly."""
        for name, relation in self.source.relations.all_of(shape.model).items():
            if relation.eager and shape.made:
                self.machine.heap.mark(entity, name, Link("loaded"))

    def _texts(self, names: Value) -> list[str | None]:
        held = names.held if isinstance(names, Many) else names.values if isinstance(names, Row) else None
        values = held if held is not None else (names,)
        texts: list[str | None] = []
        for value in values:
            if isinstance(value, Attr):
                texts.append(value.name)
            else:
                texts.append(str(value.value) if isinstance(value, Const) and value.value is not None else None)
        return texts if names != Const(None) else []

    def _merged(self, value: Value) -> Value:
        if not isinstance(value, Entity):
            return value
        number = self.machine.cell()
        self.machine.heap.cells[number] = Shape(value.model, opened="merge() copies what it was given")
        return Entity(number, (), value.model)
