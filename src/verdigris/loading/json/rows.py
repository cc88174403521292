"""Rows that are no objects of one mapped class: columns, aggregates, several classes at once."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from functools import partial, reduce
from typing import TYPE_CHECKING, Any

from sqlalchemy import inspect

from verdigris.errors import ConfigurationError
from verdigris.loading.json.nodes import Part
from verdigris.loading.json.planner import refuse_rest
from verdigris.loading.json.schema import InPython
from verdigris.loading.json.sources import is_entity
from verdigris.loading.options import load
from verdigris.loading.schema import fields

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sqlalchemy import Select

    from verdigris.loading.json.nodes import Node
    from verdigris.loading.json.planner import Asked, Path, Planner
    from verdigris.loading.json.schema import Reader, Schema


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """What each row of a select() holds, under the names that a row of the result has: expressions, mapped classes."""

    selected: Mapping[str, Any]

    def __str__(self) -> str:
        return f"rows of {', '.join(self.selected)}"

    @property
    def entities(self) -> Mapping[str, Any]:
        """The mapped classes, and aliases of them, that are selected whole."""
        return {name: each for name, each in self.selected.items() if is_entity(each)}

    def has(self, name: str) -> bool:
        """Whether a row has something of this name."""
        return name in self.selected

    def is_scalar(self, reader: Reader, schema: Schema) -> bool:
        """Whether a row's only column is asked for, and no object that has it."""
        return len(self.selected) == 1 and not any(True for _ in reader.models(schema))

    def node(self, planner: Planner, schema: Schema) -> Node:
        """Return the node of a row; raises InPython."""
        if self.is_scalar(planner.reader, schema):
            (name, expression) = next(iter(self.selected.items()))
            return planner.value(("the row", name), expression, schema, {})
        bare, _, _ = planner.reader.unrooted(schema)
        if bare["type"] != "model":
            raise InPython(f"which {bare['type']} a row becomes is decided in Python")
        return planner.model(bare, partial(self._found, planner))

    def refuse_missing(self, models: tuple[type, ...]) -> None:
        """Raise ConfigurationError where a model has a required field that no row has anything for."""
        missing = list(self._missing(models))
        if len(missing) < len(models) or not missing:
            return
        model, field = missing[0]
        raise ConfigurationError(
            f"No row of this select() can become a {model}: {model}.{field} is none of {', '.join(self.selected)}.",
            why="The field is required, so Pydantic would refuse every row.",
            do=(f'select(..., func.count().label("{field}"))', "or give the field a default"),
            page="loading/all-loaded",
        )

    def options(self, models: tuple[type, ...]) -> Iterator[Any]:
        """Yield the options that load what the models read of the mapped classes in a row.

        Raises ConfigurationError where such an object can never become what its field asks for.
        """
        for name, entity in self.entities.items():
            asking = [each for model in models for each in fields(model) if (name,) in each.sources]
            wanted = {model: None for each in asking for model in each.models}
            if wanted:
                yield load(entity, reduce(operator.or_, wanted))

    def _missing(self, models: tuple[type, ...]) -> Iterator[tuple[str, str]]:
        for model in models:
            for each in fields(model):
                if each.required and not any(path[0] in self.selected for path in each.sources):
                    yield model.__name__, each.name
                    break

    def _found(self, planner: Planner, asked: Asked, path: Path) -> Node | None:
        name, rest = str(path[0]), path[1:]
        if name not in self.selected:
            return None
        refuse_rest(rest, name)
        expression = self.selected[name]
        if not is_entity(expression):
            return planner.value(("the row", name), expression, asked.schema, asked.model.config)
        _, optional, _ = planner.reader.unrooted(asked.schema)
        return Part(name, planner.object(inspect(expression).mapper, asked.schema, asked.above), optional)


def selected(statement: Select[Any]) -> Any:
    """Return the one mapped class, or alias, whose rows a statement returns, else its Columns; raises InPython."""
    described: Any = getattr(statement, "column_descriptions", ())
    if len(described) == 1 and is_entity(described[0]["expr"]):
        return described[0]["expr"]
    is_orm = statement._propagate_attrs.get("compile_state_plugin") == "orm"  # noqa: SLF001 - such rows name functions
    named = {each["name"]: each["expr"] for each in described if is_orm or hasattr(each["expr"], "key")}
    if not named or None in named:
        raise InPython("the statement does not say what its rows hold")
    return Columns(named)
