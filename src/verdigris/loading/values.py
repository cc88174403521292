"""The plan as a value: what is loaded of an entity for a response model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Step:
    """One relationship that a schema reads, and how it is loaded."""

    owner: type
    name: str
    field: str
    strategy: Literal["selectin", "joined"]
    innerjoin: bool
    #: What is loaded of the other side. None: the plan that holds this step, again and again (a tree).
    plan: Plan | None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is loaded of one entity: its relationships and the columns that are read."""

    entity: type
    schemas: tuple[type, ...]
    steps: tuple[Step, ...] = ()
    #: The columns that are read, as class and attribute; those of mapped subclasses too.
    columns: tuple[tuple[type, str], ...] = ()
    #: Those of them that the mapping defers.
    undeferred: tuple[tuple[type, str], ...] = ()
    #: Mapped subclasses whose columns are read.
    parts: tuple[type, ...] = ()
    #: `Entity.relationship` where models that contain each other are followed no further.
    bounded: tuple[str, ...] = ()
    #: What reads columns that can't be told: the plan can't be narrowed here.
    opaque: tuple[str, ...] = ()

    @property
    def subclasses(self) -> tuple[type, ...]:
        """The mapped subclasses whose own attributes are read, by name."""
        owners = {step.owner for step in self.steps} | {owner for owner, _ in self.undeferred} | set(self.parts)
        return tuple(sorted((o for o in owners if not issubclass(self.entity, o)), key=lambda cls: cls.__name__))

    @property
    def is_bounded(self) -> bool:
        """Whether something is followed only so far."""
        return bool(self.bounded) or any(step.plan is not None and step.plan.is_bounded for step in self.steps)

    def lines(self, depth: int = 0) -> Iterator[str]:
        """Yield one line a relationship, nested ones indented."""
        margin = "  " * depth
        for step in self.steps:
            how = "joined, inner" if step.innerjoin else step.strategy
            again = ", to the end" if step.plan is None else ""
            yield f"{margin}{step.owner.__name__}.{step.name}: {how}{again}  ({step.field})"
            if step.plan is not None:
                yield from step.plan.lines(depth + 1)
        for name in self.bounded:
            yield f"{margin}{name}: not followed further"

    def __str__(self) -> str:
        names = " | ".join(schema.__name__ for schema in self.schemas)
        return "\n".join([f"{self.entity.__name__} -> {names}", *self.lines(1)])
