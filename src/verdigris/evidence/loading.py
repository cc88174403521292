"""Section 5's evidence joined: what the source says of loading, and what a recording saw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from verdigris.evidence.judgement import Kind, Population, Subject
from verdigris.evidence.recording.artefact import LazyLoad
from verdigris.evidence.source.flow import Read
from verdigris.evidence.source.relations import Relation
from verdigris.evidence.source.statements import Loaded, LoaderOption
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.recording.artefact import RaiseHit, Repeat
    from verdigris.evidence.source.flow import Read
    from verdigris.evidence.source.loops import RowQuery
    from verdigris.evidence.source.web import Route

REPEATS = 5  # times that one line sends one query, with other values each, before it counts as one a row
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


@dataclass(frozen=True, slots=True)
class Touched(Subject):
    """A relationship that a run loaded when it was touched, for one object after the other."""

    key: str
    place: Place | None
    seen: LazyLoad
    kind: ClassVar[Kind] = Kind.RECORDING


@dataclass(frozen=True, slots=True)
class Repeated(Subject):
    """A query that a run sent again and again from one line, each time with other values."""

    key: str
    place: Place | None
    seen: Repeat
    kind: ClassVar[Kind] = Kind.RECORDING


Looped: TypeAlias = "RowQuery | Repeated | Touched | Route"


def loops(evidence: Evidence) -> Population[Looped]:
    """Name the queries in loops, what a run repeated, and the routes."""
    source = evidence.source
    found: list[Looped] = [*source.row_queries, *repeated(evidence), *source.routes]
    return source.population([*found, *touched(evidence)])


def touched(evidence: Evidence) -> list[Touched]:
    """Return what a run loaded when it was touched, more than once in one request or task."""
    seen = evidence.recording.lazy_loads if evidence.recording is not None else ()
    many = [each for each in seen if each.max_in_scope > 1]
    return [Touched(f"{each.route or 'task'} {each.attribute}", _place(each.query_site or each.site), each) for each in many]


def repeated(evidence: Evidence) -> list[Repeated]:
    """Return the queries that a run repeated with other values, often enough to be one a row."""
    recorded = evidence.recording.repeats if evidence.recording is not None else ()
    often = [each for each in recorded if each.different >= REPEATS and each.site is not None]
    return [Repeated(f"{each.route or 'task'} {each.site}", _place(each.site), each) for each in often]


def _place(site: str | None) -> Place | None:
    return None if site is None else Place.parse(site)


@dataclass(frozen=True, slots=True)
class Need(Subject):
    """A relationship that an answer or some code reads, and whether the query behind it loads it."""

    key: str  # GET /orders/{id} Order.lines
    place: Place
    read: Read
    hits: tuple[Hit, ...]  # seen in a recording: read, and not there
    ran: int  # how often the recording ran what reads it


@dataclass(frozen=True, slots=True)
class Unsettled(Subject):
    """Something that may read relationships and could not be followed."""

    key: str
    place: Place
    reason: str
    ran: int


@dataclass(frozen=True, slots=True)
class Hit(Subject):
    """A relationship that a run read though no query had loaded it."""

    key: str
    place: Place | None
    attribute: str
    count: int
    query: Place | None  # the query that should have loaded it
    touched: Place | None
    phase: str
    route: str | None
    raises: str  # what the client of the attribute gets
    kind: ClassVar[Kind] = Kind.RECORDING


Required: TypeAlias = Need | Unsettled | Hit


def needs(evidence: Evidence) -> Population[Required]:
    """Name every relationship that is read, in the source or in a run, and what could not be followed."""
    source = evidence.source
    reads = source.flow.reads
    hits = recorded_hits(evidence)
    claimed: set[str] = set()
    found: list[Required] = []
    for read in reads.found.values():
        own = tuple(hit for hit in hits if _concerns(hit, read))
        claimed |= {hit.key for hit in own}
        place = read.via or read.origin or read.place
        found.append(Need(read.key, place, read, own, runs(evidence, read.route, read.function)))
    for each in reads.unfollowed.values():
        found.append(Unsettled(each.owner, each.place, each.reason, runs(evidence, each.route, each.function)))
    for name, places in reads.strays.items():
        ran = min(runs(evidence, None, function) for _, function in places)
        where = f"{places[0][0]}" + (f" and {len(places) - 1} more" if len(places) > 1 else "")
        found.append(Unsettled(f".{name}", places[0][0], f"`.{name}` is read of something unknown ({where})", ran))
    found += [hit for hit in hits if hit.key not in claimed]
    return source.population(found, *source.mapped_classes.gaps)


def _concerns(hit: Hit, read: Read) -> bool:
    """Tell whether a recorded hit is of a read that the source knows."""
    if hit.attribute != read.relation.key:
        return False
    if read.route is not None and hit.route == read.route:
        return True
    return hit.touched is not None and read.function.covers(hit.touched)


def recorded_hits(evidence: Evidence) -> list[Hit]:
    """Return the reads that raised, or would have: raise hits, and lazy loads where nothing can await them."""
    if evidence.recording is None:
        return []
    found = []
    for seen in evidence.recording.raise_hits:
        raises = f"an error: it is mapped with lazy={seen.lazy!r}"
        found.append(_hit(seen.attribute, seen.count, seen.site, seen.query_site, seen.phase, seen.route, raises))
    for load in evidence.recording.lazy_loads:
        if load.would_raise and load.kind == "relationship":
            found.append(
                _hit(load.attribute, load.would_raise, load.site, load.query_site, load.phase, load.route, "MissingGreenlet")
            )
    return found


def _hit(attribute: str, count: int, site: str | None, query: str | None, phase: str, route: str | None, raises: str) -> Hit:
    asked = None if query is None else Place.parse(query)
    touched = None if site is None else Place.parse(site)
    owner = route or site or query or phase
    return Hit(f"{owner} {attribute}", asked or touched, attribute, count, asked, touched, phase, route, raises)


def runs(evidence: Evidence, route: str | None, function: Place) -> int:
    """Count how often a recording answered a route, or ran statements from a function."""
    if evidence.recording is None:
        return 0
    if route is not None:
        return sum(seen.count for seen in evidence.recording.requests if seen.route == route)
    uses = (use for statement in evidence.recording.statements for use in statement.uses)
    return sum(use.count for use in uses if use.site is not None and function.covers(Place.parse(use.site)))
