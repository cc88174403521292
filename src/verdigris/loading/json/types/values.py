"""What `encode` takes and gives, and the small pieces of SQL that every encoding is made of."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import Text, case, cast, literal_column
from sqlalchemy.dialects.postgresql import JSON
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement
    from sqlalchemy.sql.compiler import SQLCompiler
    from sqlalchemy.types import TypeEngine

    Schema = Mapping[str, Any]

#: Printed in place of a value that this SQL cannot print, or that Pydantic would refuse. A raw control character never
#: occurs in JSON, so whoever reads the answer finds it for certain, and reads this one answer by the loader path.
REFUSED: ColumnElement[str] = literal_column("chr(1)", Text)

#: What the ORM gives for a column, by the Python type of the value.
Kind = Literal[
    "int", "bool", "float", "decimal", "str", "enum", "bytes", "uuid", "date", "datetime", "datetime utc", "time",
    "time zoned", "timedelta", "list", "json", "hstore", "inet", "cidr",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Encoded:
    """An expression whose text form is the JSON of a value, NULL exactly where the value is None."""

    sql: ColumnElement[Any]


@dataclass(frozen=True, slots=True)
class Unsupported:
    """No SQL prints this; `reason` completes the sentence "Order.total is read in Python: …"."""

    reason: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """A column as the ORM would load it: the kind of its values, and the SQL that stands for them."""

    kind: Kind
    sql: ColumnElement[Any]
    #: The type of SQLAlchemy behind it, without decorators and variants.
    type: TypeEngine[Any]


#: What Rust's trim() takes for white space.
BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(map(chr, range(0x2000, 0x200B)))
_SAID_ELSEWHERE = frozenset({"type", "metadata", "ref", "strict"})
_OFF: tuple[Any, ...] = (None, False)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The core schema that the value goes through, with the core config of the model that has the field.

    Options and constraints are taken from it by name, so that what nobody took is known at the end: a constraint that
    no SQL checks, or one that a later Pydantic invents, is never passed over.
    """

    schema: Schema
    config: Schema = field(default_factory=dict)
    taken: set[str] = field(default_factory=lambda: set(_SAID_ELSEWHERE))

    def take(self, name: str, config_name: str | None = None) -> Any:
        """Return an option of the schema, else of the model's config, else None."""
        self.taken.add(name)
        value = self.schema.get(name)
        return self.config.get(config_name or name) if value is None else value

    def left(self) -> list[str]:
        """Return the options that nobody took."""
        return sorted(name for name in self.schema.keys() - self.taken if self.schema[name] not in _OFF)

    def with_schema(self, schema: Schema) -> Wanted:
        """Return the same for a schema inside this one."""
        return replace(self, schema=schema, taken=set(_SAID_ELSEWHERE))


def word(text: str) -> ColumnElement[str]:
    r"""Return a text as it stands in SQL: never a bound parameter, so that the plan sees a constant.

    A backslash means itself under `standard_conforming_strings` only; in E'' it is doubled under either setting.
    """
    quoted = text.replace("'", "''")
    if "\\" not in text:
        return literal_column(f"'{quoted}'", Text)
    escaped_text = quoted.replace("\\", "\\\\")
    return literal_column(f"E'{escaped_text}'", Text)


def number(value: int) -> ColumnElement[int]:
    """Return an integer as it stands in SQL."""
    return literal_column(str(int(value)))


def joined(*parts: ColumnElement[Any] | str) -> ColumnElement[str]:
    """Return texts one after the other, NULL where one of them is."""
    columns = [word(part) if isinstance(part, str) else as_text(part) for part in parts]
    result = columns[0]
    for part in columns[1:]:
        result = result.op("||", return_type=Text())(part)
    return result


def as_text(sql: ColumnElement[Any]) -> ColumnElement[str]:
    """Return the text form of a value."""
    return sql if isinstance(sql.type, Text) else cast(sql, Text)


def quoted(sql: ColumnElement[Any]) -> ColumnElement[str]:
    """Return a value's text form between quotes: for texts that need no escape."""
    return joined('"', sql, '"')


class as_json(FunctionElement[Any]):  # noqa: N801 - reads as a function
    """One value, no array, as JSON.

    `JSON_SCALAR`, of PostgreSQL 17 and later, learns the value's type when the statement starts, `to_json` each time:
    for a short text it takes half as long.
    """

    name = "as_json"
    type = JSON()
    inherit_cache = True


@compiles(as_json)
def _as_json(element: as_json, compiler: SQLCompiler, **options: Any) -> str:
    version = compiler.dialect.server_version_info  # None before the first connection
    function = "json_scalar" if version is not None and version >= (17,) else "to_json"
    return f"{function}({compiler.process(element.clauses, **options)})"


def escaped(sql: ColumnElement[Any]) -> ColumnElement[str]:
    """Return what PostgreSQL's own JSON is for a value; it escapes text as Pydantic does."""
    return cast(as_json(sql), Text)


def checked(
    loaded: Loaded | ColumnElement[Any], condition: ColumnElement[bool], printed: ColumnElement[Any]
) -> ColumnElement[Any]:
    """Return what is printed under a condition, REFUSED without it, NULL where the value is."""
    column = loaded.sql if isinstance(loaded, Loaded) else loaded
    return case((condition, as_text(printed)), (column.is_not(None), REFUSED))
