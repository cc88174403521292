"""What a response model reads of a mapped class, as loader options: the need that `load()` computes too."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from verdigris.evidence.source.fastapi.schemas import ListType, ModelType, OutsideType, Type, UnionType
from verdigris.evidence.source.flow.shapes import Load
from verdigris.evidence.source.reading.modules import Scope
from verdigris.evidence.source.reading.names import Assigned

if TYPE_CHECKING:
    from verdigris.evidence.source import Source
    from verdigris.evidence.source.models.relations import Relation

DEPTH = 5


def models_in(made: Type) -> tuple[ModelType, ...]:
    """Return the models in a type, each once."""
    match made:
        case ModelType():
            return (made,)
        case ListType(element=element):
            return models_in(element)
        case UnionType(arms=arms) | OutsideType(arguments=arms):
            return tuple(dict.fromkeys(model for arm in arms for model in models_in(arm)))
        case _:
            return ()


def planned(source: Source, model: str, made: Type, guarantee: str) -> tuple[Load, ...] | None:
    """Return the options that load what a response model reads of a mapped class; None if it names no model."""
    schemas = models_in(made)
    return _plan(source, model, schemas, guarantee, 0) if schemas else None


def _plan(source: Source, model: str, schemas: tuple[ModelType, ...], guarantee: str, depth: int) -> tuple[Load, ...]:
    found: dict[str, tuple[Relation, list[ModelType]]] = {}
    for schema in schemas:
        for field in source.schemas.fields(schema):
            for path in field.sources:
                relations = touched(source, model, path[0]) if path else []
                for relation in relations:
                    _, inner = found.setdefault(relation.name, (relation, []))
                    inner += models_in(field.type)
                if relations:
                    break
    loads = []
    for name, (relation, inner) in found.items():
        below: tuple[Load, ...] = ()
        if relation.target is not None and depth < DEPTH:
            below = _plan(source, relation.target, tuple(dict.fromkeys(inner)), guarantee, depth + 1)
            below = (*below, Load(relation.target, "*", "unloaded"))
        loads.append(Load(model, name, "loaded", below, guarantee))
    return tuple(loads)


def touched(source: Source, model: str, name: str) -> list[Relation]:
    """Return the relationships that reading an attribute touches: itself, or what a property's code names."""
    relation = source.relations.of(model, name)
    if relation is not None:
        return [relation]
    found = source.relations.models.get(model)
    member = source.names.class_attribute(found.scope, name) if found is not None else None
    if isinstance(member, Scope) and member.is_function:
        names = {node.attr for node in member.nodes() if isinstance(node, ast.Attribute)}
        return [each for inner in sorted(names) if (each := source.relations.of(model, inner)) is not None]
    if isinstance(member, Assigned) and isinstance(member.value, ast.Call) and member.value.args:
        first = member.value.args[0]
        proxied = source.relations.of(model, str(first.value)) if isinstance(first, ast.Constant) else None
        leaf = getattr(member.value.func, "id", getattr(member.value.func, "attr", ""))
        return [proxied] if proxied is not None and leaf == "association_proxy" else []
    return []
