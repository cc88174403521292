"""A loader option's strategy replaced by another, where the statement takes that one too."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Edit, How
from verdigris.evidence.source.reading.naming import importable
from verdigris.evidence.values import Known

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.statements.statements import LoaderOption

_ORM = "sqlalchemy.orm"
_NO_JOIN = {  # PostgreSQL locks no outer row, and groups and compares by what is selected
    "with_for_update",
    "group_by",
    "distinct",
    "union",
    "union_all",
    "from_statement",
}


def loaded_by(option: LoaderOption, strategy: str) -> tuple[Edit, ...]:
    """Return the edits that load by another strategy, also where the same path is written again for another branch."""
    if option.strategy == "contains_eager" or (strategy == "joinedload" and _joins_no_more(option.call)):
        return ()  # a join of the statement's own is its filter too
    edits = []
    for call in (option.call, *option.again):
        if len(call.node.args) != 1 or call.node.keywords:
            return ()
        func = call.node.func
        if isinstance(func, ast.Attribute):  # of the module, or of the option before it: both have all of them
            edits.append(_edit(call, f".{strategy}", ()))
            continue
        made = importable(call.scope, _ORM, strategy)
        if made is None:
            return ()
        edits.append(_edit(call, made.name, made.imports))
    return tuple(edits)


def outer_joined(option: LoaderOption) -> tuple[Edit, ...]:
    """Return the edits that make an inner join of an option an outer one."""
    places = (call.place for call in (option.call, *option.again))
    return tuple(Edit(place, "innerjoin", "False", safe=False) for place in places) if _inner(option) else ()


def _inner(option: LoaderOption) -> bool:
    return option.innerjoin == Known(value=True) and not any(each.arg is None for each in option.call.node.keywords)


def _edit(call: Call, value: str, imports: tuple[str, ...]) -> Edit:
    old = f".{call.node.func.attr}" if isinstance(call.node.func, ast.Attribute) else ast.unparse(call.node.func)
    return Edit(call.place, old, value, safe=False, how=How.CALLEE, imports=imports)


def _joins_no_more(call: Call) -> bool:
    """Tell whether the code around an option locks, groups or compares rows, which another join would change."""
    around = call.scope.function or call.scope
    return not _NO_JOIN.isdisjoint(_named(around.node))


def _named(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        match inner:
            case ast.Attribute(attr=name) | ast.keyword(arg=str(name)):
                yield name
