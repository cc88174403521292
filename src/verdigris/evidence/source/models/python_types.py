"""The Python type of what a column of a SQLAlchemy type holds: a builtin's name, or `module:name`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLDING: Mapping[str, str] = {
    "int": "Integer INTEGER BigInteger BIGINT SmallInteger SMALLINT",
    "str": "String Text TEXT Unicode UnicodeText VARCHAR CHAR NVARCHAR",
    "bool": "Boolean BOOLEAN",
    "float": "Float FLOAT Double DOUBLE DOUBLE_PRECISION REAL",
    "bytes": "LargeBinary BYTEA",
    "decimal:Decimal": "Numeric NUMERIC DECIMAL",
    "datetime:datetime": "DateTime TIMESTAMP",
    "datetime:date": "Date DATE",
    "datetime:time": "Time TIME",
    "datetime:timedelta": "Interval INTERVAL",
    "uuid:UUID": "UUID Uuid",
    "typing:Any": "JSON JSONB",
}
PYTHON_TYPES: Mapping[str, str] = {name: python for python, names in _HOLDING.items() for name in names.split()}
