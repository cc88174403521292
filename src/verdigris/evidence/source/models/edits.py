"""What of a column's or a relationship's fix a tool can write; nothing where it is not certain what that would mean."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.judgement import Edit, How
from verdigris.evidence.source.models.python_types import PYTHON_TYPES
from verdigris.evidence.source.reading.arguments import keyword
from verdigris.evidence.source.reading.names import External
from verdigris.evidence.source.reading.naming import importable, is_external
from verdigris.evidence.source.reading.nodes import leaf_within
from verdigris.evidence.values import Known, Missing

if TYPE_CHECKING:
    from verdigris.evidence.source.models.mapped import Column, Relationship
    from verdigris.evidence.source.reading.calls import Call
    from verdigris.evidence.source.reading.modules import Scope

_TELLING = {"as_uuid": True, "asdecimal": None}  # options of a type, and the value that leaves its type what it is
_EXPRESSIONS = {"asc", "desc", "in_", "is_", "is_not", "isnot", "label", "not_in", "nulls_first", "nulls_last"}
_ORM = "sqlalchemy.orm"


def indexed(column: Column) -> tuple[Edit, ...]:
    """Return the edit that indexes a column."""
    if column.call is None:
        return _annotation_indexed(column)
    call = column.call.node
    inner = keyword(call, "sa_column")
    if isinstance(inner, ast.Call):
        call = inner
    if column.made not in {"Column", "mapped_column", "Field"} or _spread(call):
        return ()
    return (Edit(column.call.module.place(call), "index", "True", safe=False),)


def _annotation_indexed(column: Column) -> tuple[Edit, ...]:
    statement = column.statement
    if column.made != "annotation" or not isinstance(statement, ast.AnnAssign) or statement.value is not None:
        return ()
    if leaf_within(getattr(statement.annotation, "value", statement.annotation)) != "Mapped" or column.scope is None:
        return ()
    made = importable(column.scope, _ORM, "mapped_column")
    if made is None:
        return ()
    value = f"{made.name}(index=True)"
    return (Edit(column.place, column.name, value, safe=False, how=How.ASSIGNMENT, imports=made.imports),)


def annotated(column: Column) -> tuple[Edit, ...]:
    """Return the edit that annotates a column with the type that it has: its table stays as it is."""
    call, statement = column.call, column.statement
    if call is None or column.annotated or not isinstance(statement, ast.Assign) or not _plain(column, call):
        return ()
    python = _python(column, call.scope)
    mapped = importable(call.scope, _ORM, "Mapped")
    optional = _optional(column)
    if python is None or mapped is None or optional is None:
        return ()
    name, imports = python
    written = f"{mapped.name}[{name} | None]" if optional else f"{mapped.name}[{name}]"
    told = (*mapped.imports, *imports)
    return (Edit(column.place, column.name, written, safe=False, how=How.ANNOTATION, imports=told),)


def renamed(column: Column) -> tuple[Edit, ...]:
    """Return the edit that makes a column by mapped_column(), where the column it makes is the same."""
    call = column.call
    if call is None or column.made != "Column" or not _plain(column, call):
        return ()
    never = column.annotated and isinstance(column.option("nullable"), Missing)
    if never and column.option("primary_key") != Known(value=True):
        return ()  # Column() takes no notice of the annotation, and mapped_column() makes a NOT NULL of it
    made = importable(call.scope, _ORM, "mapped_column")
    if made is None:
        return ()
    old = ast.unparse(call.node.func)
    return (Edit(call.place, old, made.name, safe=False, how=How.CALLEE, imports=made.imports),)


def _plain(column: Column, call: Call) -> bool:
    """Tell whether a column is an attribute of an ordinary declarative class, and nothing there needs a Column."""
    scope = call.scope
    statement = column.statement
    if column.made not in {"Column", "mapped_column"} or not scope.is_class or scope.decorators or _spread(call.node):
        return False
    target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
    target = statement.target if isinstance(statement, ast.AnnAssign) else target
    if not isinstance(target, ast.Name) or getattr(statement, "value", None) is not call.node:
        return False
    lineage = column.evaluator.names.lineage(scope)
    if any(isinstance(base, External) and "dataclass" in base.leaf.lower() for base in lineage):
        return False  # an annotation makes a field of it
    uses = (node for node in scope.nodes() if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name))
    return all(node.value.id != column.name or node.attr in _EXPRESSIONS for node in uses)  # type: ignore[attr-defined]


def _optional(column: Column) -> bool | None:
    """Tell whether a column may be null; None where that is not settled."""
    key, nullable = column.option("primary_key"), column.option("nullable")
    match key, nullable:
        case Known(value=True), _:
            return False
        case ((Missing() | Known(value=False)), Known(value=bool() as value)):
            return value
        case ((Missing() | Known(value=False)), Missing()):
            return True
    return None


def _python(column: Column, scope: Scope) -> tuple[str, tuple[str, ...]] | None:
    """Return the Python type of a column's values, and what has to be imported for it."""
    for argument in column.arguments:
        node = argument.node
        if leaf_within(node) in {"ForeignKey", "Computed", "Identity", "Sequence", "CheckConstraint"}:
            continue
        if isinstance(node, ast.Constant):
            continue
        return _type(node, scope)
    return None


def _type(node: ast.expr, scope: Scope) -> tuple[str, tuple[str, ...]] | None:
    func = node.func if isinstance(node, ast.Call) else node
    given = node if isinstance(node, ast.Call) else ast.Call(func, [], [])
    if not is_external(func, scope, "sqlalchemy") or not all(map(_kept, given.keywords)):
        return None
    leaf = _original(func, scope)
    if leaf == "ARRAY" and len(given.args) == 1 and not given.keywords:
        inner = _type(given.args[0], scope)
        return None if inner is None else (f"list[{inner[0]}]", inner[1])
    if leaf == "Enum" and given.args:
        return _enumeration(given, scope)
    module, _, name = PYTHON_TYPES.get(leaf, "").rpartition(":")
    if not module:
        return (name, ()) if name and scope.lookup(name) is None else None
    found = importable(scope, module, name)
    return None if found is None else (found.name, found.imports)


def _original(func: ast.expr, scope: Scope) -> str:
    """Return the name that a type has where it is defined: `Enum as SQLEnum` is an Enum."""
    found = scope.lookup(func.id) if isinstance(func, ast.Name) else None
    origin = found[1][-1].origin if found is not None else None
    return origin[1] or "" if origin is not None else leaf_within(func)


def _kept(option: ast.keyword) -> bool:
    """Tell whether an option leaves a type's values what they are."""
    if option.arg not in _TELLING:
        return True
    return isinstance(option.value, ast.Constant) and option.value.value is _TELLING[option.arg]


def _enumeration(call: ast.Call, scope: Scope) -> tuple[str, tuple[str, ...]] | None:
    """Return the class of an enumeration, or str for one of texts."""
    if all(isinstance(each, ast.Constant) and isinstance(each.value, str) for each in call.args):
        return ("str", ()) if scope.lookup("str") is None else None
    [first, *more] = call.args
    found = scope.lookup(first.id) if isinstance(first, ast.Name) and not more else None
    if found is None or found[0] is scope or not isinstance(first, ast.Name):
        return None
    return (first.id, ()) if found[1][-1].kind in {"class", "import"} else None


def raising(relationship: Relationship, lazy: str) -> tuple[Edit, ...]:
    """Return the edit that names a relationship's strategy; none where it may be given in several places."""
    if relationship.made == "backref":
        return _backref(relationship, lazy)
    call = relationship.call
    if call is None or _spread(call.node):
        return ()
    if relationship.made == "relationship":
        return (Edit(call.place, "lazy", f'"{lazy}"', safe=False),)
    if relationship.made != "Relationship" or keyword(call.node, "sa_relationship") is not None:
        return ()
    match keyword(call.node, "sa_relationship_kwargs"):
        case None:
            return (Edit(call.place, "sa_relationship_kwargs", f'{{"lazy": "{lazy}"}}', safe=False),)
        case ast.Dict() as given if None not in given.keys:
            return (Edit(call.module.place(given), "lazy", f'"{lazy}"', safe=False, how=How.ITEM),)
        case ast.Call(func=ast.Name("dict"), args=[]) as made if not _spread(made):
            return (Edit(call.module.place(made), "lazy", f'"{lazy}"', safe=False),)
    return ()


def _backref(relationship: Relationship, lazy: str) -> tuple[Edit, ...]:
    given = relationship.given
    if given is None or given.frame is not None:
        return ()
    place = given.scope.module.place(given.node)
    match given.node:
        case ast.Constant(value=str(name)) if name.isidentifier():
            made = importable(given.scope, _ORM, "backref")
            if made is None:
                return ()
            value = f'{made.name}("{name}", lazy="{lazy}")'
            return (Edit(place, f'"{name}"', value, safe=False, how=How.EXPRESSION, imports=made.imports),)
        case ast.Call(func=func) as call if is_external(func, given.scope, "sqlalchemy") and not _spread(call):
            return (Edit(place, "lazy", f'"{lazy}"', safe=False),)
    return ()


def _spread(call: ast.Call) -> bool:
    return any(each.arg is None for each in call.keywords)
