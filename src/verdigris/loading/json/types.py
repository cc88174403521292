"""Which SQL prints a column as Pydantic would print it: `encode(column, type, schema)`.

An object of the answer is one chain of texts, `'{"id":' || id || ',"name":' || to_json(name) || '}'`, so an encoded
column is an expression whose *text form is the JSON*: quotes, escapes and all; anything but an array, which `||` would
take for something else. It is NULL exactly where the column is NULL; what is printed then is the caller's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Date, Integer, String, Text, Uuid, case, func, literal_column
from sqlalchemy.types import Enum

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.types import TypeEngine

    Schema = Mapping[str, Any]

#: Printed in place of a value that this SQL cannot print, or that Pydantic would refuse. A raw control character never
#: occurs in JSON, so whoever reads the answer finds it for certain, and reads this one answer by the loader path.
REFUSED: ColumnElement[str] = literal_column("chr(1)", Text)


@dataclass(frozen=True, slots=True)
class Encoded:
    """An expression whose text form is the JSON of a value, NULL where the value is NULL."""

    sql: ColumnElement[Any]
    #: Whether it may print REFUSED, so that the answer has to be looked through.
    may_refuse: bool = False


@dataclass(frozen=True, slots=True)
class Unsupported:
    """No SQL prints this; `reason` completes the sentence "Order.total is read in Python: …"."""

    reason: str


def encode(
    column: ColumnElement[Any],
    type_: TypeEngine[Any],
    schema: Schema,
    config: Schema | None = None,  # noqa: ARG001 - what times, bytes and floats will depend on
) -> Encoded | Unsupported:
    """Return SQL that prints `column`, a value that the ORM would load as `type_` says, as `schema` dumps it.

    `schema` is the core schema of the field's value, without the default, the nullability and the references around it;
    `config` is the core config of the model that has the field.
    """
    if "serialization" in schema:
        return Unsupported("it has a serializer of its own")
    encoder = _ENCODERS.get(schema["type"])
    if encoder is None:
        return Unsupported(f"no SQL prints a {schema['type']}")
    constraints = sorted(schema.keys() - {"type", "metadata", "ref"})
    if constraints:
        return Unsupported(f"no SQL checks {', '.join(constraints)}")
    return encoder(column, type_)


def _integer(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Encoded | Unsupported:
    return Encoded(column) if isinstance(type_, Integer) else _mismatch("int", type_)


def _text(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Encoded | Unsupported:
    plain = isinstance(type_, String) and not isinstance(type_, Enum)
    return Encoded(func.to_json(column)) if plain else _mismatch("str", type_)


def _boolean(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Encoded | Unsupported:
    if not isinstance(type_, Boolean):
        return _mismatch("bool", type_)
    words = {True: literal_column("'true'", Text), False: literal_column("'false'", Text)}
    return Encoded(case(*((column.is_(value), word) for value, word in words.items())))


def _date(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Encoded | Unsupported:
    return Encoded(func.to_json(column)) if isinstance(type_, Date) else _mismatch("date", type_)


def _uuid(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Encoded | Unsupported:
    return Encoded(func.to_json(column)) if isinstance(type_, Uuid) else _mismatch("uuid", type_)


def _mismatch(wanted: str, type_: TypeEngine[Any]) -> Unsupported:
    return Unsupported(f"a column of type {type_!r} is read as {wanted}")


_ENCODERS: dict[str, Callable[[ColumnElement[Any], TypeEngine[Any]], Encoded | Unsupported]] = {
    "int": _integer,
    "str": _text,
    "bool": _boolean,
    "date": _date,
    "uuid": _uuid,
}
