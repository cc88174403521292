"""Section 5's evidence joined: what the source says of loading, and what a recording saw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from verdigris.evidence.judgement import Kind, Population, Subject
from verdigris.evidence.source.relations import Relation
from verdigris.evidence.source.statements import Loaded, LoaderOption
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

MANY_TIMES = 2.0  # rows per object from which a query is said to multiply


@dataclass(frozen=True, slots=True)
class Multiplied(Subject):
    """A query whose rows were seen to outnumber the objects they made."""

    key: str
    place: Place | None
    message: str
    kind: ClassVar[Kind] = Kind.RECORDING


Collection: TypeAlias = LoaderOption | Relation | Multiplied
Single: TypeAlias = Loaded | LoaderOption


def collections(evidence: Evidence) -> Population[Collection]:
    """Name the options and mappings that load collections, and the queries that were seen to multiply rows."""
    source = evidence.source
    options = source.loader_options.where(_may_load_many)
    mapped = [relation for relation in source.relations.every if relation.eager and relation.many != Known(False)]
    found: list[Collection] = [*options, *mapped, *multiplied(evidence)]
    return source.population(found, *source.mapped_classes.gaps)


def _may_load_many(option: LoaderOption) -> bool:
    if option.relation is None:
        return option.strategy in {"load", "joinedload", "immediateload"}
    return option.relation.many != Known(False)


def singles(evidence: Evidence) -> Population[Single]:
    """Name the relationships to one object that are loaded eagerly, once each, and what load() loads."""
    source = evidence.source
    plans = source.loader_options.where(lambda option: option.strategy == "load")
    found: list[Single] = [*source.statements.singles, *plans]
    return source.population(found, *source.mapped_classes.gaps)


def multiplied(evidence: Evidence) -> list[Multiplied]:
    """Return the recorded queries whose rows outnumbered their objects."""
    found = []
    for seen in evidence.recording.cartesian if evidence.recording is not None else ():
        if seen.objects and seen.rows / seen.objects >= MANY_TIMES:
            place = None if seen.site is None else Place.parse(seen.site)
            message = f"{seen.rows} rows were fetched to make {seen.objects} objects"
            found.append(Multiplied(f"{seen.site or seen.fingerprint} rows", place, message))
    return found
