"""Dates, times, and spans of time."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Date, DateTime, Double, Text, Time, and_, case, cast, func, literal_column
from sqlalchemy.dialects.postgresql import TIMESTAMP

from verdigris.loading.json.types.numbers import _float_text, mismatch
from verdigris.loading.json.types.values import (
    Encoded,
    Loaded,
    Unsupported,
    Wanted,
    as_text,
    checked,
    escaped,
    joined,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import ColumnElement

_FIRST_DAY, _LAST_DAY = "date '0001-01-01'", "date '9999-12-31'"
_FIRST, _LAST = "'0001-01-01 00:00:00'", "'9999-12-31 23:59:59.999999'"
_DAY = 86_400_000_000


def date(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a date; years that Python has no date for are refused, the infinities too."""
    value = loaded.sql
    conditions: list[ColumnElement[bool]] = []
    match loaded.kind:
        case "date":
            pass
        case "datetime" | "datetime utc":
            moment = _utc(loaded)
            value = cast(moment, Date)
            conditions.append(moment == cast(value, DateTime))
        case _:
            return mismatch(loaded, "a date")
    if _other_unit(wanted):
        return Unsupported("ser_json_temporal is not iso8601")
    conditions += [value.between(literal_column(_FIRST_DAY), literal_column(_LAST_DAY))]
    conditions += _bounds(value, wanted, dt.date, lambda bound: literal_column(f"date '{bound.isoformat()}'"))
    return Encoded(checked(loaded, and_(*conditions), escaped(value)))


def moment(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a datetime: six digits of a fraction or none, "Z" where the column has a time zone."""
    wanted.take("microseconds_precision")
    zone = wanted.take("tz_constraint")
    if loaded.kind not in {"date", "datetime", "datetime utc"}:
        return mismatch(loaded, "a datetime")
    aware = loaded.kind == "datetime utc"
    if zone not in {None, "aware" if aware else "naive"}:
        return Unsupported(
            f"the column is {'' if aware else 'not '}aware of time zones, the field must {'not ' * aware}be"
        )
    if _other_unit(wanted):
        return Unsupported("ser_json_temporal is not iso8601")
    column = loaded.sql if aware else cast(loaded.sql, DateTime) if loaded.kind == "date" else loaded.sql
    name = "timestamptz" if aware else "timestamp"
    offset = "+00" if aware else ""
    conditions: list[ColumnElement[bool]] = [
        column.between(
            literal_column(f"{name} {_FIRST[:-1]}{offset}'"), literal_column(f"{name} {_LAST[:-1]}{offset}'")
        )
    ]
    if loaded.kind == "date":
        conditions = [loaded.sql.between(literal_column(_FIRST_DAY), literal_column(_LAST_DAY))]

    def literal(bound: dt.datetime) -> ColumnElement[Any]:
        return literal_column(f"{name} '{bound.isoformat(sep=' ')}'")

    conditions += _bounds(column, wanted, dt.datetime, literal, aware=aware)
    zulu = '"Z\\""' if aware else '\\"'
    local = _utc(loaded) if aware else column
    whole = cast(local, TIMESTAMP(precision=0)) == local
    form = '\\"YYYY-MM-DD"T"HH24:MI:SS'
    pattern = case((whole, word(form + zulu)), else_=word(form + ".US" + zulu))
    return Encoded(checked(loaded, and_(*conditions), func.to_char(local, pattern, type_=Text())))


def time(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a time of day: six digits of a fraction or none, the offset where the column has one."""
    wanted.take("microseconds_precision")
    zone = wanted.take("tz_constraint")
    if loaded.kind not in {"time", "time zoned"}:
        return mismatch(loaded, "a time")
    aware = loaded.kind == "time zoned"
    if zone not in {None, "aware" if aware else "naive"}:
        return Unsupported(
            f"the column is {'' if aware else 'not '}aware of time zones, the field must {'not ' * aware}be"
        )
    if _other_unit(wanted):
        return Unsupported("ser_json_temporal is not iso8601")
    local = cast(loaded.sql, Time)
    conditions = [local < literal_column("time '24:00'")]
    conditions += _bounds(local, wanted, dt.time, lambda bound: literal_column(f"time '{bound.isoformat()}'"))
    text = as_text(local)
    padded = case(
        (func.length(text) == literal_column("8"), text), else_=func.rpad(text, literal_column("15"), word("0"))
    )
    parts: list[ColumnElement[Any] | str] = ['"', padded, _offset(loaded.sql) if aware else "", '"']
    return Encoded(checked(loaded, and_(*conditions), joined(*parts)))


def _offset(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a time's offset as Pydantic writes it: Z, or hours and minutes."""
    seconds = func.date_part(word("timezone"), value)
    size = func.abs(seconds)
    sign = case((seconds < literal_column("0"), word("-")), else_=word("+"))
    two = word("FM00")
    hours = func.to_char(func.floor(size / literal_column("3600")), two, type_=Text())
    minutes = func.to_char(func.floor(size / literal_column("60")).op("-")(
        func.floor(size / literal_column("3600")) * literal_column("60")), two, type_=Text())  # fmt: skip
    return case((seconds == literal_column("0"), word("Z")), else_=joined(sign, hours, ":", minutes))


def span(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a timedelta: as ISO 8601 with years of 365 days, or in seconds, as the config says."""
    wanted.take("microseconds_precision")
    mode = wanted.take("ser_json_timedelta") or "iso8601"
    if loaded.kind != "timedelta":
        return mismatch(loaded, "a timedelta")
    if wanted.take("ser_json_temporal") not in {None, "iso8601"}:
        return Unsupported("ser_json_temporal is not iso8601")
    micros = _microseconds(loaded.sql)
    conditions = list(_bounds(micros, wanted, dt.timedelta, lambda bound: literal_column(str(_as_micros(bound)))))
    conditions.append(func.abs(micros) <= literal_column(str(999_999_999 * _DAY)))
    if mode == "float":
        conditions.append(func.abs(micros) < literal_column(str(2**53)))
        text = _float_text(cast(micros, Double) / literal_column("1e6::float8"))
    else:
        text = _iso(micros)
    return Encoded(checked(loaded, and_(*conditions), text))


def _microseconds(value: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return an interval's length as the driver counts it: a month has 30 days, twelve of them 365."""

    def part(name: str) -> ColumnElement[Any]:
        return cast(func.date_part(word(name), value), BigInteger)

    days = part("year") * literal_column("365") + part("month") * literal_column("30") + part("day")
    clock = part("hour") * literal_column("3600000000") + part("minute") * literal_column("60000000")
    return days * literal_column(str(_DAY)) + clock + part("microseconds")


def _iso(micros: ColumnElement[Any]) -> ColumnElement[Any]:
    size = func.abs(micros)
    units = (("Y", 365 * _DAY, None), ("D", _DAY, 365), ("H", 3_600_000_000, 24), ("M", 60_000_000, 60))
    said = []
    for letter, length, wraps in units:
        count = cast(func.div(size, literal_column(str(length))), BigInteger)
        if wraps is not None:
            count = cast(func.mod(count, literal_column(str(wraps))), BigInteger)
        said.append(case((count > literal_column("0"), joined(count, letter)), else_=word("")))
    below = cast(func.mod(size, literal_column("60000000")), BigInteger)
    fraction = func.mod(below, literal_column("1000000"))
    digits = func.rtrim(func.lpad(as_text(fraction), literal_column("6"), word("0")), word("0"), type_=Text())
    point = case((fraction == literal_column("0"), word("")), else_=joined(".", digits))
    seconds = joined(cast(func.div(below, literal_column("1000000")), BigInteger), point, "S")
    sign = case((micros < literal_column("0"), word("-")), else_=word(""))
    clock = func.mod(size, literal_column(str(_DAY)))
    middle = case(
        (clock == literal_column("0"), word("")),
        else_=joined("T", said[2], said[3], case((below == literal_column("0"), word("")), else_=seconds)),
    )
    text = joined('"', sign, "P", said[0], said[1], middle, '"')
    return case((micros == literal_column("0"), word('"PT0S"')), else_=text)


def _utc(loaded: Loaded) -> ColumnElement[Any]:
    """Return the local time of a column, in UTC where it has a zone, whatever the session's zone is."""
    if loaded.kind != "datetime utc":
        return loaded.sql
    return func.timezone(word("UTC"), loaded.sql, type_=DateTime())


def _other_unit(wanted: Wanted) -> bool:
    return wanted.take("ser_json_temporal") not in {None, "iso8601"}


def _as_micros(value: dt.timedelta) -> int:
    return value // dt.timedelta(microseconds=1)


def _bounds(
    value: ColumnElement[Any],
    wanted: Wanted,
    cls: type,
    literal: Callable[[Any], ColumnElement[Any]],
    *,
    aware: bool = False,
) -> Iterator[ColumnElement[bool]]:
    compare = {"gt": "__gt__", "ge": "__ge__", "lt": "__lt__", "le": "__le__"}
    for name, operator in compare.items():
        bound = wanted.schema.get(name)
        same_zone = getattr(bound, "tzinfo", None) is not None if aware else getattr(bound, "tzinfo", None) is None
        if bound is not None and type(bound) is cls and same_zone:
            wanted.take(name)
            yield getattr(value, operator)(literal(bound))
