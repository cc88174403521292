"""Section 4: how tables are mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.judgement import Edit, Judgement, Kind, Population, Severity
from verdigris.evidence.source.models.edits import annotated, raising, renamed
from verdigris.evidence.source.models.mapped import Column, Model, Relationship
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.unseen import passed_on, stray
from verdigris.evidence.source.reading.versions import is_before
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from verdigris.evidence import Evidence
    from verdigris.evidence.values import Place

RAISING = {"raise", "raise_on_sql"}
DELIBERATE = {"selectin", "joined", "subquery", "immediate", "write_only"}
SHOWN = 4  # names of one model in one message


def _related(evidence: Evidence) -> Population[Model]:
    """Return the classes that have relationships; one that is added to a class from outside leaves a gap."""
    models = evidence.source.mapped_classes
    places = {each.place for model in models for each in model.relationships}
    gaps = (*stray(evidence.source, "relationship", places), *passed_on(evidence.source, "relationship"))
    return Population(models.where(lambda model: bool(model.own_relationships)).subjects, (*models.gaps, *gaps))


def _names(attributes: list[Column] | list[Relationship]) -> str:
    names = [f"`{attribute.name}`" for attribute in attributes[:SHOWN]]
    more = len(attributes) - len(names)
    return ", ".join(names) + (f" and {more} more" if more else "")


def _modern(columns: list[Column], edits: Callable[[Column], tuple[Edit, ...]], evidence: Evidence) -> tuple[Edit, ...]:
    """Return the edits of columns into what SQLAlchemy has since 2.0."""
    if is_before(evidence.source.files, "sqlalchemy", (2,)):
        return ()
    return tuple(edit for column in columns for edit in edits(column))


class Mapped(Box[Model]):
    """4.1."""

    name = "models/mapped"
    holds = "Every mapped attribute is annotated with Mapped[...]"
    fails = "A mapped class has attributes without Mapped[...]"
    consequence = "The type checker knows neither the attribute's type nor whether it may be None, and nor do readers."

    def subjects(self, evidence: Evidence) -> Population[Model]:
        """Name the declarative classes, mixins and bases with columns included; SQLModel has its own notation."""
        return evidence.source.declaring_classes

    def judge(self, subject: Model, evidence: Evidence) -> Judgement:
        """Look at each column the class declares itself; what a mixin declares is judged there."""
        bare = [column for column in subject.own_columns if not column.annotated]
        if not bare:
            return subject.proof(f"{len(subject.own_columns)} columns of {subject.name} are annotated")
        return subject.finding(
            "unannotated",
            f"{subject.name} declares {_names(bare)} without `Mapped[...]`",
            place=bare[0].place,
            fix=bare[0].annotated_form,
            edits=_modern(bare, annotated, evidence),
            related=tuple((column.place, "and this one") for column in bare[1:SHOWN]),
        )


class MappedColumn(Box[Model]):
    """4.2."""

    name = "models/mapped-column"
    holds = "Columns of mapped classes are made by mapped_column()"
    fails = "A mapped class makes columns with Column()"
    consequence = "`Mapped[str] = Column(...)` is nullable in the table while its type says never None."

    def subjects(self, evidence: Evidence) -> Population[Model]:
        """Name the declarative classes, as 4.1 does; Column in a Table(...) is right and is none of them."""
        declarative = evidence.source.declaring_classes
        every = (*evidence.source.mapped_classes, *declarative)
        places = {column.place for model in every for column in model.own_columns}
        return Population(declarative.subjects, (*declarative.gaps, *stray(evidence.source, "Column", places)))

    def judge(self, subject: Model, evidence: Evidence) -> Judgement:
        """Ask what makes each column."""
        old = [column for column in subject.own_columns if column.made == "Column"]
        if not old:
            return subject.proof(f"{subject.name} makes no column with Column()")
        return subject.finding(
            "column",
            f"{subject.name} makes {_names(old)} with `Column()`",
            place=old[0].place,
            fix=old[0].annotated_form,
            edits=_modern(old, renamed, evidence),
            related=tuple((column.place, "and this one") for column in old[1:SHOWN]),
        )


class ExplicitLazy(Box[Model]):
    """4.3."""

    name = "models/explicit-lazy"
    holds = "Every relationship names its loading strategy"
    fails = "A mapped class has relationships that do not name a loading strategy"
    consequence = "Nobody decided when the relationship is loaded; SQLAlchemy's default loads it at the worst moment."

    def subjects(self, evidence: Evidence) -> Population[Model]:
        """Name the classes that have relationships."""
        return _related(evidence)

    def judge(self, subject: Model, evidence: Evidence) -> Judgement:
        """One judgement a class: this is a convention, and a finding a line would bury the rest."""
        bare = [each for each in subject.own_relationships if isinstance(each.written_lazy, Missing)]
        unnamed = [each for each in bare if isinstance(each.lazy, Missing) and not _raises_live(each, evidence)]
        setter = evidence.source.models.strategies_set
        if unnamed and setter is not None:
            return _set_elsewhere(subject, unnamed[0], setter)
        if unnamed:
            return subject.finding(
                "unnamed",
                f"{subject.name} does not say how {_names(unnamed)} {'is' if len(unnamed) == 1 else 'are'} loaded",
                place=unnamed[0].place,
                fix=unnamed[0].with_lazy("raise_on_sql"),
                edits=_raising(unnamed, evidence),
                related=tuple((each.place, "and this one") for each in unnamed[1:SHOWN]),
            )
        for each in subject.own_relationships:
            if isinstance(each.written_lazy, Unknown):
                return subject.doubt(f"the loading strategy of {each.key} is not settled: {each.written_lazy.reason}")
        if bare:
            return self._given(subject, bare)
        return subject.proof(f"all {len(subject.own_relationships)} relationships of {subject.name} name theirs")

    def _given(self, subject: Model, bare: list[Relationship]) -> Judgement:
        """Prove what the base gives the relationships that name nothing: a strategy that raises."""
        told = f"{_names(bare)} of {subject.name} {'names' if len(bare) == 1 else 'name'} no strategy"
        match bare[0].lazy:
            case Known(_, by):
                return subject.proof(f"{told}; {by}")
            case _:
                return subject.proof(f"{told}, and raised in the run: the base sees to it", kind=Kind.RECORDING)


def _raises_live(relationship: Relationship, evidence: Evidence) -> bool:
    """Tell whether a run saw that a relationship raises, whatever gave it that strategy."""
    return evidence.lazy_of(relationship.key) in RAISING


def _set_elsewhere(subject: Model, unnamed: Relationship, setter: Place) -> Judgement:
    """Doubt: code of the tree's own gives relationships a strategy, and which ones is not followed."""
    return subject.doubt(
        f"{unnamed.key} names no loading strategy; whether the code at {setter} gives it one is not settled",
        settle="record a run of it: verdigris record -- COMMAND",
    )


class LazyRaise(Box[Model]):
    """4.4."""

    name = "models/lazy-raise"
    holds = "No relationship loads itself behind an attribute"
    fails = "A relationship loads itself when it is touched, or pretends to be empty"
    consequence = "Touching it outside a query is MissingGreenlet: a 500 far from the query that forgot it."

    def subjects(self, evidence: Evidence) -> Population[Model]:
        """Name the classes that have relationships; where nothing is async, loading on touch works."""
        if not evidence.source.uses_async:
            return Population()
        return _related(evidence)

    def judge(self, subject: Model, evidence: Evidence) -> Judgement:
        """Fail on what loads in silence; a deliberate eager strategy is advice at most."""
        doubt, eager = None, []
        for relationship in subject.own_relationships:
            match relationship.lazy:
                case Known(value) if value in RAISING:
                    continue
                case Known(value) if value in DELIBERATE:
                    eager.append(relationship)
                case Known("noload"):
                    what = "is `noload`: it reads as empty though rows exist"
                    return self._finding(relationship, "silent", what, self._edits(subject, evidence))
                case Missing() if _raises_live(relationship, evidence):
                    continue
                case Missing() if evidence.source.models.strategies_set is not None:
                    doubt = doubt or _set_elsewhere(subject, relationship, evidence.source.models.strategies_set)
                case Known() | Missing():
                    what = "is loaded when it is touched, which async code cannot await"
                    return self._finding(relationship, "lazy", what, self._edits(subject, evidence))
                case Unknown(reason):
                    seen = evidence.lazy_of(relationship.key)
                    if seen is None:
                        doubt = doubt or subject.doubt(f"how {relationship.key} is loaded is not settled: {reason}")
        if doubt is not None:
            return doubt
        if eager:
            return subject.finding(
                "eager",
                f"{subject.name} loads {_names(eager)} with every query, needed or not",
                place=eager[0].place,
                fix=eager[0].with_lazy("raise_on_sql"),
                severity=Severity.ADVICE,
            )
        return subject.proof(
            f"the {len(subject.own_relationships)} relationships of {subject.name} raise instead of loading"
        )

    def _finding(self, relationship: Relationship, variant: str, what: str, edits: tuple[Edit, ...]) -> Judgement:
        return relationship.finding(
            variant, f"{relationship.key} {what}", fix=relationship.with_lazy("raise_on_sql"), edits=edits
        )

    def _edits(self, model: Model, evidence: Evidence) -> tuple[Edit, ...]:
        """Return the edits of all relationships of a class that load in silence, or read as empty."""
        lazy = []
        for each in model.own_relationships:
            match each.lazy:
                case Known(value) if value not in RAISING | DELIBERATE:
                    lazy.append(each)
                case Missing() if not _raises_live(each, evidence) and evidence.source.models.strategies_set is None:
                    lazy.append(each)
        return _raising(lazy, evidence)


def _raising(relationships: list[Relationship], evidence: Evidence) -> tuple[Edit, ...]:
    """Return the edits that make relationships raise; none where a synchronous session may load them."""
    factories = evidence.source.factories
    if any(made.mode == "sync" and made.role is Role.APPLICATION for made in factories):
        return ()
    return tuple(edit for each in relationships for edit in raising(each, "raise_on_sql"))
