"""Text, bytes, UUIDs, network addresses."""

from __future__ import annotations

import ipaddress
import re
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pydantic import IPvAnyAddress, IPvAnyInterface, IPvAnyNetwork, TypeAdapter
from sqlalchemy import CHAR, String, Text, and_, case, cast, func, literal_column, not_, or_
from sqlalchemy.dialects.postgresql import CITEXT

from verdigris.loading.json.types.choices import enum, members
from verdigris.loading.json.types.numbers import decimal, mismatch
from verdigris.loading.json.types.values import (
    BLANKS,
    Encoded,
    Loaded,
    Unsupported,
    Wanted,
    checked,
    escaped,
    joined,
    number,
    quoted,
    word,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import ColumnElement

    from verdigris.loading.json.types.values import Schema


def text(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a str, escaped by PostgreSQL as Pydantic escapes it."""
    strip, lower, upper = (wanted.take(f"{n}", f"str_{n}") for n in ("strip_whitespace", "to_lower", "to_upper"))
    coerces = wanted.take("coerce_numbers_to_str")
    if loaded.kind in {"int", "decimal"} and coerces:
        found = decimal(loaded, wanted.with_schema({"type": "decimal", "allow_inf_nan": True}))
        return found if not list(_lengths(loaded, wanted)) else Unsupported("no SQL checks a number's text")
    if loaded.kind == "enum":
        return _enum_text(loaded, wanted)
    if loaded.kind != "str":
        return mismatch(loaded, "a str")
    if strip:
        loaded = Loaded("str", func.btrim(loaded.sql, word(BLANKS), type_=Text()), Text())
    conditions: list[ColumnElement[bool]] = []
    value = loaded.sql
    if lower or upper:  # beyond ASCII the database's locale decides
        conditions.append(func.octet_length(value) == func.char_length(value))
        change = func.lower if lower else func.upper
        loaded = Loaded("str", change(cast(value, Text).collate("C"), type_=Text()), Text())
    lengths = list(_lengths(loaded, wanted))
    if lengths and isinstance(loaded.type, CHAR):
        return Unsupported("no SQL counts the blanks at the end of a CHAR")
    conditions += lengths
    pattern = wanted.take("pattern")
    wanted.take("regex_engine")
    if pattern is not None:
        same = _as_posix(pattern)
        if same is None:
            return Unsupported(f"the pattern {_shown(pattern)} may mean something else to PostgreSQL")
        conditions.append(cast(loaded.sql, Text).collate("C").op("~", is_comparison=True)(word(same)))
    printed = escaped(loaded.sql)
    return Encoded(checked(value, and_(*conditions), printed) if conditions else printed)


def _enum_text(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    type_: Any = loaded.type
    if not issubclass(type_.enum_class, str) or list(_lengths(loaded, wanted)) or wanted.take("pattern"):
        return mismatch(loaded, "a str")
    return members(loaded, wanted, list(type_.enum_class))


def _lengths(loaded: Loaded, wanted: Wanted) -> Iterator[ColumnElement[bool]]:
    least, most = wanted.take("min_length", "str_min_length"), wanted.take("max_length", "str_max_length")
    size = func.char_length(loaded.sql)
    if least:
        yield size >= number(least)
    fits = isinstance(loaded.type, String) and not isinstance(loaded.type, CITEXT) and loaded.kind == "str"
    declared = getattr(loaded.type, "length", None) if fits else None
    if most is not None and not (declared is not None and declared <= most):
        yield size <= number(most)


_ATOM = r"(?:\[[A-Za-z0-9_ @.,:/+-]+\]|\\d|\\w|\\[-./+]|[A-Za-z0-9_ @,:/-])(?:[+*?]|\{\d+(?:,\d*)?\})?"
_PLAIN_PATTERN = re.compile(rf"\^(?:{_ATOM})+\$")


def _as_posix(pattern: Any) -> str | None:
    r"""Return a pattern of PostgreSQL that matches only what `pattern` matches; None where that takes more thought.

    Anchored sequences of ASCII classes mean the same to all three engines, but for \d and \w, which take other scripts
    too in Rust and Python: what only they match is refused, and read in Python.
    """
    text_ = getattr(pattern, "pattern", pattern)
    if getattr(pattern, "flags", re.UNICODE.value) != re.UNICODE.value or not _PLAIN_PATTERN.fullmatch(text_):
        return None
    return str(text_).replace(r"\d", "[0-9]").replace(r"\w", "[A-Za-z0-9_]")


def _shown(pattern: Any) -> str:
    return str(getattr(pattern, "pattern", pattern))


def binary(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print bytes as the config says: as the text they encode, in URL-safe base64, in hexadecimal digits."""
    if loaded.kind != "bytes":
        return mismatch(loaded, "bytes")
    value, mode = loaded.sql, wanted.take("ser_json_bytes") or "utf8"
    least, most = wanted.take("min_length"), wanted.take("max_length")
    size = func.octet_length(value)
    conditions = [size >= number(least)] if least else []
    conditions += [size <= number(most)] if most is not None else []
    if mode == "hex":
        printed = quoted(func.encode(value, word("hex"), type_=Text()))
    elif mode == "base64":
        encoded = func.encode(value, word("base64"), type_=Text())
        printed = quoted(
            func.translate(encoded, joined("+/", func.chr(literal_column("10"))), word("-_"), type_=Text())
        )
    else:  # the escape format changes NUL, backslashes and whatever is not ASCII, and makes it longer
        plain = func.encode(value, word("escape"), type_=Text())
        conditions.append(func.length(plain) == size)
        printed = escaped(plain)
    return Encoded(checked(loaded, and_(*conditions), printed) if conditions else printed)


def uuid(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported:
    """Print a UUID: in lower case, with hyphens."""
    version = wanted.take("version")
    from_text = loaded.kind == "str" and type(loaded.type).__name__ in {"Uuid", "UUID"}
    if loaded.kind != "uuid" and not from_text:
        return mismatch(loaded, "a UUID")
    printed = quoted(loaded.sql)
    if version is None:
        return Encoded(printed)
    digits = cast(loaded.sql, Text)
    condition = digits.op("~", is_comparison=True)(word(f"^.{{14}}{int(version)}.{{4}}[89ab]"))
    return Encoded(checked(loaded, condition, printed))


def address(loaded: Loaded, cls: Any, *, strict: bool) -> Encoded | Unsupported:
    """Print a network address: without its mask where the mask says nothing; the driver makes no interface of such."""
    if loaded.kind not in {"inet", "cidr"}:
        return mismatch(loaded, cls.__name__)
    value = loaded.sql
    version = {"4": 4, "6": 6}.get(re.sub(r"\D", "", cls.__name__)[:1])
    family, host = func.family(value), func.host(value, type_=Text())
    full = func.masklen(value) == func.masklen(func.set_masklen(value, literal_column("-1")))
    conditions: list[ColumnElement[bool]] = [family == number(version)] if version else []
    if version != 4:  # PostgreSQL writes the end of some addresses as IPv4, Python does not
        conditions.append(or_(family == number(4), func.strpos(host, word(".")) == literal_column("0")))
    printed: ColumnElement[Any]
    match loaded.kind, re.sub("^IPv(4|6|Any)", "", cls.__name__):
        case "inet", "Address" if cls is IPvAnyAddress:
            conditions.append(full)
            printed = host
        case "inet", "Address":  # an address with a mask is loaded as an interface, which is an address too
            printed = case((full, host), else_=cast(value, Text))
        case ("inet", "Interface") | ("cidr", "Network"):
            printed = cast(value, Text)
            conditions += [not_(full)] if strict and loaded.kind == "inet" and cls is not IPvAnyInterface else []
        case _:
            return mismatch(loaded, cls.__name__)
    return Encoded(checked(loaded, and_(*conditions), quoted(printed)))


_ADDRESSES = tuple(
    getattr(ipaddress, f"IPv{version}{what}") for version in (4, 6) for what in ("Address", "Interface", "Network")
)


def _function(schema: Any) -> Any:
    return schema["function"]["function"]


_VALUE_OF_ENUM = repr(attrgetter("value"))  # what `use_enum_values` puts after an enum's own schema
_EITHER: tuple[Any, ...] = (IPvAnyAddress, IPvAnyInterface, IPvAnyNetwork)
#: Pydantic's own types for either version, by the function that their core schemas name.
_ANY_ADDRESS: dict[Any, Any] = {_function(TypeAdapter(cls).core_schema): cls for cls in _EITHER}


def is_address(schema: Schema) -> bool:
    """Whether a schema is one of a network address, an interface or a network."""
    return _address_of(schema) is not None


def _address_of(schema: Schema) -> Any:
    if schema["type"] == "lax-or-strict":
        cls = schema["strict_schema"].get("python_schema", {}).get("cls")
        return cls if cls in _ADDRESSES else None
    return _ANY_ADDRESS.get(_function(schema)) if schema["type"] == "function-plain" else None


def special(loaded: Loaded, wanted: Wanted) -> Encoded | Unsupported | None:
    """Print what Pydantic and the standard library define with functions that are known here; None for all else."""
    schema = wanted.schema
    cls = _address_of(schema)
    if cls is not None:
        return address(loaded, cls, strict=bool(wanted.take("strict")))
    if schema["type"] == "function-after" and repr(_function(schema)) == _VALUE_OF_ENUM:
        strict = wanted.take("strict") or schema["schema"].get("strict")
        if strict and loaded.kind != "enum":
            return mismatch(loaded, "a strict enum")
        return enum(loaded, wanted.with_schema(schema["schema"]))
    if schema["type"] == "json-or-python" and schema["json_schema"]["type"] == "any":
        return Unsupported("a JsonValue is written by the options of whichever model holds it")
    return None
