"""Numbers and truth values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import Double, Integer, Numeric, Text, and_, case, cast, func, literal_column, or_

from verdigris.loading.json.types.values import (
    REFUSED,
    Encoded,
    Loaded,
    Unsupported,
    Wanted,
    as_text,
    checked,
    joined,
    number,
    quoted,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import ColumnElement

#: Both write a float of this range in the same way; beyond it PostgreSQL turns to exponents earlier.
_SMALLEST: ColumnElement[Any] = literal_column("1e-4::float8")
_LARGEST: ColumnElement[Any] = literal_column("1e15::float8")
_INFINITY: ColumnElement[Any] = literal_column("'Infinity'::float8")


def integer(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print an int: also a bool, and a float or Decimal without a fraction, which Pydantic takes for one."""
    conditions = list(_bounds(loaded.sql, wanted, number))
    match loaded.kind:
        case "int":
            printed = loaded.sql
        case "bool":
            printed = cast(loaded.sql, Integer)
            conditions = list(_bounds(printed, wanted, number))
        case "decimal":
            printed = cast(func.trunc(loaded.sql), Text)
            conditions += [loaded.sql == func.trunc(loaded.sql), _is_finite(loaded.sql)]
        case "float":
            printed = cast(func.trunc(loaded.sql), Text)
            conditions += [loaded.sql == func.trunc(loaded.sql), func.abs(loaded.sql) < _LARGEST]
            printed = cast(cast(loaded.sql, Numeric), Text)  # no sign on zero
        case _:
            return mismatch(loaded, "an int")
    return Encoded(checked(loaded, and_(*conditions), printed) if conditions else printed)


def _is_finite(value: ColumnElement[Any]) -> ColumnElement[bool]:
    """Tell a numeric from NaN and the infinities, which have no scale; PostgreSQL 13 knows no infinite one."""
    return func.scale(value).is_not(None)


def floating(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a float as Pydantic does: 1.0, 1e-7, 1e+16; NaN and the infinities as the config says."""
    if loaded.kind not in {"float", "int", "bool", "decimal"}:
        return mismatch(loaded, "a float")
    mode = wanted.take("ser_json_inf_nan") or "null"
    finite = wanted.take("allow_inf_nan") is False
    value = cast(cast(loaded.sql, Integer) if loaded.kind == "bool" else loaded.sql, Double)
    conditions = list(_bounds(value, wanted, lambda bound: literal_column(f"{float(bound)!r}::float8")))
    if loaded.kind == "decimal":  # what is too large for a float is an error in SQL, an infinity in Python
        return Encoded(
            checked(loaded, and_(func.abs(loaded.sql) < literal_column("1e300"), *conditions), _float_text(value))
        )
    text = _float_text(value) if loaded.kind == "float" else _plain(value)
    if loaded.kind == "int":
        return Encoded(checked(loaded, and_(func.abs(value) < _LARGEST, *conditions), text))
    if loaded.kind == "bool":
        return Encoded(checked(loaded, and_(*conditions), text) if conditions else text)
    if finite or conditions or mode == "constants":  # constants are no JSON: the loader path writes them
        return Encoded(checked(loaded, and_(func.abs(value) < _INFINITY, *conditions), text))
    special = word("null") if mode == "null" else quoted(value)
    return Encoded(case((func.abs(value) < _INFINITY, text), (value.is_not(None), special)))


def _plain(value: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the text of a float between 1e-4 and 1e15, or zero: PostgreSQL's own, with ".0" for a whole one."""
    return case((value == func.trunc(value), joined(value, ".0")), else_=as_text(value))


def _float_text(value: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the text of a finite float; PostgreSQL uses exponents from 1e-5 down, of two digits.

    From 1e15 on it refuses: there PostgreSQL does not take the shortest of the texts that mean the same float.
    """
    size = func.abs(value)
    return case(
        (or_(and_(size >= _SMALLEST, size < _LARGEST), size == literal_column("0")), _plain(value)),
        (size < literal_column("1e-5::float8"), func.replace(as_text(value), word("e-0"), word("e-"), type_=Text())),
        (size < _SMALLEST, cast(cast(as_text(value), Numeric), Text)),
        else_=REFUSED,
    )


def decimal(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a Decimal, a string in Pydantic's JSON, with the digits that the database keeps."""
    value = loaded.sql
    endless = wanted.take("allow_inf_nan") is True
    conditions = list(_bounds(value, wanted, lambda bound: literal_column(f"{bound}::numeric")))
    limits = _digits(loaded, wanted)
    match loaded.kind:
        case "int":
            printed = quoted(value)
            conditions += limits(literal_column("0"))
        case "float":  # Python's repr, which is PostgreSQL's text in this range
            if conditions or limits(literal_column("0")):
                return Unsupported("no SQL checks what a Decimal made of a float has to be")
            size = func.abs(value)
            printed = quoted(_plain(value))
            conditions = [or_(and_(size >= _SMALLEST, size < _LARGEST), size == literal_column("0"))]
        case "decimal":
            conditions += limits(func.scale(value))
            conditions += [] if endless else [_is_finite(value)]
            printed = _decimal_text(loaded)
        case _:
            return mismatch(loaded, "a Decimal")
    return Encoded(checked(loaded, and_(*conditions), printed) if conditions else printed)


def _decimal_text(loaded: Loaded) -> ColumnElement[Any]:
    """Return what str() says of a Decimal: an exponent below 1E-6, and where the driver leaves out groups of zeros.

    PostgreSQL sends groups of four digits. asyncpg makes 120000 a Decimal of two digits and an exponent of four, which
    str() writes 1.2E+5, unless there are digits behind the point.
    """
    value, plain, scale = loaded.sql, quoted(loaded.sql), func.scale(loaded.sql)
    least, most = _scales(loaded)
    cases = []
    if most > 6:
        small = and_(scale > literal_column("6"), func.abs(value) < literal_column("0.000001"))
        digits = func.ltrim(as_text(func.abs(value) * func.power(literal_column("10::numeric"), scale)), word("0"))
        digits = func.split_part(digits, word("."), literal_column("1"), type_=Text())
        exponent = scale - func.greatest(func.length(digits), literal_column("1")) + literal_column("1")
        cases.append(
            (small, _scientific(value, func.coalesce(func.nullif(digits, word("")), word("0")), "E-", exponent))
        )
    if least == 0:
        whole = as_text(func.abs(value))
        zeros = func.length(whole) - func.length(func.rtrim(whole, word("0")))
        digits = func.left(whole, func.length(whole) - zeros + func.mod(zeros, literal_column("4")), type_=Text())
        grouped = and_(scale == literal_column("0"), value % literal_column("10000") == literal_column("0"))
        large = and_(grouped, value != literal_column("0"))
        cases.append((large, _scientific(value, digits, "E+", func.length(whole) - literal_column("1"))))
    return case(*cases, else_=plain) if cases else plain


def _scientific(
    value: ColumnElement[Any], digits: ColumnElement[Any], letter: str, exponent: ColumnElement[Any]
) -> ColumnElement[str]:
    first, rest = (
        func.left(digits, literal_column("1"), type_=Text()),
        func.substr(digits, literal_column("2"), type_=Text()),
    )
    sign = case((value < literal_column("0"), word("-")), else_=word(""))
    point = case((rest == word(""), word("")), else_=word("."))
    return joined('"', sign, first, point, rest, letter, exponent, '"')


def _scales(loaded: Loaded) -> tuple[int, int]:
    """Return the least and the largest number of digits that a column may keep behind the point."""
    type_: Any = loaded.type
    if type_.precision is None:
        return 0, 16383
    scale = max(type_.scale or 0, 0)
    return scale, scale


def _digits(loaded: Loaded, wanted: Wanted) -> Callable[[ColumnElement[Any]], list[ColumnElement[bool]]]:
    """Return the conditions under which a number surely keeps max_digits and decimal_places, given its scale."""
    digits, places = wanted.take("max_digits"), wanted.take("decimal_places")
    size = func.abs(cast(loaded.sql, Numeric))

    def conditions(scale: ColumnElement[Any]) -> list[ColumnElement[bool]]:
        found = []
        if places is not None:
            found.append(scale <= number(places))
        if digits is not None:
            whole = digits if places is None else digits - places
            found.append(size < func.power(literal_column("10::numeric"), number(whole)))
            if places is None:
                found.append(size * func.power(literal_column("10::numeric"), scale)
                             < func.power(literal_column("10::numeric"), number(digits)))  # fmt: skip
                found.append(scale <= number(digits))
        return found

    return conditions


def boolean(loaded: Loaded, _: Wanted) -> Encoded | Unsupported:
    """Print a bool, or an int that is 0 or 1."""
    if loaded.kind == "bool":
        return Encoded(as_text(loaded.sql))
    if loaded.kind == "int":
        cases = ((loaded.sql == number(1), word("true")), (loaded.sql == number(0), word("false")))
        return Encoded(case(*cases, (loaded.sql.is_not(None), literal_column("chr(1)", Text))))
    return mismatch(loaded, "a bool")


def _bounds(
    value: ColumnElement[Any], wanted: Wanted, literal: Callable[[Any], ColumnElement[Any]]
) -> Iterator[ColumnElement[bool]]:
    compare = {"gt": "__gt__", "ge": "__ge__", "lt": "__lt__", "le": "__le__"}
    for name, operator in compare.items():
        bound = wanted.take(name)
        if bound is not None:
            yield getattr(value, operator)(literal(bound))
    step = wanted.take("multiple_of")
    if step is not None:
        if wanted.schema["type"] == "float":
            wanted.taken.discard("multiple_of")  # no SQL checks it: Python's rule for floats is its own
        else:
            yield value % literal(step) == literal_column("0")


def mismatch(loaded: Loaded, wanted: str) -> Unsupported:
    """Return the answer to a pair of types that only Pydantic's validation brings together, or never fits."""
    said = {"datetime utc": "datetime", "time zoned": "time", "enum": "enum member"}.get(loaded.kind, loaded.kind)
    return Unsupported(f"{wanted} is made of a {said} in Python")
