"""What can be said of one subject: a proof, a finding or a doubt."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from verdigris.evidence.values import Place


class Kind(StrEnum):
    """The three kinds of evidence."""

    SOURCE = "source"
    RECORDING = "recording"
    DATABASE = "database"


class Severity(StrEnum):
    """An error makes its box fail; advice never changes a verdict."""

    ERROR = "error"
    ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Proof:
    """The subject is as the box demands, and this is why."""

    subject: str
    reason: str
    kind: Kind
    place: Place | None = None


class How(StrEnum):
    """What an edit does to the node that its place spans."""

    KEYWORD = "keyword"  # sets the keyword `name` of a call
    ITEM = "item"  # sets the key `name` of a dictionary that is written out
    CALLEE = "callee"  # calls something else, `value`; a value that begins with a dot replaces the last name alone
    ANNOTATION = "annotation"  # annotates the target, `name`, of an assignment
    ASSIGNMENT = "assignment"  # gives a bare annotation of `name` a value
    EXPRESSION = "expression"  # puts another expression in the place of one, `name`


@dataclass(frozen=True, slots=True)
class Edit:
    """The part of a fix that a tool can write, with the names that have to be imported for it, as `module:name`.

    A safe one changes nothing but the fault; with another the program may have relied on what it did.
    """

    place: Place
    name: str
    value: str
    safe: bool = True
    how: How = How.KEYWORD
    imports: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """What is written, in a few words."""
        match self.how:
            case How.KEYWORD:
                return f"{self.name}={self.value}"
            case How.ITEM | How.ANNOTATION:
                return f"{self.name}: {self.value}"
            case How.ASSIGNMENT:
                return f"{self.name} = {self.value}"
        return f"{self.name} → {self.value}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The subject is not as the box demands.

    `variant` names the way of failing and is the second half of the rule's name; `fix` is text to paste, `edits` what
    of it `verdigris fix` writes.
    """

    subject: str
    variant: str
    message: str
    kind: Kind
    place: Place | None = None
    fix: str | None = None
    consequence: str | None = None
    severity: Severity = Severity.ERROR
    related: tuple[tuple[Place, str], ...] = ()
    edits: tuple[Edit, ...] = ()


@dataclass(frozen=True, slots=True)
class Doubt:
    """Nobody can tell yet; `settle` says what would."""

    subject: str
    reason: str
    settle: str
    place: Place | None = None


Judgement: TypeAlias = Proof | Finding | Doubt


class Subject:
    """Something that a box judges: it has a stable key (the baseline's identity) and usually a place.

    Subclasses are dataclasses with the fields `key` and `place`; `kind` is the evidence that names the subject.
    """

    __slots__ = ()
    key: str
    place: Place | None
    kind: ClassVar[Kind] = Kind.SOURCE
    settle: ClassVar[str] = "record a run: verdigris record -- CMD, then check --recording FILE"

    def proof(self, reason: str, *, kind: Kind | None = None, place: Place | None = None) -> Proof:
        """Say that this subject is as it should be."""
        return Proof(self.key, reason, kind or self.kind, place or self.place)

    def finding(
        self,
        variant: str,
        message: str,
        *,
        fix: str | None = None,
        place: Place | None = None,
        kind: Kind | None = None,
        consequence: str | None = None,
        severity: Severity = Severity.ERROR,
        related: tuple[tuple[Place, str], ...] = (),
        edits: tuple[Edit, ...] = (),
    ) -> Finding:
        """Say in which way this subject is not as it should be."""
        return Finding(
            self.key,
            variant,
            message,
            kind or self.kind,
            place or self.place,
            fix,
            consequence,
            severity,
            related,
            edits,
        )

    def doubt(self, reason: str, *, settle: str | None = None, place: Place | None = None) -> Doubt:
        """Say that this cannot be told from the evidence at hand."""
        return Doubt(self.key, reason, settle or self.settle, place or self.place)


class Made(Subject):
    """A subject that a call with options makes: an engine, a session factory."""

    __slots__ = ()

    @abstractmethod
    def with_option(self, name: str, value: str) -> str:
        """Return the call with an option set, to paste."""

    @abstractmethod
    def edits(self, name: str, value: str) -> tuple[Edit, ...]:
        """Return the edit that sets an option; none where it cannot be written for certain."""

    def lacks(self, variant: str, message: str, name: str, value: str, kind: Kind | None = None) -> Finding:
        """Say in which way it is not as it should be, where one option makes it so."""
        edits = self.edits(name, value)
        return self.finding(variant, message, fix=self.with_option(name, value), kind=kind, edits=edits)


S_co = TypeVar("S_co", bound=Subject, covariant=True)


@dataclass(frozen=True, slots=True)
class Population(Generic[S_co]):
    """The subjects of a box, and whether they are all there are.

    `gaps` holds a reason for each way in which subjects may have escaped notice; a box holds only over a population
    without gaps, and is not applicable only over an empty one without gaps.
    """

    subjects: tuple[S_co, ...] = ()
    gaps: tuple[str, ...] = ()

    def where(self, keep: Callable[[S_co], bool]) -> Population[S_co]:
        """Return those that satisfy the condition; what is unknown stays unknown."""
        return Population(tuple(subject for subject in self.subjects if keep(subject)), self.gaps)

    def __iter__(self) -> Iterator[S_co]:
        return iter(self.subjects)

    def __len__(self) -> int:
        return len(self.subjects)

    def __bool__(self) -> bool:
        return bool(self.subjects)
