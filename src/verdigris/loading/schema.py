"""What a response model reads: its fields, the attributes they are read from, the models inside their types."""

from __future__ import annotations

import collections.abc
import dataclasses
import types
import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, PlainValidator, RootModel, WrapValidator

from verdigris.loading.code import function_of, names_in

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydantic.fields import FieldInfo

Form = Literal["one", "many", "dict"]
_RAW = frozenset({"before", "plain", "wrap"})


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a model, as Pydantic reads it from an object's attributes."""

    model: type
    name: str
    #: The attribute paths that are tried, in order: ("lines",), or ("customer", "name") of an AliasPath.
    sources: tuple[tuple[str, ...], ...]
    #: The models inside its type, and whether they are in a collection or the values of a dict.
    inside: tuple[tuple[type, Form], ...]
    required: bool
    #: Its type says nothing about the attribute: a validator sees that first, or an alias path takes a part of it.
    opaque: bool
    #: The names that validators mention which see the attribute's value.
    names: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"{self.model.__name__}.{self.name}"

    @property
    def models(self) -> tuple[type, ...]:
        """The models inside its type, each once."""
        return tuple(dict.fromkeys(model for model, _ in self.inside))

    @property
    def form(self) -> Form | None:
        """Whether its type holds one model, many or a dict of them; None where it says neither, or several."""
        forms = {form for _, form in self.inside}
        return forms.pop() if len(forms) == 1 and not self.opaque else None


def models(annotation: Any) -> tuple[type, ...]:
    """Return the models inside a type, each once: Pydantic models, dataclasses and typed dicts."""
    return tuple(dict.fromkeys(model for model, _ in _inside(annotation, "one")))


def fields(model: type, of: type | None = None) -> tuple[Field, ...]:
    """Return what is read from an object for `model`, inherited fields included.

    A mapped class that is the model of its own objects, `of`, takes them as they are: with the names that they have.
    """
    if model is of and issubclass(model, BaseModel):
        return tuple(Field(model, name, ((name,),), (), required=True, opaque=False) for name in model.model_fields)
    return tuple(_fields_of_model(model) if issubclass(model, BaseModel) else _fields_of_class(model))


def names(model: type) -> frozenset[str]:
    """Return the names that the model's validators mention which see the object itself."""
    if not issubclass(model, BaseModel):
        return frozenset()
    found = model.__pydantic_decorators__.model_validators.values()
    return _mentioned(each.func for each in found if each.info.mode in _RAW)


def _fields_of_model(model: type[BaseModel]) -> Iterator[Field]:
    decorators = model.__pydantic_decorators__
    whole = any(found.info.mode in _RAW for found in decorators.model_validators.values())
    for name, info in model.model_fields.items():
        raw = [
            found.func
            for found in decorators.field_validators.values()
            if found.info.mode in _RAW and {name, "*"} & set(found.info.fields)
        ]
        raw += [
            item.func for item in info.metadata if isinstance(item, BeforeValidator | PlainValidator | WrapValidator)
        ]
        paths = tuple(_sources(model, name, info))
        yield Field(
            model=model,
            name=name,
            sources=tuple(tuple(part for part in path if isinstance(part, str)) for path in paths),
            inside=tuple(_inside(info.annotation, "one")),
            required=info.is_required() and not whole,
            opaque=whole or bool(raw) or any(isinstance(part, int) for path in paths for part in path),
            names=_mentioned(raw),
        )


def _fields_of_class(model: type) -> Iterator[Field]:
    """Yield the fields of a dataclass or a typed dict; those of Pydantic's dataclasses too."""
    hints = typing.get_type_hints(model, include_extras=True)
    required = getattr(model, "__required_keys__", None)
    if required is None:
        missing = dataclasses.MISSING
        declared = dataclasses.fields(model)
        required = {each.name for each in declared if each.default is missing and each.default_factory is missing}
        hints = {each.name: hints[each.name] for each in declared if each.init}
    for name, annotation in hints.items():
        inside = tuple(_inside(annotation, "one"))
        needed = name in required and typing.get_origin(annotation) is not typing.NotRequired
        yield Field(model, name, ((name,),), inside, required=needed, opaque=False)


def _mentioned(functions: collections.abc.Iterable[Any]) -> frozenset[str]:
    found = [function_of(function) for function in functions]
    return frozenset[str]().union(*(names_in(function) for function in found if function is not None))


def _sources(model: type[BaseModel], name: str, info: FieldInfo) -> Iterator[tuple[str | int, ...]]:
    config = model.model_config
    by_alias = config.get("validate_by_alias", True) is not False
    by_name = bool(config.get("validate_by_name") or config.get("populate_by_name"))
    alias = info.validation_alias
    if alias is not None and by_alias:
        for choice in alias.choices if isinstance(alias, AliasChoices) else [alias]:
            yield tuple(choice.path) if isinstance(choice, AliasPath) else (choice,)
    if alias is None or by_name or not by_alias:
        yield (name,)


def _inside(annotation: Any, form: Form) -> Iterator[tuple[type, Form]]:
    """Yield the models inside a type, through Annotated, aliases of types, unions, collections and root models."""
    value = getattr(annotation, "__value__", None)
    if value is not None:  # `type X = ...`, PEP 695
        yield from _inside(value, form)
        return
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in {Annotated, typing.Required, typing.NotRequired}:
        yield from _inside(arguments[0], form)
    elif origin in {typing.Union, types.UnionType}:
        for choice in arguments:
            yield from _inside(choice, form)
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Mapping):
        yield from _inside(arguments[-1], "dict" if form == "one" else form)
    elif isinstance(origin, type) and issubclass(origin, collections.abc.Iterable):
        for argument in arguments:
            yield from _inside(argument, "many" if form == "one" else form)
    elif isinstance(annotation, type) and issubclass(annotation, RootModel):
        yield from _inside(annotation.model_fields["root"].annotation, form)
    elif _is_model(annotation):
        yield annotation, form


def _is_model(annotation: Any) -> bool:
    if not isinstance(annotation, type):
        return False
    is_plain = dataclasses.is_dataclass(annotation) and not hasattr(annotation, "__mapper__")
    return issubclass(annotation, BaseModel) or is_plain or typing.is_typeddict(annotation)
