"""What a response model reads: its fields, the attributes they are read from, the models inside their types."""

from __future__ import annotations

import collections.abc
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, PlainValidator, RootModel, WrapValidator

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

Form = Literal["one", "many"]
_OPAQUE = frozenset({"before", "plain", "wrap"})


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model, as Pydantic reads it from an object's attributes."""

    model: type[BaseModel]
    name: str
    #: The attribute paths that are tried, in order: ("lines",), or ("customer", "name") of an AliasPath.
    sources: tuple[tuple[str, ...], ...]
    #: The models inside its type; "many" where they are in a collection.
    inside: tuple[tuple[type[BaseModel], Form], ...]
    required: bool
    #: A validator sees the raw attribute first, so that its type says nothing about the attribute.
    opaque: bool

    def __str__(self) -> str:
        return f"{self.model.__name__}.{self.name}"

    @property
    def models(self) -> tuple[type[BaseModel], ...]:
        """The models inside its type, each once."""
        return tuple(dict.fromkeys(model for model, _ in self.inside))

    @property
    def form(self) -> Form | None:
        """Whether its type holds one model or many; None where it says neither, or both."""
        forms = {form for _, form in self.inside}
        return forms.pop() if len(forms) == 1 and not self.opaque else None


def models(annotation: Any) -> tuple[type[BaseModel], ...]:
    """Return the models inside a type, each once."""
    return tuple(dict.fromkeys(model for model, _ in _inside(annotation, "one")))


def fields(model: type[BaseModel]) -> tuple[Field, ...]:
    """Return what Pydantic reads from an object for `model`, inherited fields included."""
    decorators = model.__pydantic_decorators__
    whole = any(found.info.mode in {"before", "wrap"} for found in decorators.model_validators.values())
    opaque = {
        name
        for found in decorators.field_validators.values()
        if found.info.mode in _OPAQUE
        for name in found.info.fields
    }
    return tuple(
        Field(
            model=model,
            name=name,
            sources=tuple(_sources(model, name, info)),
            inside=tuple(_inside(info.annotation, "one")),
            required=info.is_required() and not whole,
            opaque=whole or name in opaque or "*" in opaque or _has_raw_validator(info),
        )
        for name, info in model.model_fields.items()
    )


def _has_raw_validator(info: FieldInfo) -> bool:
    return any(isinstance(item, BeforeValidator | PlainValidator | WrapValidator) for item in info.metadata)


def _sources(model: type[BaseModel], name: str, info: FieldInfo) -> Iterator[tuple[str, ...]]:
    config = model.model_config
    by_alias = config.get("validate_by_alias", True) is not False
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    alias = info.validation_alias
    if alias is not None and by_alias:
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            path = choice.path if isinstance(choice, AliasPath) else [choice]
            yield tuple(part for part in path if isinstance(part, str))
    if alias is None or by_name or not by_alias:
        yield (name,)


def _inside(annotation: Any, form: Form) -> Iterator[tuple[type[BaseModel], Form]]:
    """Yield the models inside a type, through Annotated, aliases of types, unions, collections and root models."""
    value = getattr(annotation, "__value__", None)
    if value is not None:  # `type X = ...`, PEP 695
        yield from _inside(value, form)
        return
    origin = typing.get_origin(annotation)
    if origin is Annotated:
        yield from _inside(typing.get_args(annotation)[0], form)
    elif origin in {typing.Union, types.UnionType}:
        for choice in typing.get_args(annotation):
            yield from _inside(choice, form)
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Iterable):
        for argument in typing.get_args(annotation):
            yield from _inside(argument, "many")
    elif isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _inside(annotation.model_fields["root"].annotation, form)
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, form
