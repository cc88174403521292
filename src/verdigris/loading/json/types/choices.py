"""One of several: enums, literals."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json
from sqlalchemy import Text, and_, case, cast

from verdigris.loading.json.types.numbers import mismatch
from verdigris.loading.json.types.values import REFUSED, Encoded, Loaded, Unsupported, Wanted, checked, number, word

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement


def enum(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a member of an enum as its value."""
    cls: Any = wanted.schema["cls"]
    for option in ("cls", "members", "sub_type", "missing"):  # what is no member's value is refused, and Python's
        wanted.take(option)
    if loaded.kind == "enum":
        of: Any = loaded.type
        if of.enum_class is not cls:
            return Unsupported(f"a {of.enum_class.__name__} becomes a {cls.__name__} in Python")
        return members(loaded, wanted, list(cls))
    return _values(loaded, [member.value for member in cls], cls.__name__)


def literal(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print one of the values that a Literal names."""
    expected = list(wanted.take("expected"))
    if loaded.kind == "enum":
        of: Any = loaded.type
        if issubclass(of.enum_class, str) and all(type(value) is str for value in expected):
            return members(loaded, wanted, [m for m in of.enum_class if m.value in expected])
        named = [value for value in expected if isinstance(value, of.enum_class)]
        if named == expected:
            return members(loaded, wanted, named)
        return mismatch(loaded, "a Literal")
    return _values(loaded, expected, "a Literal")


def members(loaded: Loaded, wanted: Wanted, which: Sequence[Enum]) -> Encoded | Unsupported:
    """Print each of some members of a column's enum as its value, found by the text that the column holds."""
    wanted.take("use_enum_values")
    type_: Any = loaded.type
    stored = _stored(type_)
    cases = []
    for member in which:
        if type(member.value) not in {str, int, bool} and not isinstance(member, str | int):
            return Unsupported(f"{type(member).__name__}.{member.name} is no text, int or bool")
        cases += [(loaded.sql == word(text), word(_json(member.value))) for text in stored.get(member, ())]
    return Encoded(case(*cases, (loaded.sql.is_not(None), REFUSED))) if cases else mismatch(loaded, "one of none")


def _stored(type_: Any) -> dict[Enum, list[str]]:
    """Return the texts under which a column holds each member: names, or what values_callable says."""
    found: dict[Enum, list[str]] = {}
    for text, member in type_._object_lookup.items():  # noqa: SLF001 - what the ORM itself looks up
        if text is not None:
            found.setdefault(member, []).append(text)
    return found


def _values(loaded: Loaded, values: Sequence[Any], what: str) -> Encoded | Unsupported:
    natural = {"str": str, "int": int}.get(loaded.kind)
    plain = [value.value if isinstance(value, Enum) else value for value in values]
    if natural is None or any(type(value) is not natural for value in plain):
        return mismatch(loaded, what)
    compared: ColumnElement[Any] = cast(loaded.sql, Text).collate("C") if natural is str else loaded.sql
    if natural is int:
        condition = compared.in_([number(value) for value in plain])
        return Encoded(checked(loaded, and_(condition), loaded.sql))
    cases = [(compared == word(value), word(_json(value))) for value in plain if "\0" not in value]
    return Encoded(case(*cases, (loaded.sql.is_not(None), REFUSED))) if cases else mismatch(loaded, what)


def _json(value: Any) -> str:
    return to_json(value).decode()
