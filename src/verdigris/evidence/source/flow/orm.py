"""SQLAlchemy as the interpreter knows it: statements, loader options, constructors of mapped classes."""

from __future__ import annotations

import ast
from dataclasses import replace
from typing import TYPE_CHECKING

from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.source.flow.nulls import Nulls
from verdigris.evidence.source.flow.plan import planned
from verdigris.evidence.source.flow.shapes import Link, Load, Shape
from verdigris.evidence.source.flow.values import (
    Attr,
    Const,
    Entity,
    Klass,
    Many,
    Opaque,
    Option,
    Plain,
    Result,
    Row,
    Statement,
    Value,
    alternatives,
    element,
)
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.values import Missing

if TYPE_CHECKING:
    from verdigris.evidence.source.fastapi.schemas import Type
    from verdigris.evidence.source.flow.frames import Call
    from verdigris.evidence.source.flow.machine import Machine
    from verdigris.evidence.source.models.relations import Relation

_HOW = {
    "joinedload": "loaded",
    "selectinload": "loaded",
    "subqueryload": "loaded",
    "immediateload": "loaded",
    "contains_eager": "loaded",
    "lazyload": "unloaded",
    "raiseload": "unloaded",
    "noload": "empty",
    "defaultload": "same",
}
_COLUMNS = {
    "load_only",
    "defer",
    "undefer",
    "undefer_group",
    "with_expression",
    "selectin_polymorphic",
    "with_loader_criteria",
}
_ROWS = {"all", "first", "one", "one_or_none", "scalar", "yield_per"}
_ELSEWHERE = {
    "set_committed_value",
    "create_async_engine",
    "async_sessionmaker",
    "sessionmaker",
    "async_scoped_session",
    "inspect",
}
_LOSING = {
    "with_only_columns",
    "subquery",
    "cte",
    "scalar_subquery",
    "exists",
    "alias",
    "lateral",
    "union",
    "union_all",
    "as_scalar",
    "compile",
}


class Orm:
    """Calls of SQLAlchemy on behalf of one machine."""

    def __init__(self, machine: Machine) -> None:
        """Share the machine's state."""
        self.machine = machine
        self.source = machine.source
        self.nulls = Nulls(self.source)

    # -- functions --------------------------------------------------------------------------------

    def function(self, dotted: str, leaf: str, call: Call) -> Value | None:
        """Return what one of SQLAlchemy's (or the library's) functions gives; None for those of no interest here."""
        if leaf == "select":
            return self.select(call.arguments, call)
        if leaf in _HOW:
            return self._option(leaf, call, Option(()))
        if leaf in _COLUMNS:
            return Option(())
        if leaf == "Load":
            return Option(())
        if leaf in {"aliased", "with_polymorphic", "of_type"} and call.arguments:
            return (
                call.arguments[0] if isinstance(call.arguments[0], Klass) else Opaque("an alias of something unknown")
            )
        if dotted.startswith("verdigris") and leaf == "load":
            return self.load(call.get(0, "entity"), call, "verdigris.load")
        if leaf in {"insert", "update", "delete"} and dotted.startswith("sqlalchemy"):
            return Statement((), (), given=frozenset() if leaf == "insert" else None)
        # the rest builds expressions: set_committed_value() and the engine's functions are not its business
        return Plain() if dotted.startswith("sqlalchemy.") and leaf[:1].islower() and leaf not in _ELSEWHERE else None

    def select(self, columns: list[Value], call: Call, *, legacy: bool = False) -> Value:
        """Return a statement that selects these columns."""
        flat: list[Value] = []
        for column in columns:
            flat += list(column.held) if isinstance(column, Many) and column.held is not None else [column]
        if any(isinstance(column, Many) for column in flat):
            return Opaque("what is selected is not settled")
        place = call.frame.scope.module.place(call.node)
        shapes: list[Shape | None] = []
        kept: list[Value] = []
        for column in flat:
            model = self.source.models.of(column.scope) if isinstance(column, Klass) else None
            kept.append(column if model is not None else self._column(column))
            shapes.append(Shape(model.key, origin=place) if model is not None else None)
        return Statement(tuple(kept), tuple(shapes), legacy)

    def _column(self, column: Value) -> Value:
        if isinstance(column, Attr) and self.source.relations.of(column.model, column.name) is not None:
            return Opaque("a relationship is selected")
        return column if isinstance(column, Opaque) else Plain()

    # -- loader options ---------------------------------------------------------------------------

    def _option(self, name: str, call: Call, before: Option) -> Option:
        """Return `joinedload(A.b, ...)`, put at the end of a chain where there is one."""
        chain: list[Load] = []
        for index, argument in enumerate(call.arguments):
            narrowed = self._narrowed(call, index)
            for arm in alternatives(argument)[:1]:
                if isinstance(arm, Attr):
                    chain.append(Load(arm.model, arm.name, _HOW[name]))
                elif narrowed is not None:
                    chain.append(Load(narrowed.owner, narrowed.name, _HOW[name]))
                elif isinstance(arm, Const) and isinstance(arm.value, str):
                    chain += [Load(None, part, _HOW[name]) for part in arm.value.split(".")]
                else:
                    told = f"which relationship `{call.frame.scope.module.text(call.node)}` names is not settled"
                    return replace(before, doubt=before.doubt or told)
            if isinstance(argument, Const) is False and len(alternatives(argument)) > 1:
                return replace(before, doubt=before.doubt or "a loader option depends on a condition")
        loads: tuple[Load, ...] = ()
        for load in reversed(chain):
            loads = (replace(load, below=loads),)
        if not before.loads:
            return Option(loads, before.doubt, max(len(chain) - 1, 0))
        return replace(before.beneath(loads), tip=before.tip + len(chain))

    def _narrowed(self, call: Call, index: int) -> Relation | None:
        """Return the relationship of `Order.lines.and_(...)`: whoever narrows it has loaded what the option names."""
        given = call.node.args[index] if index < len(call.node.args) else None
        match given:
            case ast.Call(func=ast.Attribute(attr="and_")):
                return self.source.statements.relation(given, call.frame.scope)
            case _:
                return None

    def option_method(self, owner: Option, name: str, call: Call) -> Value:
        """Return an option with more behind it."""
        if name in _HOW:
            return self._option(name, call, owner)
        if name == "options":
            more = self.collect(call.arguments)
            made = owner.beneath(more.loads) if owner.loads else more
            return replace(made, doubt=owner.doubt or more.doubt)
        return owner

    def collect(self, arguments: list[Value]) -> Option:
        """Return all options among arguments as one; what is not settled leaves a doubt."""
        loads: list[Load] = []
        doubt: str | None = None
        for argument in arguments:
            arms = alternatives(argument)
            if len(arms) > 1:
                doubt = "a loader option depends on a condition"
            for arm in arms:
                match arm:
                    case Option(loads=more, doubt=reason):
                        loads += more
                        doubt = doubt or reason
                    case Many(held=held) if held is not None:
                        inner = self.collect(list(held))
                        loads += inner.loads
                        doubt = doubt or inner.doubt
                    case Row(values=values):
                        inner = self.collect(list(values))
                        loads += inner.loads
                        doubt = doubt or inner.doubt
                    case Plain() | Const():
                        pass
                    case Many(element=Option() as each):
                        loads += each.loads
                        doubt = "which loader options are in a list is not settled"
                    case Many(element=Plain()):
                        pass
                    case _:
                        doubt = doubt or getattr(arm, "reason", "a loader option is not settled by the source")
        return Option(tuple(loads), doubt)

    def load(self, entity: Value | None, call: Call, symbol: str) -> Option:
        """`load(Order, OrderOut)`: the same need, computed here, on the promise of one of the library's names."""
        model = self.source.models.of(entity.scope) if isinstance(entity, Klass) else None
        made = self.schema(call)
        promise = guaranteed(symbol, "needed")
        if model is None or made is None or promise is None:
            return Option((), doubt=f"what {symbol.rpartition('.')[2]}() is given is not settled")
        loads = planned(self.source, model.key, made, promise.reason)
        return (
            Option((*loads, Load(model.key, "*", "unloaded")))
            if loads is not None
            else Option((), doubt="the response model is not settled")
        )

    def schema(self, call: Call) -> Type | None:
        """Return the response model that a call is given in the second place or as `schema`."""
        second = call.node.args[1] if len(call.node.args) > 1 else None
        given = next((keyword.value for keyword in call.node.keywords if keyword.arg == "schema"), second)
        return None if given is None else self.source.schemas.type(given, call.frame.scope)

    # -- statements -------------------------------------------------------------------------------

    def statement_method(self, statement: Statement, name: str, call: Call) -> Value:
        """Return a statement with more said of it."""
        if name == "options":
            option = self.collect(call.arguments)
            return self._with_options(statement, option)
        if statement.legacy and name in _ROWS:
            result = self.executed(statement, call)
            return Many(element(result)) if name in {"all", "yield_per"} else element(result)
        if statement.legacy and name == "get":
            return element(self.executed(statement, call))
        if name == "add_columns":
            more = self.select(call.arguments, call)
            if isinstance(more, Statement):
                return replace(
                    statement, columns=(*statement.columns, *more.columns), shapes=(*statement.shapes, *more.shapes)
                )
            return Opaque("what is selected is not settled")
        if name in {"with_only_columns", "returning"}:
            made = self.select(call.arguments, call)
            if not isinstance(made, Statement):
                return made
            shapes = tuple(self.nulls.left_out(shape, statement.given) for shape in made.shapes)
            return self._with_options(replace(made, shapes=shapes, given=statement.given), statement.before)
        if statement.given is not None:
            return self.nulls.method(statement, name, call)
        if name in {"where", "filter"}:
            expressions = self.machine.expressions
            return self.nulls.asked_for(statement, call, lambda node: expressions.value(node, call.frame))
        return Plain() if name in _LOSING else statement

    def _with_options(self, statement: Statement, option: Option) -> Statement:
        if not statement.columns:  # of an insert(): they hold for what it returns, which may be said later
            return replace(statement, before=self.collect([statement.before, option]))
        shapes: list[Shape | None] = []
        for index, shape in enumerate(statement.shapes):
            if shape is None:
                shapes.append(None)
                continue
            loads = tuple(
                load for load in option.loads if self._concerns(load, shape, first=index == 0, statement=statement)
            )
            made = shape.loaded(loads, self.machine.heap.targets(shape.model, loads))
            shapes.append(made if option.doubt is None else made.in_doubt(option.doubt))
        return replace(statement, shapes=tuple(shapes))

    def _concerns(self, load: Load, shape: Shape, *, first: bool, statement: Statement) -> bool:
        """Tell whether an option is about this entity of the statement."""
        if load.owner is None:
            return first
        if load.owner == shape.model:
            return True
        others = {other.model for other in statement.shapes if other is not None}
        return load.owner not in others and self.source.relations.of(shape.model, load.name) is not None

    def executed(self, statement: Statement, call: Call, *, options: Option | None = None) -> Result:
        """Return the result of a statement: new objects."""
        if options is not None:
            statement = self._with_options(statement, options)
        columns: list[Value] = []
        for column, shape in zip(statement.columns, statement.shapes, strict=True):
            if shape is None:
                columns.append(column)
                continue
            number = self.machine.cell()
            sync = (statement.legacy or not call.awaited) and self.session(call) != "async"
            place = call.frame.scope.module.place(call.node)
            parameters = len(call.arguments) > 1 or "params" in call.keywords  # which may set more
            self.machine.heap.cells[number] = replace(
                shape,
                sync=sync or self.machine.greenlet > 0,
                origin=shape.origin or place,
                unset=frozenset() if parameters else shape.unset,
            )
            columns.append(Entity(number, (), shape.model))
        return Result(tuple(columns), scalars=False)

    def session(self, call: Call) -> str | None:
        """Tell whether a method is an asynchronous or a synchronous session's."""
        node = call.node.func
        return self.source.types.session(node.value, call.frame.scope) if isinstance(node, ast.Attribute) else None

    # -- constructors -----------------------------------------------------------------------------

    def construct(self, model: str, call: Call) -> Value:
        """Return a new object: it has the relationships its constructor was given."""
        number = self.machine.cell()
        entity = Entity(number, (), model)
        found = self.source.relations.models[model]
        own = self.source.names.class_attribute(found.scope, "__init__")
        opened = "its own constructor may set relationships" if isinstance(own, Scope) else None
        if model in self.machine.reads.memory.listened:
            opened = "an event listener or a validator may set relationships"
        if call.opened and opened is None:
            opened = self._open_reason(call)
        given = frozenset(name for name in call.keywords if self.source.relations.of(model, name) is None)
        if any(keyword.arg is None for keyword in call.node.keywords):
            given |= {"*"}
        place = call.frame.scope.module.place(call.node)
        self.machine.heap.cells[number] = Shape(model, {}, place, opened=opened, fresh=True, made=True, given=given)
        for name, relation in self.source.relations.all_of(model).items():
            if name in call.keywords:
                self.machine.assignments.set_relation(entity, name, call.keywords[name], call.node, call.frame)
            elif relation.declared is not None and not all(
                isinstance(relation.declared.option(option), Missing) for option in ("default", "default_factory")
            ):
                self.machine.heap.mark(entity, name, Link("loaded"))
        return entity

    def copied(self, model: str, call: Call) -> Value:
        """`Hero.model_validate(data)` of a table model: a new object with columns only."""
        number = self.machine.cell()
        place = call.frame.scope.module.place(call.node)
        self.machine.heap.cells[number] = Shape(model, {}, place, fresh=True, made=True, given=frozenset({"*"}))
        return Entity(number, (), model)

    def _open_reason(self, call: Call) -> str | None:
        """`**data.model_dump()` gives columns: a relationship would refuse the mappings in it."""
        for keyword in call.node.keywords:
            if keyword.arg is None:
                inner = keyword.value
                dumped = (
                    isinstance(inner, ast.Call)
                    and isinstance(inner.func, ast.Attribute)
                    and inner.func.attr in {"model_dump", "dict"}
                )
                if not dumped:
                    return f"`**{call.frame.scope.module.text(inner)}` may set relationships"
        return None
