"""docs/json-types.md says which types are printed, which are not, and why: it is so, and nothing is missing."""

from __future__ import annotations

import ast
import datetime as dt
import enum
import ipaddress
import re
import typing
from decimal import Decimal
from pathlib import Path
from uuid import UUID

import pydantic
import pytest
import sqlalchemy
from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import UserDefinedType
from tests.library.loading.json.comparing import field_schema

from verdigris.loading.json import types
from verdigris.loading.json.types import Encoded, Unsupported, encode

ROOT = Path(__file__).resolve().parents[4]
PAGE = (ROOT / "docs/json-types.md").read_text()


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Status(enum.StrEnum):
    new = "new"


class Level(enum.IntEnum):
    low = 1


class Odd(enum.Enum):
    half = Decimal("0.5")


class Inner(BaseModel):
    id: int


class Bound(sqlalchemy.TypeDecorator):
    impl = sqlalchemy.Integer
    cache_ok = True

    def process_bind_param(self, value, dialect):
        return value


class Quiet(sqlalchemy.TypeDecorator):
    impl = sqlalchemy.String
    cache_ok = True

    def process_result_value(self, value, dialect):
        return value


class Ltree(UserDefinedType):
    cache_ok = True

    def get_col_spec(self, **_):
        return "LTREE"


NAMES = {
    **{name: getattr(typing, name) for name in ("Annotated", "Any", "Literal")},
    **{name: getattr(ipaddress, name) for name in dir(ipaddress) if name.startswith("IPv")},
    **{name: getattr(pydantic, name) for name in pydantic.__all__ if name[0].isupper()},
    **{name: getattr(dt, name) for name in ("date", "datetime", "time", "timedelta")},
    "Decimal": Decimal,
    "UUID": UUID,
}
COLUMNS = {
    **{name: getattr(sqlalchemy, name) for name in dir(sqlalchemy) if name[0].isupper()},
    "SqlEnum": sqlalchemy.Enum,
    "pg": postgresql,
}
OWN = {each.__name__: each for each in (Colour, Status, Level, Odd, Inner, Bound, Quiet, Ltree)}
exec(next(block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "Shouting" in block), OWN)


def codes(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def found(column: str, annotation: str, config: ConfigDict | None = None) -> Encoded | Unsupported:
    """Return what `encode` says of a column and a field as the page writes them."""
    type_ = eval(column, COLUMNS | OWN)
    model = create_model("M", __config__=config, f=(eval(annotation, NAMES | OWN), ...))
    return encode(sqlalchemy.column("v", type_), type_, *field_schema(model))


def test_what_the_page_calls_printed_is_printed():
    for columns, fields, _ in rows("## Printed", "## Read in Python", 3):
        for column in codes(columns):
            for annotation in codes(fields):
                assert isinstance(found(column, annotation), Encoded), (column, annotation, found(column, annotation))


def test_what_the_page_says_is_read_in_python_is_so_for_its_reason():
    for column, annotation, reason in rows("## Read in Python", "By options", 3):
        assert found(codes(column)[0], codes(annotation)[0]) == Unsupported(reason), (column, annotation)


def test_options_that_send_a_field_to_python_do():
    for column, annotation, option, reason in rows("By options", "## How equality", 4):
        config = eval(f"dict({codes(option)[0]})")

        assert found(codes(column)[0], codes(annotation)[0], config) == Unsupported(reason), (
            column,
            annotation,
            option,
        )


def test_no_reason_of_the_code_is_missing_on_the_page():
    said = [row[-1] for row in rows("## Read in Python", "## How equality", 3, 4)]

    missing = [reason for reason in reasons() if not any(re.fullmatch(reason, each) for each in said)]

    assert missing == []


@pytest.mark.parametrize("kind", sorted(types._ENCODERS))
def test_every_kind_of_field_that_is_printed_is_on_the_page(kind):
    schemas = {
        field_schema(create_model("M", f=(eval(annotation, NAMES | OWN), ...)))[0]["type"]
        for _, fields, _ in rows("## Printed", "## Read in Python", 3)
        for annotation in codes(fields)
    }

    assert kind in schemas


def rows(start: str, end: str, *lengths: int) -> list[list[str]]:
    """Return the rows between two places of the page."""
    part = PAGE[PAGE.index(start) : PAGE.index(end)]
    lines = [line for line in part.splitlines() if line.startswith("| `")]
    cells = [[cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [row for row in cells if len(row) in lengths]


def reasons() -> list[str]:
    """Return, as patterns, the reasons that the code gives."""
    patterns = []
    for path in Path(types.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or getattr(node.func, "id", "") != "Unsupported":
                continue
            match node.args[0]:
                case ast.Constant(value=str(text)):
                    patterns.append(re.escape(text))
                case ast.JoinedStr(values):
                    parts = (re.escape(v.value) if isinstance(v, ast.Constant) else ".*" for v in values)
                    patterns.append("".join(parts))
    return patterns
