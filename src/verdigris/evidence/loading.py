"""Section 5's evidence joined: what the source says of loading, and what a recording saw of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, TypeAlias

from verdigris.evidence.judgement import Kind, Population, Subject
from verdigris.evidence.source.models.relations import Relation
from verdigris.evidence.source.statements.loops import RowQuery
from verdigris.evidence.source.statements.statements import Loaded, LoaderOption
from verdigris.evidence.tree import Role, role_of
from verdigris.evidence.values import Known, Place

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.source.fastapi.web import Route
    from verdigris.evidence.source.flow import Read

MANY_TIMES = 2.0  # rows per object from which a query is said to multiply
REPEATS = 5  # times that one line sends one query, with other values each, before it counts as one a row


# -- 5.1 and 5.2 -------------------------------------------------------------------------------------------------------


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
            message = f"{seen.rows} rows were fetched to make {seen.objects} objects"
            found.append(Multiplied(f"{seen.site or seen.fingerprint} rows", _place(seen.site), message))
    return found


# -- 5.3 ---------------------------------------------------------------------------------------------------------------


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
    raises: str  # what whoever reads it gets
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
        ran = runs(evidence, each.route, each.function)
        found.append(Unsettled(f"{each.owner} answer", each.place, each.reason, ran))
    for name, places in reads.strays.items():
        ran = min(runs(evidence, None, function) for _, function in places)
        more = f" and {len(places) - 1} more" if len(places) > 1 else ""
        reason = f"`.{name}` is read of something the source does not settle ({places[0][0]}{more})"
        found.append(Unsettled(f".{name}", places[0][0], reason, ran))
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
    found: dict[str, Hit] = {}
    for seen in evidence.recording.raise_hits:
        raises = f"an error, since it is mapped or loaded with lazy={seen.lazy!r}"
        _add(found, seen.attribute, seen.count, seen.site, seen.query_site, seen.phase, seen.route, raises)
    for load in evidence.recording.lazy_loads:
        if load.would_raise and load.kind == "relationship":
            _add(
                found,
                load.attribute,
                load.would_raise,
                load.site,
                load.query_site,
                load.phase,
                load.route,
                "MissingGreenlet",
            )
    return list(found.values())


def _add(  # noqa: PLR0917 - the parts of a hit
    found: dict[str, Hit],
    attribute: str,
    count: int,
    site: str | None,
    query: str | None,
    phase: str,
    route: str | None,
    raises: str,
) -> None:
    asked, touched = _place(query), _place(site)
    key = f"{route or site or query or phase} {attribute}"
    found.setdefault(key, Hit(key, asked or touched, attribute, count, asked, touched, phase, route, raises))


# -- 5.4 ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PerRow(Subject):
    """A query that a run sent once for each row: by one line, or for an attribute that was touched."""

    key: str
    place: Place | None
    message: str
    fix: str
    variant: str
    kind: ClassVar[Kind] = Kind.RECORDING


@dataclass(frozen=True, slots=True)
class Answer(Subject):
    """A route, as far as its queries per row are concerned."""

    key: str
    place: Place
    ran: int


@dataclass(frozen=True, slots=True)
class Doubtful(Subject):
    """A loop whose query may not run once for each row, and what a run saw of that query."""

    key: str
    place: Place
    loop: RowQuery
    why: str
    ran: int  # how often a recording sent it
    most: int  # with how many different values in one request or task; 1 where it was never repeated


Looped: TypeAlias = RowQuery | Doubtful | PerRow | Answer


def loops(evidence: Evidence) -> Population[Looped]:
    """Name the loops that query, what a run repeated, and the routes, whose answers have neither."""
    source = evidence.source
    answers = [_answer(evidence, route) for route in source.routes]
    found: list[Looped] = [*(_loop(evidence, loop) for loop in source.row_queries)]
    found += [*repeated(evidence), *lazily(evidence), *answers]
    return source.population(found, *source.routes.gaps)


def _loop(evidence: Evidence, loop: RowQuery) -> RowQuery | Doubtful:
    if loop.unsure is None:
        return loop
    sent, most = runs(evidence, None, loop.query), 1
    if not loop.function.covers(loop.query):  # others send it too: the loop's own function must have run
        sent = min(sent, runs(evidence, None, loop.function))
    for seen in evidence.recording.repeats if evidence.recording is not None else ():
        if seen.site is not None and loop.query.covers(Place.parse(seen.site)):
            most = max(most, seen.different)
    return Doubtful(loop.key, loop.place, loop, loop.unsure, sent, most)


def _answer(evidence: Evidence, route: Route) -> Answer:
    return Answer(route.key, route.place, runs(evidence, route.key, route.place))


def repeated(evidence: Evidence) -> list[PerRow]:
    """Return the queries that one line repeated with other values, often enough to be one a row.

    A line of the tests or of a migration is none of the application's: `metadata.create_all()` looks for each table.
    Nor is what a test calls again and again: with the loop in the source, it tells how often it ran.
    """
    found = []
    for seen in evidence.recording.repeats if evidence.recording is not None else ():
        if seen.scope != "test" and seen.different >= REPEATS and seen.site is not None and _is_served(seen.site):
            where = seen.route or "one task"
            message = f"this line sent one query {seen.different} times, with other values each time, in {where}"
            fix = "one query with in_(ids), before the loop"
            found.append(PerRow(f"{where} {seen.site}", _place(seen.site), message, fix, "repeated"))
    return found


def lazily(evidence: Evidence) -> list[PerRow]:
    """Return the relationships that were loaded object by object where loading them works."""
    found = []
    for seen in evidence.recording.lazy_loads if evidence.recording is not None else ():
        if seen.max_in_scope > 1 and seen.max_in_scope > seen.would_raise and seen.kind == "relationship":
            where = seen.route or "one task"
            message = f"{seen.attribute} was loaded {seen.max_in_scope} times in {where}, once for each object"
            option = "selectinload" if seen.uselist else "joinedload"
            place = _place(seen.query_site or seen.site)
            found.append(
                PerRow(f"{where} {seen.attribute}", place, message, f".options({option}({seen.attribute}))", "lazy")
            )
    return found


# -- recordings --------------------------------------------------------------------------------------------------------


def runs(evidence: Evidence, route: str | None, function: Place) -> int:
    """Count how often a recording answered a route, or ran statements from a function."""
    if evidence.recording is None:
        return 0
    if route is not None:
        return sum(seen.count for seen in evidence.recording.requests if seen.route == route)
    uses = (use for statement in evidence.recording.statements for use in statement.uses)
    return sum(use.count for use in uses if use.site is not None and function.covers(Place.parse(use.site)))


def _is_served(site: str) -> bool:
    return role_of(Place.parse(site).path) not in {Role.TEST, Role.MIGRATION}


def _place(site: str | None) -> Place | None:
    return None if site is None else Place.parse(site)
