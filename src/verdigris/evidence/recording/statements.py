"""The text of a statement without its values, its fingerprint, its kind and its tables."""

from __future__ import annotations

import json
import re
from hashlib import blake2b

_TOKEN = re.compile(
    r"""
      (?P<comment> --[^\n]* | /\*.*?\*/ )
    | (?P<name> "(?:[^"]|"")*" )
    | (?P<value>
          [eEbBxX]?'(?:[^'\\]|''|\\.)*'            # a string
        | \$(?P<tag>[A-Za-z_]*)\$.*?\$(?P=tag)\$   # a dollar-quoted string
        | \$\d+ | %\(\w+\)s | %s                   # placeholders of the drivers
        | (?<![:\w]):[A-Za-z_]\w*
        | __\[POSTCOMPILE_[^\]]*\]
        | (?<![\w.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?(?!\w)
      )
      (?P<cast>
          ::[A-Za-z_]\w*(?:\s+(?:VARYING|PRECISION|WITH(?:OUT)?\s+TIME\s+ZONE))?(?:\(\d+(?:,\s*\d+)?\))?(?:\[\])*
      )?
    | (?P<space> \s+ )
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_LIST = re.compile(r"\(\s*\?(?:\s*,\s*\?)+\s*\)")
_ROWS = re.compile(r"(\((?:[^()]|\([^()]*\))*\))(?:\s*,\s*\((?:[^()]|\([^()]*\))*\))+")
_VALUES = re.compile(r"\bVALUES\s+(?=\()", re.IGNORECASE)
_NAME = r"(?P<table>(?:\"[^\"]+\"|\w++)(?:\.(?:\"[^\"]+\"|\w++))?)"
_TABLE = re.compile(
    r"\b(?:(?:(?<!DISTINCT )FROM|JOIN|UPDATE)\s+(?:ONLY\s+)?" + _NAME + r"(?!\s*\()"
    r"|(?:INTO|COPY|TRUNCATE(?:\s+TABLE)?|DROP\s+TABLE(?:\s+IF\s+EXISTS)?|CREATE\s+TABLE(?:\s+IF\s+NOT\s+EXISTS)?)\s+"
    + _NAME.replace("table", "target")
    + ")",
    re.IGNORECASE,
)
_INSERTED = re.compile(r"\bINTO\s+" + _NAME, re.IGNORECASE)
_COMMON = re.compile(
    r"(?:\bWITH(?:\s+RECURSIVE)?|,)\s+(\w+)\s*(?:\([^)]*\))?\s+AS\s+(?:NOT\s+)?(?:MATERIALIZED\s+)?\(", re.IGNORECASE
)
_NOT_TABLES = frozenset({"select", "set", "lateral", "unnest", "skip", "nothing", "only"})
_DATABASE_GONE = re.compile(
    r"\s*(?:DROP\s+DATABASE(?:\s+IF\s+EXISTS)?\s+(?P<dropped>\"[^\"]+\"|\w+)"
    r"|ALTER\s+DATABASE\s+(?P<renamed>\"[^\"]+\"|\w+)\s+RENAME)",
    re.IGNORECASE,
)
_WRITES = frozenset({"INSERT", "UPDATE", "DELETE", "MERGE", "COPY", "TRUNCATE", "CREATE", "ALTER", "DROP"})
_WRITE_INSIDE = re.compile(r"\b(INSERT\s+INTO|UPDATE\s+\S+\s+SET|DELETE\s+FROM|MERGE\s+INTO)\b", re.IGNORECASE)
_EXPLAIN = re.compile(
    r"^\s*EXPLAIN\s*(?:\((?P<options>[^)]*)\)|(?P<words>(?:\s*(?:ANALYZE|VERBOSE)\b)*))\s*", re.IGNORECASE
)


def database_gone(sql: str) -> str | None:
    """Return the database that a statement drops or gives another name."""
    found = _DATABASE_GONE.match(sql)
    return None if found is None else (found["dropped"] or found["renamed"]).strip('"')


def normalise(sql: str) -> str:
    """Return the statement with `?` for each value and placeholder, one list of values for many, single spaces."""
    return _collapse(_TOKEN.sub(_token, sql).strip(" ;"))


def _token(match: re.Match[str]) -> str:
    if match.group("value") is not None:
        return "?"
    return " " if match.group("name") is None else match.group("name")


def _collapse(text: str) -> str:
    text = re.sub(r" {2,}", " ", _LIST.sub("(?)", text))
    found = _VALUES.search(text)
    if found is None:
        return text
    return text[: found.end()] + _ROWS.sub(r"\1", text[found.end() :], count=1)


def fingerprint(normalised: str) -> str:
    """Return the short name of a normalised statement; letter case outside quotes does not matter."""
    return blake2b(normalised.lower().encode(errors="replace"), digest_size=6).hexdigest()


def kind(sql: str) -> str:
    """Return the first word of a statement in capitals; of one that starts WITH, what it comes to."""
    words = re.match(r"(?:\s|--[^\n]*\n|/\*.*?\*/|\()*([A-Za-z]+)", sql, re.DOTALL)
    word = words.group(1).upper() if words else ""
    if word == "WITH":
        found = _WRITE_INSIDE.search(sql)
        return found.group(1).split()[0].upper() if found else "SELECT"
    return word


def writes(sql_kind: str) -> bool:
    """Tell whether a statement of this kind changes rows."""
    return sql_kind in _WRITES


def tables(normalised: str) -> tuple[str, ...]:
    """Return the tables a normalised statement names, in order, without quotes."""
    common = {name.lower() for name in _COMMON.findall(normalised)}
    found = ((match.group("table") or match.group("target")).replace('"', "") for match in _TABLE.finditer(normalised))
    return tuple(dict.fromkeys(name for name in found if name.lower() not in common | _NOT_TABLES))


def inserted_table(sql: str) -> str:
    """Return the table of an INSERT without quotes."""
    found = _INSERTED.search(sql)
    return found.group("table").replace('"', "") if found else ""


def explained(sql: str) -> tuple[str, bool] | None:
    """Return the explained statement and whether it was run (ANALYZE), or None for any other statement."""
    found = _EXPLAIN.match(sql)
    if found is None:
        return None
    options = (found.group("options") or found.group("words") or "").upper()
    analyze = re.search(r"\bANALYZE\b(?!\s+(?:FALSE|OFF|0))", options) is not None
    return sql[found.end() :], analyze


def first_node(answer: object) -> str:
    """Return the first node of a plan, from EXPLAIN's first row in its text or JSON format."""
    if isinstance(answer, str) and not answer.lstrip().startswith("["):
        return answer.splitlines()[0].strip() if answer.strip() else ""
    try:
        parsed = json.loads(answer) if isinstance(answer, str | bytes) else answer
        node = parsed[0]["Plan"]  # type: ignore[index]  # whatever is no plan is caught
        relation = f" on {node['Relation Name']}" if "Relation Name" in node else ""
        cost = f"cost={node['Startup Cost']:.2f}..{node['Total Cost']:.2f}"
        return f"{node['Node Type']}{relation}  ({cost} rows={node['Plan Rows']} width={node['Plan Width']})"
    except (KeyError, IndexError, TypeError, ValueError):
        return ""
