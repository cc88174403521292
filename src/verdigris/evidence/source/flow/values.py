"""Abstract values: what an expression may be, as far as loading is concerned."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from verdigris.evidence.source.flow.shapes import Load, Shape

if TYPE_CHECKING:
    from collections.abc import Mapping

    from verdigris.evidence.source.reading.modules import Scope


@dataclass(frozen=True, slots=True)
class Plain:
    """Nothing that holds an entity: a number, a text, None, a validated model."""


@dataclass(frozen=True, slots=True)
class Const:
    """A known constant."""

    value: Any


@dataclass(frozen=True, slots=True)
class Opaque:
    """Something the source does not settle."""

    reason: str = "the source does not settle it"
    silent: bool = False  # it is the business of whoever calls


@dataclass(frozen=True, slots=True)
class Entity:
    """A mapped object: the cell that its query made, and the way of relationships from there."""

    cell: int
    path: tuple[str, ...]
    model: str


@dataclass(frozen=True, slots=True)
class Many:
    """A collection, an iterator or the rows of a result; `held` are the elements of a literal."""

    element: Value
    held: tuple[Value, ...] | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A row of several columns, or a tuple."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping with known keys; `rest` stands for those that are not known."""

    items: tuple[tuple[str, Value], ...]
    rest: Value = field(default_factory=Plain)


@dataclass(frozen=True, slots=True)
class Option:
    """A loader option, or several; `tip` is how deep in the last one's chain the next would be put."""

    loads: tuple[Load, ...]
    doubt: str | None = None
    tip: int = 0

    def beneath(self, more: tuple[Load, ...]) -> Option:
        """Put options beneath the relationship that was named last."""
        return replace(self, loads=(*self.loads[:-1], self.loads[-1].at(self.tip, more)))


@dataclass(frozen=True, slots=True)
class Statement:
    """A SELECT: its columns, and for each that is an entity what its options load.

    An INSERT has no columns until it returns some; `before` are the options that it was given by then, `given` the
    columns that it sets, where they are all settled.
    """

    columns: tuple[Value, ...]  # Klass of a mapped class, or Plain
    shapes: tuple[Shape | None, ...]
    legacy: bool = False  # session.query(...)
    before: Option = Option(())
    given: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a statement; `scalars` says that only the first column is meant."""

    columns: tuple[Value, ...]
    scalars: bool


@dataclass(frozen=True, slots=True)
class Attr:
    """An attribute of a mapped class: `Order.lines`."""

    model: str
    name: str


@dataclass(frozen=True, slots=True)
class Klass:
    """A class of the tree."""

    scope: Scope


@dataclass(frozen=True, slots=True)
class Func:
    """A function of the tree, bound to its object where it is a method."""

    scope: Scope
    bound: Value | None = None
    closure: Closure | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Method:
    """A method of something the library or the language knows: `statement.options`, `rows.append`."""

    owner: Value
    name: str


@dataclass(frozen=True, slots=True)
class Instance:
    """An object of a class of the tree that is not mapped, with the attributes its constructor gave it."""

    scope: Scope
    fields: tuple[tuple[str, Value], ...] = ()

    def get(self, name: str) -> Value | None:
        """Return an attribute."""
        return next((value for key, value in self.fields if key == name), None)


@dataclass(frozen=True, slots=True)
class Outside:
    """A name from outside the tree, or an instance of it (`made`)."""

    dotted: str
    made: bool = False

    @property
    def leaf(self) -> str:
        """Its last name."""
        return self.dotted.rpartition(".")[2]

    @property
    def package(self) -> str:
        """Its first name."""
        return self.dotted.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Either:
    """One of several, depending on conditions."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Awaitables:
    """`obj.awaitable_attrs`: awaiting an attribute of it loads that attribute."""

    entity: Value


@dataclass(frozen=True, slots=True, eq=False)
class Closure:
    """The variables that a nested function sees."""

    names: Mapping[str, Value]


Value: TypeAlias = (
    Plain
    | Const
    | Opaque
    | Entity
    | Many
    | Row
    | Record
    | Statement
    | Result
    | Option
    | Attr
    | Klass
    | Func
    | Method
    | Instance
    | Outside
    | Either
    | Awaitables
)
ARMS = 8  # alternatives beyond these are not told apart


def alternatives(value: Value) -> tuple[Value, ...]:
    """Return what a value may be."""
    return value.values if isinstance(value, Either) else (value,)


def either(values: list[Value]) -> Value:
    """Join what a value may be; None and other plain values add nothing to one that matters."""
    first = values[0] if values else None
    if first is not None and all(value is first for value in values):
        return first
    flat = tuple(dict.fromkeys(arm for value in values for arm in alternatives(value)))
    real = tuple(arm for arm in flat if not isinstance(arm, (Plain, Const)))
    if not real:
        return flat[0] if len(flat) == 1 else Plain()
    statements = [arm for arm in real if isinstance(arm, Statement)]
    if len(statements) == len(real) and len({(arm.columns, arm.before, arm.given) for arm in statements}) == 1:
        return replace(
            statements[0],
            shapes=tuple(_joined(list(shapes)) for shapes in zip(*(arm.shapes for arm in statements), strict=True)),
        )
    if len(real) == 1:
        return real[0]
    return Either(real) if len(real) <= ARMS else Opaque("it depends on too many conditions")


def _joined(shapes: list[Shape | None]) -> Shape | None:
    known = [shape for shape in shapes if shape is not None]
    return Shape.joined(known) if known else None


def element(value: Value) -> Value:
    """Return what iterating over a value gives."""
    match value:
        case Many(element=inner):
            return inner
        case Row(values=values):
            return either(list(values)) if values else Plain()
        case Result(columns=columns, scalars=scalars):
            return row(columns, scalars=scalars)
        case Either(values=values):
            return either([element(arm) for arm in values])
        case Opaque():
            return value
        case Method(owner=Instance() | Opaque() | Outside(), name=name):
            return Opaque(f"what `{name}` holds is not settled", silent=True)
        case _:
            return Plain()


def row(columns: tuple[Value, ...], *, scalars: bool) -> Value:
    """Return one row of a result: the first column's value, or all of them."""
    if scalars:
        return columns[0] if columns else Plain()
    return Row(columns)


def entities(value: Value, depth: int = 0) -> list[Entity]:
    """Return every entity in a value."""
    if depth > 6:
        return []
    match value:
        case Entity():
            return [value]
        case Many(element=inner):
            return entities(inner, depth + 1)
        case Row(values=values) | Either(values=values) | Result(columns=values):
            return [found for inner in values for found in entities(inner, depth + 1)]
        case Record(items=items, rest=rest):
            return [found for _, inner in items for found in entities(inner, depth + 1)] + entities(rest, depth + 1)
        case Instance(fields=fields):
            return [found for _, inner in fields for found in entities(inner, depth + 1)]
        case _:
            return []
