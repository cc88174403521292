"""Sessions that advanced-alchemy hands out to requests: its middleware ends them, where the source does not show it."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.engine.configured import configurations
from verdigris.evidence.source.reading.arguments import keyword, short
from verdigris.evidence.source.reading.files import Role
from verdigris.evidence.source.reading.names import Assigned, External
from verdigris.evidence.values import Known, Missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source import Source
    from verdigris.evidence.source.fastapi.web import Depends

_GIVERS = {"provide_session", "provide_async_session", "provide_service"}


def handed_out(source: Source) -> Iterator[str]:
    """Yield a gap for each `Depends(alchemy.provide_session())`, and one of a service."""
    for use in source.web.depends:
        given = _given(source, use) if use.call.module.role is Role.APPLICATION else None
        if given is not None:
            yield f"{use.place}: what ends the session of `{short(given)}` is advanced-alchemy, {_commits(source)}"


def _given(source: Source, use: Depends) -> ast.Call | None:
    node = use.call.node.args[0] if use.call.node.args else keyword(use.call.node, "dependency")
    scope = use.call.scope
    meaning = None if node is None else source.names.resolve(node, scope)
    if isinstance(meaning, Assigned):
        node, scope = meaning.value, meaning.scope
    asked = source.types.callee(node, scope) if isinstance(node, ast.Call) else None
    known = isinstance(asked, External) and asked.package == "advanced_alchemy" and asked.leaf in _GIVERS
    return node if known and isinstance(node, ast.Call) else None


def _commits(source: Source) -> str:
    """Tell what becomes of the transaction, by the `commit_mode` of the configurations."""
    modes = [
        source.evaluator.value(way.values["commit_mode"]) if "commit_mode" in way.values else Missing()
        for way in configurations(source)
    ]
    late = next((mode.value for mode in modes if isinstance(mode, Known) and str(mode.value).startswith("auto")), None)
    if late is not None:
        return f"since its 1.9.3 after the answer, which a COMMIT that fails does not change (`commit_mode={late!r}`)"
    left = modes and all(mode in (Missing(), Known("manual")) for mode in modes)
    return "without a commit" if left else "and whether it commits is not settled"
