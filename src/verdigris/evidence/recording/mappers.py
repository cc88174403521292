"""The mapped classes that are alive, as their mappers have them."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from verdigris.evidence.recording.artefact import Column, Index, Model, Relationship

if TYPE_CHECKING:
    from collections.abc import Iterable

    from verdigris.evidence.recording.places import Places


def models(places: Places) -> tuple[Model, ...]:
    """Return every mapped class; relationships only of those whose mappers could be configured."""
    from sqlalchemy.orm import mapperlib

    registries: Iterable[Any] = getattr(mapperlib, "_all_registries", set)()  # no public way leads to all of them
    found = {mapper for registry in registries for mapper in registry.mappers}
    return tuple(sorted((_model(mapper, places) for mapper in found), key=lambda model: (model.module, model.name)))


def _model(mapper: Any, places: Places) -> Model:
    cls = mapper.class_
    module = sys.modules.get(cls.__module__)
    filename = getattr(module, "__file__", None)
    table = mapper.local_table
    return Model(
        name=cls.__qualname__,
        module=cls.__module__,
        path=places.relative(filename) if filename else None,
        table=getattr(table, "fullname", ""),
        base=_base(mapper),
        columns=tuple(_columns(mapper)),
        relationships=tuple(_relationships(mapper)),
        indexes=tuple(_indexes(table)),
    )


def _base(mapper: Any) -> str:
    for cls in reversed(mapper.class_.__mro__):
        if getattr(cls, "registry", None) is mapper.registry and cls is not mapper.class_:
            return f"{cls.__module__}:{cls.__qualname__}"
    return ""


def _columns(mapper: Any) -> Iterable[Column]:
    table = mapper.local_table
    leading = _leading(table)
    annotated = _annotated(mapper.class_)
    for attribute in mapper.column_attrs:
        column = attribute.columns[0]
        if getattr(column, "table", None) is not table:
            continue
        target = next((key.target_fullname for key in column.foreign_keys), None)
        yield Column(
            name=column.name,
            attribute=attribute.key,
            type=_type(column.type),
            nullable=bool(column.nullable),
            primary_key=bool(column.primary_key),
            foreign_key=target,
            indexed=column.name in leading,
            unique=leading.get(column.name, False),
            annotated=attribute.key in annotated,
        )


def _type(value: Any) -> str:
    try:
        return str(value)
    except Exception:  # noqa: BLE001 - a recorder's error never reaches the application
        return type(value).__name__


def _annotated(cls: type) -> set[str]:
    found = set()
    for part in cls.__mro__:
        for name, annotation in (
            vars(part).get("__annotations__", {}).items() if sys.version_info < (3, 14) else _late(part)
        ):
            text = annotation if isinstance(annotation, str) else getattr(annotation, "__origin__", annotation)
            if "Mapped" in (text if isinstance(text, str) else getattr(text, "__name__", "")):
                found.add(name)
    return found


def _late(cls: type) -> Iterable[tuple[str, Any]]:
    """Return the annotations of a class where they are evaluated only when asked for (Python 3.14)."""
    library: Any = import_module("annotationlib")
    found: dict[str, Any] = library.get_annotations(cls, format=library.Format.STRING)
    return found.items()


def _leading(table: Any) -> dict[str, bool]:
    """Return the columns that an index, unique constraint or primary key leads with, and whether alone and uniquely."""
    found: dict[str, bool] = {}
    for index in getattr(table, "indexes", ()):
        columns = [str(column.name) for column in index.columns]
        if columns and not _where(index):
            found[columns[0]] = found.get(columns[0], False) or (bool(index.unique) and len(columns) == 1)
    for constraint in getattr(table, "constraints", ()):
        if type(constraint).__name__ in {"PrimaryKeyConstraint", "UniqueConstraint"}:
            names = [column.name for column in constraint.columns]
            if names:
                found[names[0]] = found.get(names[0], False) or len(names) == 1
    return found


def _where(index: Any) -> bool:
    return index.dialect_options["postgresql"]["where"] is not None


def _indexes(table: Any) -> Iterable[Index]:
    for index in sorted(getattr(table, "indexes", ()), key=lambda item: str(item.name)):
        names = tuple(getattr(expression, "name", None) or "" for expression in index.expressions)
        yield Index(
            name=str(index.name),
            columns=tuple(name for name in names if name),
            unique=bool(index.unique),
            partial=_where(index),
            expression=not all(names),
        )


def _relationships(mapper: Any) -> Iterable[Relationship]:
    try:
        found = list(mapper.relationships)  # configures the mappers
    except Exception:  # noqa: BLE001 - as above
        return
    for item in found:
        if item.parent is not mapper:
            continue
        to_one = item.direction.name == "MANYTOONE"
        yield Relationship(
            attribute=f"{mapper.class_.__name__}.{item.key}",
            target=item.mapper.class_.__name__,
            lazy=str(item.lazy),
            uselist=item.uselist,
            direction=item.direction.name,
            viewonly=bool(item.viewonly),
            nullable=any(column.nullable for column in item.local_columns) if to_one else None,
            backref=item.key not in vars(mapper.class_) or bool(getattr(item, "_is_backref", False)),
        )
