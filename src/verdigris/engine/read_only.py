"""Statements that write, told by their text: what a session in autocommit must not send."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from verdigris.errors import ReadOnlyError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The execution option of connections whose statements are looked at.
READS = "verdigris_reads"

_PIECE = re.compile(
    r"""
      --[^\n]* | (?P<comment>/\*)
    | [eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | \$(?P<tag>[^\W\d]\w*|)\$.*?\$(?P=tag)\$  # texts
    | (?P<word>"(?:[^"]|"")*" | \w+ | [();])
    """,
    re.DOTALL | re.VERBOSE,
)
_EDGE_OF_COMMENT = re.compile(r"/\*|\*/")
_QUERIES = frozenset({"SELECT", "WITH", "VALUES", "TABLE", "SHOW"})
_WRITES = {"INSERT": "INTO", "DELETE": "FROM", "MERGE": "INTO"}  # what follows where the word is no name
_OF_SESSIONS = frozenset({"SET", "RESET", "DISCARD", "LISTEN", "UNLISTEN"})  # what listeners set connections up with
_EXPLAINED = frozenset({"ANALYZE", "ANALYSE", "VERBOSE"})


@lru_cache(maxsize=4096)
def writes(text: str, allowed: frozenset[str] = frozenset()) -> bool:
    """Tell whether a statement writes, or is neither a query nor `allowed`; what its functions do cannot be seen."""
    words = list(_words(text))
    start = 0
    for end in [*(place for place, word in enumerate(words) if word == ";"), len(words)]:
        if end > start and words[start] not in allowed and _one_writes(words[start:end]):
            return True
        start = end + 1
    return not words


def refuse(what: str) -> ReadOnlyError:
    """Return the error for a session of `db.read()` that was asked to write."""
    return ReadOnlyError(
        f"a session of db.read() was asked to {what}.",
        why="It runs in autocommit, where each write would be stored at once and alone.",
        do=["Write in a transaction:   async with db.session.begin() as session: ..."],
        page="session/async-sessionmaker",
    )


def refuse_writes(text: str, allowed: frozenset[str] = frozenset()) -> None:
    """Raise ReadOnlyError for a statement that writes, or is neither a query nor `allowed`."""
    if writes(text, allowed):
        raise refuse("run a statement that writes")


def check(text: str, context: Any) -> None:
    """Raise ReadOnlyError for what a connection in autocommit must not send, or cannot."""
    refuse_writes(text, _OF_SESSIONS)
    if context._is_server_side:  # noqa: SLF001 - no public way to it
        raise ReadOnlyError(
            "a session of db.read() was asked to stream rows.",
            why="It runs in autocommit, and a cursor of the server lives in a transaction.",
            do=["Read in one:   async with db.read(snapshot=True) as session: ..."],
            page="session/async-sessionmaker",
        )


def _words(text: str) -> Iterator[str]:
    place = 0
    while (found := _PIECE.search(text, place)) is not None:
        place = found.end()
        if found["word"]:
            yield found["word"].upper()
        elif found["comment"]:
            place = _end_of_comment(text, place)


def _end_of_comment(text: str, place: int) -> int:
    depth = 1  # PostgreSQL's lie one within another
    while depth and (edge := _EDGE_OF_COMMENT.search(text, place)) is not None:
        depth += 1 if edge[0] == "/*" else -1
        place = edge.end()
    return len(text) if depth else place


def _one_writes(words: list[str]) -> bool:
    if words[0] == "EXPLAIN":
        runs, words = _explained(words[1:])
        if not runs:
            return False
    first = next((word for word in words if word != "("), "")
    if first not in _QUERIES:
        return True
    before = ""
    for word, after in zip(words, [*words[1:], ""], strict=True):
        begins = before in {"", "(", ")"}  # of a statement, or of one in a WITH
        if begins and (_WRITES.get(word) == after or (word == "UPDATE" and _is_name(after))):
            return True
        if word == "INTO":  # SELECT … INTO makes a table
            return True
        before = word
    return False


def _explained(words: list[str]) -> tuple[bool, list[str]]:
    """Return whether EXPLAIN runs the statement, and its words."""
    if words[:1] == ["("]:
        end = words.index(")") if ")" in words else len(words)
        return bool(_EXPLAINED.intersection(words[:end]) - {"VERBOSE"}), words[end + 1 :]
    options = next((place for place, word in enumerate(words) if word not in _EXPLAINED), len(words))
    return bool(set(words[:options]) - {"VERBOSE"}), words[options:]


def _is_name(word: str) -> bool:
    return word not in {"", "(", ")", ";"}
