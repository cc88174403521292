"""A box of the checklist: what it says, whom it judges, and how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Generic, TypeVar

from verdigris.checklist.pages import SECTIONS, page
from verdigris.checklist.verdict import Conclusion, conclude
from verdigris.evidence.judgement import Judgement, Population, Subject

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

S = TypeVar("S", bound=Subject)


class Box(ABC, Generic[S]):
    """One box; its identity is `name`, its number is only its place in the checklist.

    A subclass states what holds and what its failure means, names its subjects and judges one subject at a time.
    Boxes are pure: all input and output happened when the evidence was gathered.
    """

    name: ClassVar[str]
    holds: ClassVar[str]
    fails: ClassVar[str]
    consequence: ClassVar[str]
    registry: ClassVar[dict[str, type[Box[Subject]]]] = {}

    def __init_subclass__(cls) -> None:
        """Register the box under its name; a second one of the same name is refused."""
        super().__init_subclass__()
        if cls.name in Box.registry:
            message = f"two boxes are named {cls.name!r}: {Box.registry[cls.name].__qualname__} and {cls.__qualname__}"
            raise TypeError(message)
        Box.registry[cls.name] = cls  # type: ignore[assignment]  # the registry forgets the subject's type

    @property
    def section(self) -> str:
        """The first half of the name, which is also the module, the page and the test."""
        return self.name.partition("/")[0]

    @abstractmethod
    def subjects(self, evidence: Evidence) -> Population[S]:
        """Name everything that this box is about."""

    @abstractmethod
    def judge(self, subject: S, evidence: Evidence) -> Judgement:
        """Prove, refute or doubt one subject."""

    def conclude(self, evidence: Evidence) -> Conclusion:
        """Judge all subjects and derive the verdict."""
        population = self.subjects(evidence)
        judgements = tuple(self.judge(subject, evidence) for subject in population)
        return conclude(judgements, population.gaps)

    def page(self) -> str:
        """Return this box's page: the part of the section's Markdown file under its heading."""
        return page(self.name)


__all__ = ["SECTIONS", "Box", "page"]
