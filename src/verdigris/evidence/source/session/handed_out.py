"""Sessions that advanced-alchemy hands out to requests: its middleware ends them, where the source does not show it."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Subject
from verdigris.evidence.source.engine.configured import configurations, variable
from verdigris.evidence.source.reading.arguments import keyword, short
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.source.reading.versions import at_least
from verdigris.evidence.values import Known, Missing, Place, Value

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Depends
    from verdigris.evidence.source.reading.calls import Call

_SERVICE = "provide_service"
_GIVERS = {"provide_session", "provide_async_session", _SERVICE}
#: Its middleware took to committing behind the answer, where it no longer raises what a COMMIT does.
_LATE_SINCE = (1, 9, 3)


@dataclass(frozen=True, slots=True)
class LateCommit(Subject):
    """A configuration that commits the sessions of its `uses` when their answers have been sent."""

    key: str
    place: Place
    config: str
    mode: str
    uses: tuple[Depends, ...]


def handed_out(source: Source) -> Iterator[str]:
    """Yield a gap for each `Depends(alchemy.provide_session())`, and one of a service."""
    for use, given in _given(source):
        told = _commits(source, service=given.func.attr == _SERVICE)  # type: ignore[attr-defined]  # a method's call
        yield f"{use.place}: what ends the session of `{short(given)}` is advanced-alchemy, {told}"


def late_commits(source: Source, *, moved: bool) -> Iterator[LateCommit]:
    """Yield the configurations that are known to commit behind the answer.

    A service is committed by the dependency that yields it: behind the answer where FastAPI has `moved` there what
    follows a yield. Under function scope it is rolled back, for there is no status yet.
    """
    modes = _modes(source)
    if not at_least(source.files, "advanced-alchemy", _LATE_SINCE) or not all(_late(mode) for _, mode in modes):
        return  # of several configurations, which one gives a session is a matter of keys
    late = [
        use
        for use, given in _given(source)
        if given.func.attr != _SERVICE or (moved and use.scope != Known("function"))  # type: ignore[attr-defined]  # a method's call
    ]
    for config, mode in modes if late else ():
        place = config.module.place(keyword(config.node, "commit_mode") or config.node)
        assert isinstance(mode, Known)  # noqa: S101 - or it would not be late
        name = variable(config)
        yield LateCommit(f"{place.path}:{name}", place, name, str(mode.value), tuple(late))


def _given(source: Source) -> Iterator[tuple[Depends, ast.Call]]:
    """Yield the uses of what it hands out, with the call that says what that is."""
    for use in source.web.depends:
        node = use.call.node.args[0] if use.call.node.args else keyword(use.call.node, "dependency")
        scope = use.call.scope
        meaning = None if node is None else source.names.resolve(node, scope)
        if isinstance(meaning, Assigned):
            node, scope = meaning.value, meaning.scope
        if use.call.module.role is not Role.APPLICATION or not isinstance(node, ast.Call):
            continue
        asked = source.types.callee(node, scope)
        if isinstance(asked, External) and asked.package == "advanced_alchemy" and asked.leaf in _GIVERS:
            yield use, node


def _modes(source: Source) -> list[tuple[Call, Value]]:
    """Return the `commit_mode` of each configuration of the application."""
    return [
        (config, source.evaluator.value(way.values["commit_mode"]) if "commit_mode" in way.values else Missing())
        for config, way in configurations(source)
    ]


def _late(mode: Value) -> bool:
    return isinstance(mode, Known) and str(mode.value).startswith("auto")


def _commits(source: Source, *, service: bool) -> str:
    """Tell what becomes of the transaction, by the `commit_mode` of the configurations."""
    modes = [mode for _, mode in _modes(source)]
    auto = next((str(mode.value) for mode in modes if isinstance(mode, Known) and _late(mode)), None)
    if auto is not None:
        late = at_least(source.files, "advanced-alchemy", _LATE_SINCE)
        if late is False and not service:
            return f"before the answer leaves (`commit_mode={auto!r}`)"
        since = "" if late else "since its 1.9.3 "
        return f"{since}after the answer, which a COMMIT that fails does not change (`commit_mode={auto!r}`)"
    left = modes and all(mode in (Missing(), Known("manual")) for mode in modes)
    return "without a commit" if left else "and whether it commits is not settled"
