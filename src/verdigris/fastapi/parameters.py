"""A request's parameters, validated by FastAPI's own fields, without what FastAPI finds out anew at each request."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Union, get_args, get_origin
from urllib.parse import parse_qsl
from uuid import UUID

from fastapi.dependencies.utils import request_params_to_args
from pydantic import Json
from starlette.datastructures import QueryParams

if TYPE_CHECKING:
    from collections.abc import Mapping

    from fastapi._compat import ModelField
    from fastapi.dependencies.models import Dependant
    from starlette.types import Scope

SYMBOLIC = frozenset({int, str, float, bytes, Decimal, UUID, datetime, date, time, timedelta})
_MISSING = object()


@dataclass(frozen=True, slots=True)
class _Plain:
    """One parameter that is one text: where it is found, and what it is without."""

    name: str
    alias: str
    field: ModelField
    default: Any


class Parameters:
    """The path and query parameters of one route.

    Where each is one value (a number, a text, a moment, a flag), a request costs one look-up and one validation for
    each. Lists, models, JSON, further aliases and factories of defaults are FastAPI's.
    """

    def __init__(self, dependant: Dependant) -> None:
        self._path, self._query = dependant.path_params, dependant.query_params
        self.fields = [*self._path, *self._query]
        self._of_path = [_plain(field) for field in self._path]
        self._of_query = [_plain(field) for field in self._query]
        self.plain = None not in self._of_path + self._of_query

    def of(self, scope: Scope) -> dict[str, Any] | None:
        """Return the values by name; None where FastAPI has an error to tell."""
        if not self.plain:
            return self._of(scope)
        values: dict[str, Any] = {}
        if not _read(self._of_path, scope["path_params"], values):
            return None
        if self._of_query and not _read(self._of_query, query_of(scope["query_string"]), values):
            return None
        return values

    def _of(self, scope: Scope) -> dict[str, Any] | None:
        values, errors = request_params_to_args(self._path, scope["path_params"])
        if self._query and not errors:
            found, errors = request_params_to_args(self._query, QueryParams(scope["query_string"]))
            values.update(found)
        return None if errors else values


def _read(parameters: list[Any], given: Mapping[str, Any], values: dict[str, Any]) -> bool:
    for parameter in parameters:
        value = given.get(parameter.alias)
        if value is None:
            if parameter.default is _MISSING:
                return False
            values[parameter.name] = parameter.default
            continue
        value, errors = parameter.field.validate(value, values, loc=())
        if errors:
            return False
        values[parameter.name] = value
    return True


def query_of(query: bytes) -> dict[str, str]:
    """Return the parameters of a query string as Starlette reads them, the last of a name."""
    text = query.decode("latin-1")
    if "%" in text or "+" in text:
        return dict(parse_qsl(text, keep_blank_values=True))
    found = {}
    for part in text.split("&"):
        if part:
            name, _, value = part.partition("=")
            found[name] = value
    return found


def _plain(field: ModelField) -> _Plain | None:
    info: Any = field.field_info
    required = info.is_required()
    known = required or type(info.default) in SYMBOLIC | {NoneType, bool}
    if (
        not (is_symbolic(info.annotation) or info.annotation is bool)
        or any(type(each) is Json for each in info.metadata)
        or info.validation_alias not in {None, field.alias}
        or info.default_factory is not None
        or info.validate_default
        or not known
    ):
        return None
    return _Plain(field.name, field.alias, field, _MISSING if required else info.default)


def is_symbolic(annotation: Any) -> bool:
    """Tell whether code hardly decides by such a value: numbers, texts, moments, and not flags, choices or kinds."""
    if get_origin(annotation) in {Union, UnionType}:
        kinds = set(get_args(annotation)) - {NoneType}
        return len(kinds) == 1 and kinds <= SYMBOLIC
    return annotation in SYMBOLIC
