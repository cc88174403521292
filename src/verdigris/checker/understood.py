"""The report's first line: what the source was taken for, so that a reader sees at once whether it was understood."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from verdigris.evidence.source import Source


def understood(source: Source) -> str:
    """Say in one line how many engines, factories, routes and models there are, and who commits."""
    parts = [
        _count(len(source.engines), "engine", "engines"),
        _count(_factories(source), "factory", "factories"),
        _count(len(source.routes), "route", "routes"),
        _count(len(source.mapped_classes), "model", "models"),
    ]
    return f"{', '.join(parts)}; {_commits(source)}"


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"


def _factories(source: Source) -> int:
    return sum(1 for factory in source.factories if factory.form in {"async_sessionmaker", "sessionmaker", "database"})


def _commits(source: Source) -> str:
    """Say who commits: the session dependency, the services, both or nobody."""
    dependency = any(source.transactions.commit_of(each) is not None for each in source.session_dependencies)
    services = bool(source.transactions.committers or source.connections.committers)
    if dependency:
        return "the session dependency and services commit" if services else "the session dependency commits"
    return "services commit" if services else "no commit seen"
