"""Evidence of three kinds, joined: what boxes are given to judge by.

The source names the subjects; a recording and a database add what they saw of each, found by the line that made it
or by its name. What only a recording saw is a subject too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Kind
from verdigris.evidence.values import Place

if TYPE_CHECKING:
    from verdigris.evidence.database import Catalogue
    from verdigris.evidence.ran import RanEngine, RanFactory
    from verdigris.evidence.recording.artefact import Copy, Inserts, Recording, Request
    from verdigris.evidence.recording.artefact import Engine as RecordedEngine
    from verdigris.evidence.recording.artefact import Factory as RecordedFactory
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.engine.engines import Engine
    from verdigris.evidence.source.engine.factories import Factory
    from verdigris.evidence.source.fastapi.web import Route


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that was gathered about one project; `workers` is how many processes serve it, where told."""

    source: Source
    recording: Recording | None = None
    database: Catalogue | None = None
    workers: int | None = None

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of evidence at hand."""
        given = {Kind.SOURCE: self.source, Kind.RECORDING: self.recording, Kind.DATABASE: self.database}
        return tuple(kind for kind, evidence in given.items() if evidence is not None)

    def ran(self, engine: Engine | RanEngine) -> tuple[RecordedEngine, ...]:
        """Return the recorded engines that were made by this engine's line."""
        from verdigris.evidence.ran import RanEngine  # it brings the source index, which a remembered check avoids

        if self.recording is None:
            return ()
        if isinstance(engine, RanEngine):
            return (engine.seen,)
        places = (engine.place, engine.call.place, *engine.asked_at)
        return tuple(seen for seen in self.recording.engines if made_at(seen.site, *places))

    def ran_factory(self, made: Factory | RanFactory) -> tuple[RecordedFactory, ...]:
        """Return the recorded session factories that were made where this one is."""
        if self.recording is None:
            return ()
        return tuple(seen for seen in self.recording.factories if made_at(seen.site, made.place, *made.asked_at))

    def lazy_of(self, relationship: str) -> str | None:
        """Return the loading strategy that the live mapper had for `Order.lines`."""
        if self.recording is None:
            return None
        found = {each.attribute: each.lazy for model in self.recording.models for each in model.relationships}
        return found.get(relationship)

    def indexed(self, table: str, column: str) -> bool | None:
        """Tell whether an index of the live database begins with a column; None if the database does not tell."""
        return None if self.database is None else self.database.indexed(table, column)

    def inserts(self, place: Place) -> tuple[Inserts, ...]:
        """Return the INSERTs that were recorded from lines of a place."""
        return (
            ()
            if self.recording is None
            else tuple(each for each in self.recording.inserts if made_at(each.site, place))
        )

    def copies(self, place: Place) -> tuple[Copy, ...]:
        """Return the bulk loads that were recorded from lines of a place."""
        return (
            () if self.recording is None else tuple(each for each in self.recording.copies if made_at(each.site, place))
        )

    def answered(self, route: str | None) -> int:
        """Return how often a recorded run used a route, by its key."""
        if self.recording is None or route is None:
            return 0
        return sum(seen.count for seen in self.recording.requests if seen.route == route)

    def requests(self, route: Route) -> tuple[Request, ...]:
        """Return what was recorded of a route, found by its path or by its handler's place."""
        if self.recording is None:
            return ()
        return tuple(
            seen for seen in self.recording.requests if seen.route == route.key or made_at(seen.site, route.place)
        )


def made_at(site: str | None, *places: Place) -> bool:
    """Tell whether a recorded site lies within one of these places."""
    return site is not None and any(place.covers(Place.parse(site)) for place in places)
