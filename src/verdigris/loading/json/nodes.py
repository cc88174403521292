"""The shape of an answer as a value: objects, their members, and where each comes from. No select() is known yet."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from verdigris.loading.naming import dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy.orm import Mapper, RelationshipProperty

    Schema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Constant:
    """The same text for every row: a default."""

    text: str

    def lines(self, label: str) -> Iterator[str]:
        yield f"{label}: always {self.text}"


@dataclass(frozen=True, slots=True)
class Value:
    """An attribute of the row that SQL can print: a column, a column property, a hybrid."""

    owner: str
    name: str
    schema: Schema
    config: Schema
    nullable: bool

    def lines(self, label: str) -> Iterator[str]:
        yield f"{label}: {self.owner}.{self.name}"


@dataclass(frozen=True, slots=True)
class One:
    """What a single relationship leads to, printed there."""

    prop: RelationshipProperty[Any]
    node: Node
    nullable: bool
    #: What is printed where the other side does not exist, if that is not null (an AliasPath with a default).
    missing: str | None = None

    def lines(self, label: str) -> Iterator[str]:
        yield from self.node.lines(f"{label}: {dotted(self.prop)}")


@dataclass(frozen=True, slots=True)
class Many:
    """A list of what a collection holds, each printed there, in the order that the relationship says."""

    prop: RelationshipProperty[Any]
    node: Node
    nullable: bool = False

    def lines(self, label: str) -> Iterator[str]:
        yield from self.node.lines(f"{label}: each of {dotted(self.prop)}")


@dataclass(frozen=True, slots=True)
class End:
    """As far as models that contain themselves are followed: empty, or this answer is read by `load()`."""

    prop: RelationshipProperty[Any]
    nullable: bool = True

    def lines(self, label: str) -> Iterator[str]:
        yield f"{label}: {dotted(self.prop)}, which must be empty so deep, else the answer is read by load()"


@dataclass(frozen=True, slots=True)
class Case:
    """One way a row may be: by the class it is loaded as, or by the value of a discriminator."""

    values: tuple[Any, ...]
    node: Node


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several nodes, by an attribute of the row."""

    mapper: Mapper[Any]
    discriminator: str
    cases: tuple[Case, ...]
    #: What is printed of a row that is none of them; None: Pydantic would refuse it.
    otherwise: Constant | None
    nullable: bool

    def lines(self, label: str) -> Iterator[str]:
        for case in self.cases:
            yield from case.node.lines(f"{label} ({self.discriminator} = {', '.join(map(str, case.values))})")


@dataclass(frozen=True, slots=True)
class Member:
    """A field of an object and the name it has in the answer."""

    key: str
    node: Node
    #: Pydantic validates what it leaves out of the answer, and refuses a row for it.
    shown: bool = True


@dataclass(frozen=True, slots=True)
class Object:
    """A row as a model."""

    model: type
    members: tuple[Member, ...]
    #: Whether members that are None are left out.
    sparse: bool = False
    nullable: bool = field(default=False)

    def lines(self, label: str) -> Iterator[str]:
        yield f"{label} -> {self.model.__name__}"
        for member in self.members:
            label = member.key if member.shown else f"{member.key} (not shown)"
            yield from (f"  {line}" for line in member.node.lines(label))


@dataclass(frozen=True, slots=True)
class Subclass:
    """The same row as an instance of a mapped subclass."""

    mapper: Mapper[Any]
    node: Node

    @property
    def nullable(self) -> bool:
        return nullable(self.node)

    def lines(self, label: str) -> Iterator[str]:
        yield from self.node.lines(f"{label}, as {self.mapper.class_.__name__}")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several mapped classes that a row holds; it may be missing where it was joined."""

    name: str
    node: Node
    nullable: bool

    def lines(self, label: str) -> Iterator[str]:
        yield from self.node.lines(f"{label}: {self.name}")


Node = Constant | Value | One | Many | End | Variant | Object | Subclass | Part


def nullable(node: Node) -> bool:
    """Whether None is a value that Pydantic takes there."""
    return node.text == "null" if isinstance(node, Constant) else node.nullable
