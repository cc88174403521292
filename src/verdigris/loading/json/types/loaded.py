"""What the ORM gives for a column of a type: the kind of its values, and which SQL stands for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Date,
    DateTime,
    Double,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    PickleType,
    String,
    Text,
    Time,
    TypeDecorator,
    Uuid,
    case,
    cast,
    func,
    literal_column,
)
from sqlalchemy.dialects import postgresql as pg
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.types import ARRAY, JSON, UserDefinedType

from verdigris.loading.json.types.values import Kind, Loaded, Unsupported

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import ColumnElement, Dialect
    from sqlalchemy.types import TypeEngine

#: The method by which a type of one's own says in SQL what its Python code makes of a column. The expression that it
#: returns has the type of what the Python code returns.
SQL_FORM = "as_loaded_sql"
_DIALECT: Dialect = PGDialect_asyncpg()  # type: ignore[no-untyped-call]


def loaded(column: ColumnElement[Any], type_: TypeEngine[Any]) -> Loaded | Unsupported:
    """Return what the ORM loads for a column, or why only Python knows."""
    form = getattr(type_, SQL_FORM, None)
    if form is not None:
        expression = form(column)
        return loaded(expression, expression.type)
    variant = type_._variant_mapping.get("postgresql")  # noqa: SLF001 - with_variant() is asked in no other way
    if variant is not None:
        return loaded(column, variant)
    if _is_moment_of_sqlmodel(type_):
        return Loaded("datetime utc", _moment(column), DateTime(timezone=True))
    own = _own_code(type_)
    if own is not None:
        return Unsupported(f"{type(type_).__name__}.{own} is Python code")
    if isinstance(type_, Interval):  # a decorator of DateTime, for databases that have no intervals
        return _interval(column, type_)
    if isinstance(type_, pg.DOMAIN):
        return loaded(column, type_.data_type)
    if isinstance(type_, TypeDecorator) and not isinstance(type_, PickleType):
        if type(type_).load_dialect_impl is not TypeDecorator.load_dialect_impl:
            return loaded(column, type_.load_dialect_impl(_DIALECT))
        return loaded(column, type_.impl_instance)
    for classes, say in _KINDS:
        if isinstance(type_, classes):
            return say(column, type_)
    return Unsupported(f"no SQL is known for a column of type {type(type_).__name__}")


def _own_code(type_: TypeEngine[Any]) -> str | None:
    """Name the method by which a type that is not SQLAlchemy's own makes other values of what the driver gives."""
    for name in ("process_result_value", "result_processor", "column_expression"):
        method = getattr(type(type_), name, None)
        if method is not None and not method.__module__.startswith("sqlalchemy."):
            return name
    return None


def _is_moment_of_sqlmodel(type_: TypeEngine[Any]) -> bool:
    """Whether this is what SQLModel makes of a `datetime`, whose Python code leaves a moment the moment that it is."""
    process = getattr(type(type_), "process_result_value", None)
    return type(type_).__name__ == "UTCDateTime" and getattr(process, "__module__", "") == "sqlmodel.sql.sqltypes"


def _moment(column: ColumnElement[Any]) -> ColumnElement[Any]:
    """Return a `timestamptz` as it is, and a `timestamp`, which older releases of SQLModel made, as one in UTC."""
    is_plain = func.pg_typeof(column) == literal_column("'timestamp'::regtype")
    in_utc = func.timezone(literal_column("'UTC'", Text), cast(column, DateTime(timezone=False)))
    return case((is_plain, in_utc), else_=cast(column, DateTime(timezone=True)))


def _as(kind: Kind) -> Callable[[ColumnElement[Any], TypeEngine[Any]], Loaded | Unsupported]:
    return lambda column, type_: Loaded(kind, column, type_)


def _numeric(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    if not type_.asdecimal:
        return Loaded("float", cast(column, Double), type_)  # a float4 is widened, as the driver widens it
    if isinstance(type_, Float):
        return Unsupported("a float that SQLAlchemy makes a Decimal is rounded in Python")
    return Loaded("decimal", column, type_)


def _datetime(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    return Loaded("datetime utc" if type_.timezone else "datetime", column, type_)


def _time(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    return Loaded("time zoned" if type_.timezone else "time", column, type_)


def _uuid(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    if not type_.native_uuid:
        column = cast(column, Uuid(native_uuid=True))
    return Loaded("uuid" if type_.as_uuid else "str", column if type_.as_uuid else cast(column, Text), type_)


def _interval(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    if not type_.native:
        return Unsupported("an interval that is stored as a timestamp is computed in Python")
    return Loaded("timedelta", column, type_)


def _enum(column: ColumnElement[Any], type_: Any) -> Loaded | Unsupported:
    return Loaded("enum" if type_.enum_class is not None else "str", cast(column, Text), type_)


#: In this order: several of these classes are subclasses of later ones.
_KINDS: tuple[tuple[Any, Callable[[ColumnElement[Any], Any], Loaded | Unsupported]], ...] = (
    (PickleType, lambda *_: Unsupported("a pickle is read in Python")),
    (UserDefinedType, lambda _, type_: Unsupported(f"{type(type_).__name__} is a type of the application's own")),
    (Enum, _enum),
    (Boolean, _as("bool")),
    (Integer, _as("int")),
    (pg.OID, lambda column, type_: Loaded("int", cast(column, BigInteger), type_)),
    ((Numeric, Float), _numeric),
    (String, _as("str")),
    (Date, _as("date")),
    (DateTime, _datetime),
    (Time, _time),
    (pg.INTERVAL, _as("timedelta")),
    (Uuid, _uuid),
    (LargeBinary, _as("bytes")),
    (JSON, _as("json")),
    (ARRAY, _as("list")),
    (pg.HSTORE, _as("hstore")),
    (pg.INET, _as("inet")),
    (pg.CIDR, _as("cidr")),
    ((pg.MACADDR, pg.MACADDR8), lambda column, type_: Loaded("str", cast(column, Text), type_)),
)
