"""What makes a dependency end before the response leaves: `scope="function"`, where nothing stands in its way."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Edit
from verdigris.evidence.source.reading.arguments import is_generator
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.versions import at_least
from verdigris.evidence.values import Known, Missing

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.session.dependencies import SessionDependency

_SINCE = (0, 121)  # FastAPI 0.121 has function scope


def function_scope(source: Source, dependency: SessionDependency) -> tuple[Edit, ...]:
    """Return the edits of all uses of a dependency; none where the application would not start, or stream, with them.

    A generator that FastAPI ends behind the response may not take what ends before it (DependencyScopeError), and what
    uses a session behind the response would find it closed.
    """
    uses = dependency.uses
    named = (source.names.resolve(use.call.node.func, use.call.scope) for use in uses)
    if not all(isinstance(each, External) and each.leaf == "Depends" for each in named):
        return ()  # Security() takes no scope
    if source.escapes or at_least(source.files, "fastapi", _SINCE) is not True:
        return ()
    if any(not isinstance(use.scope, Missing) and use.scope != Known("function") for use in uses):
        return ()
    mine = {id(use.call.node) for use in uses}
    generators = (scope for scope in source.scopes if scope.is_function and is_generator(scope))
    for generator in generators:
        if any(id(use.call.node) in mine for _, use in source.web.injected(generator)):
            return ()
    early = (use for use in uses if isinstance(use.scope, Missing))
    return tuple(Edit(use.place, "scope", '"function"', safe=False) for use in early)
