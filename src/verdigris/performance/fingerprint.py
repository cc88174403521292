"""A statement without its values: what makes two executions the same query."""

from __future__ import annotations

import re

_COMMENT = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
_TEXT = re.compile(r"\$(\w*)\$.*?\$\1\$|[eE]?'(?:[^'\\]|''|\\.)*'", re.DOTALL)
_NUMBER = re.compile(r"(?<![\w$.])\d+(?:\.\d+)?(?:[eE][+-]?\d+)?\b")
_ITEM = r"(?:\$\d+(?:::\w+(?:\s\w+)*(?:\(\?\))?(?:\[\])*)?|\?)"
_LIST = re.compile(rf"\(\s*{_ITEM}(?:\s*,\s*{_ITEM})+\s*\)")
_ONE = re.compile(rf"\bIN\s*\(\s*{_ITEM}\s*\)", re.IGNORECASE)
_ROWS = re.compile(r"\(…\)(?:\s*,\s*\(…\))+")
_PARAMETER = re.compile(r"\$(\d+)")
_SPACE = re.compile(r"\s+")

_READ = re.compile(r"\s*(?:\(\s*)*(?:SELECT|WITH|VALUES|TABLE)\b", re.IGNORECASE)
_WRITE = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|SHARE|CALL|NEXTVAL|SETVAL)\b", re.IGNORECASE)


def fingerprint(statement: str) -> str:
    """Return a statement without comments, literals and the lengths of its lists, on one line."""
    bare = _COMMENT.sub(" ", _TEXT.sub("?", statement))
    bare = _ONE.sub("IN (…)", _LIST.sub("(…)", _NUMBER.sub("?", bare)))
    return _SPACE.sub(" ", _ROWS.sub("(…)", bare)).strip()


def parameters_of(statement: str) -> int:
    """Return how many parameters ($1, $2 …) a statement takes."""
    return max((int(number) for number in _PARAMETER.findall(_TEXT.sub("", statement))), default=0)


def is_read(statement: str) -> bool:
    """Tell whether a statement only reads, as far as its words show; in doubt it does not."""
    return bool(_READ.match(statement)) and not _WRITE.search(_TEXT.sub("", statement))


def operation(statement: str) -> str:
    """Return the statement's first word, in lower case."""
    found = re.match(r"[\s(]*(\w+)", statement)
    return found[1].lower() if found else "other"
