"""Columns of every type, values that are hard on them, and fields that read them."""

from __future__ import annotations

import datetime as dt
import enum
import ipaddress
import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal

import sqlalchemy as sa
from hypothesis import strategies as st
from pydantic import (
    UUID4,
    AwareDatetime,
    Field,
    FiniteFloat,
    IPvAnyAddress,
    JsonValue,
    NaiveDatetime,
    PositiveInt,
    StringConstraints,
)
from sqlalchemy.dialects import postgresql as pg


class Colour(enum.Enum):
    red = "R"
    green = 'it\'s "green" \\ 100% :x'
    blue = 3


class Status(enum.StrEnum):
    new = "new"
    paid = "paid up"


class Level(enum.IntEnum):
    low = 1
    high = 10


@dataclass(frozen=True)
class Kind:
    """A type of column, its values, and the annotations under which a field may read it."""

    name: str
    type: Any
    values: st.SearchStrategy[Any]
    fields: tuple[Any, ...]
    #: Values that only SQL can write.
    literals: tuple[str, ...] = ()
    #: Annotations that are read in Python.
    python: tuple[Any, ...] = field(default=())


TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    [
        "",
        " ",
        "\t x \u00a0",
        "\x01\x1f\x7f\x85",
        "\u2028\u2029",
        "😀",
        '"\\/\b\f\n\r\t',
        "abc",
        "ABC",
        "İI",
        "%s :x $1 {}",
    ]
)


def _mostly(ordinary: st.SearchStrategy[Any], *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return ordinary values, and one in ten of the others: of ten nested rows not each should hold what is rare."""
    return st.integers(0, 9).flatmap(lambda number: st.one_of(*others) if not number else ordinary)


_FLOATS = _mostly(
    st.floats(-1e9, 1e9) | st.decimals(-(10**6), 10**6, places=2).map(float),
    st.floats(),
    st.floats(width=32),
    st.integers(-(2**53), 2**53).map(float),
    st.sampled_from(
        [0.0, -0.0, 100.0, 1e15, 1e16, 999999999999999.9, 1e-4, 1e-5, 9.999e-6, 1e-7, 1e22, 5e-324, 1.7e308]
    ),
)
_REALS = _mostly(st.integers(-(10**7), 10**7).map(lambda number: number / 128), st.floats(width=32))
_BYTES = _mostly(st.text("ab1 _'", max_size=60).map(str.encode), st.binary(max_size=60), TEXTS.map(str.encode))
_NEW_YEAR = dt.datetime(2024, 1, 1)  # noqa: DTZ001 - a column without a zone holds such
_MOMENTS = st.datetimes() | st.builds(
    lambda moment, micro: moment.replace(microsecond=micro),
    st.datetimes(),
    st.sampled_from([0, 1, 10, 500_000, 999_999, 100, 123_450]),
)
_DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, places=9, min_value=-1000, max_value=1000) | st.decimals(
    allow_nan=False, allow_infinity=False, places=2, min_value=-(10**9), max_value=10**9
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e6, 1e6) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
_OBJECTS = st.dictionaries(TEXTS, JSON_VALUES, max_size=3)
_SPANS = st.timedeltas(dt.timedelta(days=-100_000), dt.timedelta(days=100_000)) | st.sampled_from(
    [dt.timedelta(0), dt.timedelta(1), dt.timedelta(365), dt.timedelta(hours=1), dt.timedelta(microseconds=-1)]
)


def kinds() -> list[Kind]:
    """Return the kinds of columns."""
    ints = st.integers(-(2**31), 2**31 - 1) | st.sampled_from([0, 1, 10, -1])
    infinite = ("'infinity'", "'-infinity'")
    return [
        Kind(
            "int4",
            sa.Integer(),
            ints,
            (
                int,
                float,
                Decimal,
                PositiveInt,
                Annotated[int, Field(ge=-1, lt=11, multiple_of=2)],
                bool,
                Level,
                Literal[1, 10],
                int | str,
                Any,
                Annotated[Decimal, Field(max_digits=3)],
                Annotated[int, Field(strict=True)],
                Annotated[float, Field(le=10)],
            ),
            python=(str, Status, dt.datetime, Literal["a"]),
        ),
        Kind("int8", sa.BigInteger(), st.integers(-(2**63), 2**63 - 1), (int, float, Decimal, Any)),
        Kind("int2", sa.SmallInteger(), st.integers(-5, 11), (int, bool, Level, float)),
        Kind("boolean", sa.Boolean(), st.booleans(), (bool, int, float, Any, bool | int), python=(str, Decimal)),
        Kind(
            "text",
            sa.Text(),
            TEXTS,
            (
                str,
                Any,
                Annotated[str, Field(max_length=3, min_length=1)],
                Annotated[str, StringConstraints(strip_whitespace=True)],
                Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2)],
                Annotated[str, StringConstraints(to_lower=True)],
                Annotated[str, StringConstraints(to_upper=True)],
                Annotated[str, Field(pattern=r"^[a-zA-Z]{3}$")],
                Annotated[str, Field(pattern=r"^\w+$")],
                Status,
                Literal["abc", "ABC", "%s :x $1 {}", "it's"],
                str | int,
                Annotated[str, Field(strict=True)],
            ),
            python=(int, uuid.UUID, dt.date, Decimal, bytes, Annotated[str, Field(pattern="a|b")]),
        ),
        Kind(
            "varchar",
            sa.String(12),
            TEXTS,
            (str, Annotated[str, Field(max_length=20)], Annotated[str, Field(max_length=5)]),
        ),
        Kind(
            "padded",
            sa.CHAR(15),
            TEXTS,
            (str, Any, Annotated[str, StringConstraints(strip_whitespace=True)]),
            python=(Annotated[str, Field(max_length=3)],),
        ),
        Kind(
            "float8",
            sa.Double(),
            _FLOATS,
            (float, Any, FiniteFloat, int, Annotated[float, Field(gt=0, le=100)], Decimal, float | str),
            python=(str, Annotated[float, Field(multiple_of=0.1)]),
        ),
        Kind("float4", sa.REAL(), _REALS, (float, Any, FiniteFloat, int)),
        Kind(
            "numeric",
            sa.Numeric(),
            _DECIMALS,
            (
                Decimal,
                float,
                int,
                Any,
                Annotated[Decimal, Field(gt=0)],
                Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
                Annotated[Decimal, Field(max_digits=4)],
                Annotated[Decimal, Field(allow_inf_nan=True)],
            ),
            (
                "'NaN'",
                "'Infinity'",
                "'-Infinity'",
                "0.0000000",
                "-0.0000001",
                "1e30",
                "1e-12",
                "10000",
                "-120000",
                "100010000",
                "1.5e20",
                "10000.0",
                "0.00000012345",
                "-0.0000001200",
                "10000",
                "-120000",
                "100010000",
                "1.5e20",
                "10000.0",
                "0.00000012345",
                "-0.0000001200",
                "0.0000010",
                "123456789012345678901234567890.12",
            ),
            python=(str, bool),
        ),
        Kind(
            "money",
            sa.Numeric(12, 2),
            st.decimals(-(10**9), 10**9, places=2),
            (Decimal, float, int, Any, Annotated[Decimal, Field(max_digits=12, decimal_places=2)]),
            ("'NaN'",),
        ),
        Kind("real", sa.Numeric(20, 6, asdecimal=False), st.decimals(-(10**9), 10**9, places=6), (float, Any)),
        Kind(
            "date",
            sa.Date(),
            st.dates(),
            (dt.date, dt.datetime, Any, Annotated[dt.date, Field(gt=dt.date(2000, 1, 1))], NaiveDatetime),
            (*infinite, "'0044-03-15 BC'", "'10000-01-01'"),
            python=(str, AwareDatetime),
        ),
        Kind(
            "moment",
            sa.DateTime(),
            _MOMENTS,
            (dt.datetime, Any, NaiveDatetime, dt.date, Annotated[dt.datetime, Field(lt=_NEW_YEAR)]),
            (*infinite, "'0044-03-15 BC'", "'10000-01-01'", "'2024-01-01'"),
            python=(AwareDatetime, dt.time),
        ),
        Kind(
            "instant",
            sa.DateTime(timezone=True),
            _MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC)),
            (
                dt.datetime,
                Any,
                AwareDatetime,
                dt.date,
                Annotated[dt.datetime, Field(lt=dt.datetime(2024, 1, 1, tzinfo=dt.UTC))],
            ),
            (*infinite, "'0044-03-15 BC'", "'10000-01-01'", "'2024-01-01 00:00+00'", "'2024-07-01 00:00:00.5+02'"),
            python=(NaiveDatetime,),
        ),
        Kind(
            "clock",
            sa.Time(),
            st.times(),
            (dt.time, Any, Annotated[dt.time, Field(lt=dt.time(12, 30))]),
            ("'24:00'", "'12:00:00.5'"),
        ),
        Kind(
            "zoned",
            sa.Time(timezone=True),
            st.times(
                timezones=st.builds(lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)), st.integers(-900, 900))
            ),
            (dt.time, Any),
            ("'12:00:00.5+00'", "'12:00+01:01:01'"),
        ),
        Kind(
            "span",
            sa.Interval(),
            _SPANS,
            (dt.timedelta, Any, Annotated[dt.timedelta, Field(gt=dt.timedelta(1))]),
            ("'1 year 2 months 3 days 04:05:06.7'", "'-1 mons +1 day -00:00:01'", "'14 months'", "'-1 year'"),
        ),
        Kind("uuid", sa.Uuid(), st.uuids() | st.uuids(version=4), (uuid.UUID, Any, UUID4), python=(str, int)),
        Kind("uuid_text", sa.Uuid(as_uuid=False), st.uuids().map(str), (str, uuid.UUID, Any)),
        Kind("uuid_char", sa.Uuid(native_uuid=False), st.uuids(), (uuid.UUID, Any)),
        Kind(
            "bytes",
            sa.LargeBinary(),
            _BYTES,
            (bytes, Any, Annotated[bytes, Field(min_length=1, max_length=10)]),
            python=(str,),
        ),
        Kind(
            "json",
            sa.JSON(),
            JSON_VALUES,
            (Any, dict[str, Any]),
            ('\'{"a":"\\ud800"}\'', '\'{"a": 1, "a" : "\\u0000"}\''),
            python=(int, str, JsonValue),
        ),
        Kind(
            "jsonb",
            pg.JSONB(),
            JSON_VALUES,
            (Any, dict[str, Any], dict, list, list[Any], object),
            ("'null'", '\'{"a": 1.10, "b": 1e3}\''),
            python=(int, dict[int, Any], dict[str, int]),
        ),
        Kind("objects", pg.JSONB(), _OBJECTS, (dict[str, Any], dict[str, str], dict[str, bool | None])),
        Kind(
            "tags",
            pg.JSONB(),
            st.lists(TEXTS, max_size=3) | st.lists(st.none() | TEXTS, max_size=3),
            (list[str], list[str | None], list),
        ),
        Kind("colour", sa.Enum(Colour, name="colour"), st.sampled_from(Colour), (Colour, Any), python=(Status, str)),
        Kind(
            "status",
            sa.Enum(Status, name="status", values_callable=lambda cls: [member.value for member in cls]),
            st.sampled_from(Status),
            (Status, str, Any, Literal["new", "paid up"], Literal["new"]),
        ),
        Kind("status_text", sa.Enum(Status, native_enum=False), st.sampled_from(Status), (Status, str)),
        Kind(
            "plain_enum",
            sa.Enum("a", "it's", name="plain_enum"),
            st.sampled_from(["a", "it's"]),
            (str, Any, Literal["a", "it's"]),
        ),
        Kind(
            "int_array",
            pg.ARRAY(sa.Integer),
            st.lists(ints, max_size=4),
            (
                list[int],
                list[int | None],
                Any,
                list[float],
                tuple[int, ...],
                Annotated[list[int], Field(max_length=2)],
                list[PositiveInt],
                list,
            ),
            ("'{}'", "'{1,NULL}'", "'{{1,2},{3,4}}'", "'[0:1]={1,2}'"),
            python=(set[int], tuple[int, int], list[str]),
        ),
        Kind(
            "text_array",
            pg.ARRAY(sa.Text),
            st.lists(TEXTS, max_size=3),
            (list[str], list[str | None], Any, list[Annotated[str, Field(max_length=3)]]),
            ("'{NULL}'", "'{{a}}'"),
        ),
        Kind(
            "deep_array",
            pg.ARRAY(sa.Integer, dimensions=2),
            st.lists(st.lists(ints, min_size=2, max_size=2), max_size=3),
            (list[list[int | None]], list[list[int]]),
            ("'{}'", "'{1,2}'", "'{{1,NULL}}'"),
        ),
        Kind(
            "numeric_array",
            pg.ARRAY(sa.Numeric),
            st.lists(_DECIMALS, max_size=3),
            (list[Decimal], list[Decimal | None], list[float], Any),
            ("'{NULL,1.50}'", "'{NaN}'", "'{{1}}'"),
        ),
        Kind("float_array", pg.ARRAY(sa.Double), st.lists(_FLOATS, max_size=3), (list[float], Any)),
        Kind(
            "instant_array",
            pg.ARRAY(sa.DateTime(timezone=True)),
            st.lists(_MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC)), max_size=3),
            (list[dt.datetime], Any),
        ),
        Kind(
            "enum_array",
            pg.ARRAY(sa.Enum(Colour, name="colour")),
            st.lists(st.sampled_from(Colour), max_size=3),
            (list[Colour], Any),
        ),
        Kind(
            "inet",
            pg.INET(),
            st.ip_addresses() | st.ip_addresses(network="10.0.0.0/8"),
            (IPvAnyAddress, ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Interface),
            ("'10.1.2.3/8'", "'::ffff:1.2.3.4'", "'::1.2.3.4'", "'1:0:2:3:4:5:6:7'", "'fe80::1/64'"),
            python=(str,),
        ),
        Kind(
            "cidr",
            pg.CIDR(),
            st.ip_addresses(v=4).map(ipaddress.ip_network),
            (ipaddress.IPv4Network, ipaddress.IPv6Network),
            ("'10.0.0.0/8'", "'fe80::/64'"),
        ),
        Kind("mac", pg.MACADDR(), st.sampled_from(["08:00:2b:01:02:03"]), (str, Any)),
        Kind("citext", pg.CITEXT(), TEXTS, (str, Literal["abc"], Annotated[str, Field(max_length=3)])),
        Kind(
            "hstore",
            pg.HSTORE(),
            st.dictionaries(TEXTS, st.none() | TEXTS, max_size=3),
            (dict[str, str | None], dict[str, str], Any, dict),
        ),
    ]
