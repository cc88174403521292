"""Engines, factories, sessions and requests that only a run saw: of another package, or of a line nobody could read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from verdigris.evidence.judgement import Edit, Kind, Made, Population, Subject
from verdigris.evidence.source.engine.engines import NONE_MADE
from verdigris.evidence.source.reading.files import Role, role_of
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.values import Known, Missing, Place, Value

if TYPE_CHECKING:
    from verdigris.evidence import Evidence
    from verdigris.evidence.recording.artefact import Engine as RecordedEngine
    from verdigris.evidence.recording.artefact import Factory as RecordedFactory
    from verdigris.evidence.recording.artefact import Sessions
    from verdigris.evidence.source.engine.engines import Engine


NOWHERE = External("?")

_OURS = "verdigris."  # a Database makes these with its factory's options, for units that it repeats


@dataclass(frozen=True, slots=True)
class RanEngine(Made):
    """An engine of a run that no line of the source accounts for; it answers as a source engine does."""

    kind: ClassVar[Kind] = Kind.RECORDING
    key: str
    place: Place
    seen: RecordedEngine
    maker: ClassVar[External] = NOWHERE
    url: ClassVar[None] = None
    asked_at: ClassVar[tuple[Place, ...]] = ()

    @property
    def short(self) -> str:
        """Where it was made."""
        return f"engine of {self.place}"

    @property
    def mode(self) -> str:
        """Tell whether it is asynchronous."""
        return "async" if self.seen.is_async else "sync"

    @property
    def pooled(self) -> Value:
        """Tell whether its connections waited in a pool."""
        return Known(self.seen.pool_size is not None)

    def given(self, name: str) -> bool | None:
        """Tell that nobody knows what was written."""
        return None

    def option(self, name: str) -> Value:
        """Return a setting as it ran."""
        recorded = {"pool_pre_ping": "pre_ping"}.get(name, name)
        value = getattr(self.seen, recorded, None)
        return Missing() if value is None else Known(value, "as it ran")

    def edits(self, name: str, value: str) -> tuple[Edit, ...]:
        """Return no edit: the source does not show where."""
        return ()

    def pool_edits(self, **_given: str) -> tuple[Edit, ...]:
        """Return no edit, as above."""
        return ()

    def with_option(self, name: str, value: str, **more: str) -> str:
        """Return the options to add where the engine is made."""
        return ", ".join(f"{key}={text}" for key, text in {name: value, **more}.items())


@dataclass(frozen=True, slots=True)
class RanFactory(Made):
    """A session factory of a run, or sessions made without one, that no line of the source accounts for."""

    kind: ClassVar[Kind] = Kind.RECORDING
    key: str
    place: Place
    form: str  # async_sessionmaker, sessionmaker, direct
    expires: bool
    flushes: bool
    created_in_requests: int = 0
    maker: ClassVar[External] = NOWHERE
    mode: ClassVar[str] = "async"
    asked_at: ClassVar[tuple[Place, ...]] = ()

    @property
    def made(self) -> str:
        """What it is."""
        return "session" if self.form == "direct" else "factory"

    @property
    def short(self) -> str:
        """Where it was made."""
        return f"{self.made} of {self.place}"

    @property
    def told(self) -> str:
        """What it is and where, for messages."""
        return f"the line {self.place}"

    def option(self, name: str) -> Value:
        """Return a setting as it ran."""
        return Known(self.expires if name == "expire_on_commit" else self.flushes, "as it ran")

    def edits(self, name: str, value: str) -> tuple[Edit, ...]:
        """Return no edit: the source does not show where."""
        return ()

    def with_option(self, name: str, value: str) -> str:
        """Return the option to add where it is made."""
        return f"{name}={value}"

    def renamed(self, maker: str) -> str:
        """Return what to make it with instead."""
        return f"{maker}(...)"

    @property
    def as_factory(self) -> str:
        """A factory of the sessions that are made by hand here."""
        return "Session = async_sessionmaker(engine, expire_on_commit=False)"


@dataclass(frozen=True, slots=True)
class RanRequest(Subject):
    """The requests of one route in a run, where the source names nothing that gave them their sessions."""

    kind: ClassVar[Kind] = Kind.RECORDING
    key: str
    place: Place | None


@dataclass(frozen=True, slots=True)
class RanSessions(Subject):
    """The sessions of such requests."""

    kind: ClassVar[Kind] = Kind.RECORDING
    key: str = "sessions"
    place: Place | None = None


def with_unseen(engines: Population[Engine], evidence: Evidence) -> Population[Engine | RanEngine]:
    """Add the engines that only a run saw; where the source makes none, they are those that it could not name."""
    more = unseen_engines(evidence)
    gaps = tuple(gap for gap in engines.gaps if not (more and gap == NONE_MADE))
    return Population((*engines, *more), gaps)


def unseen_engines(evidence: Evidence) -> tuple[RanEngine, ...]:
    """Return the engines that ran and that the source does not account for."""
    if evidence.recording is None:
        return ()
    known = {id(seen) for engine in evidence.source.engines for seen in evidence.ran(engine)}
    found = ((seen, _place(seen.site)) for seen in evidence.recording.engines if id(seen) not in known)
    return tuple(RanEngine(seen.id, place, seen) for seen, place in found if place is not None)


def unseen_factories(evidence: Evidence) -> tuple[RanFactory, ...]:
    """Return the factories of asynchronous sessions, and sessions without one, that only the run saw."""
    if evidence.recording is None:
        return ()
    source = evidence.source.factories
    known = {id(seen) for made in source for seen in evidence.ran_factory(made)}
    found = [_factory(seen) for seen in evidence.recording.factories if id(seen) not in known and _is_async(seen)]
    direct = [
        seen
        for seen in evidence.recording.sessions
        if seen.factory is None and seen.is_async and not seen.session_class.startswith(_OURS)
    ]
    places = {(made.place.path, line) for made in source for line in range(made.place.line, made.place.end_line + 1)}
    found += [
        _session(seen) for seen in direct if (place := _place(seen.site)) and (place.path, place.line) not in places
    ]
    return tuple(each for each in found if each is not None)


def requests_that_ran(evidence: Evidence) -> tuple[RanRequest, ...]:
    """Return the application's routes that ran with a session which no dependency of the source accounts for."""
    if evidence.recording is None or evidence.source.session_dependencies:
        return ()
    return tuple(
        RanRequest(request.route, _place(request.site))
        for request in evidence.recording.requests
        if request.transactions and not of_tests(request.site)
    )


def _is_async(seen: RecordedFactory) -> bool:
    return "async" in f"{seen.factory_class} {seen.session_class}".lower() and seen.scoped is None


def _factory(seen: RecordedFactory) -> RanFactory | None:
    place = _place(seen.site)
    form = seen.factory_class.rpartition(":")[2] or "async_sessionmaker"
    if place is None:
        return None
    return RanFactory(seen.id, place, form, seen.expire_on_commit, seen.autoflush, seen.created_in_requests)


def _session(seen: Sessions) -> RanFactory | None:
    place = _place(seen.site)
    return (
        None
        if place is None
        else RanFactory(f"{seen.site}:session", place, "direct", seen.expire_on_commit, seen.autoflush)
    )


def of_tests(site: str | None) -> bool:
    """Tell whether a line is a test's: what a test does on purpose says nothing of the application."""
    place = Place.parse(site) if site is not None else None
    return place is not None and role_of(place.path) is Role.TEST


def _place(site: str | None) -> Place | None:
    """Return where the application made it; what tests, scripts and migrations make is not the application's."""
    place = Place.parse(site) if site is not None else None
    return place if place is not None and role_of(place.path) is Role.APPLICATION else None
