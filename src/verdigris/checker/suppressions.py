"""Comments that excuse one finding: `# verdigris: ignore[engine/recycle] the proxy closes idle connections`.

A comment names boxes or rules and gives a reason. Above or behind a statement it speaks for what begins in that
statement's own lines (decorators included, a body not); inside brackets, for what stands on its line or, alone on a
line, on the next one. A comment without a name or a reason excuses nothing, and it is reported, as is one that had
nothing to excuse.
"""

from __future__ import annotations

import io
import re
import tokenize
from dataclasses import dataclass
from typing import TYPE_CHECKING

from verdigris.evidence.values import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.evidence.judgement import Finding

FORM = "# verdigris: ignore[engine/recycle] the reason"
_COMMENT = re.compile(r"#\s*verdigris\s*:\s*(.*)$", re.IGNORECASE)
_IGNORE = re.compile(r"ignore\s*(?:\[([^\]]*)\])?\s*[:\-–—]*\s*(.*)$", re.IGNORECASE)  # dashes that people type
_LAYOUT = {tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True, slots=True)
class Suppression:
    """One comment: where it stands, which lines it speaks for, what it names, and why.

    It excuses findings that begin in the lines `first` to `last` and, where `at` is given, reach over that line.
    """

    place: Place
    names: tuple[str, ...]
    reason: str
    first: int
    last: int
    at: int | None = None

    def covers(self, box: str, finding: Finding) -> bool:
        """Tell whether it excuses a finding of a box."""
        where = finding.place
        if (
            not self.reason
            or where is None
            or where.path != self.place.path
            or not self.first <= where.line <= self.last
        ):
            return False
        if self.at is not None and not where.line <= self.at <= max(where.end_line, where.line):
            return False
        return not {box, f"{box}/{finding.variant}"}.isdisjoint(self.names)

    def fault(self, boxes: Iterable[str]) -> str | None:
        """Say what is wrong with the comment itself, if anything is."""
        known = list(boxes)
        if not self.names:
            return f"{self.place}: this comment names no box and excuses nothing; it is written {FORM}"
        for name in self.names:
            if name not in known and name.rpartition("/")[0] not in known:
                from verdigris.checker.naming import nearest

                return f"{self.place}: this comment names `{name}`, which is no box. {nearest(name, known, 'There is')}"
        if not self.reason:
            return f"{self.place}: this comment gives no reason and excuses nothing; it is written {FORM}"
        return None


def scan(path: str, text: str) -> Iterator[Suppression]:
    """Yield the comments of one file: Python's found by its own tokens, a settings file's by their sign."""
    if "verdigris" not in text.lower():
        return
    for place, comment, first, last, at in _python(path, text) if path.endswith(".py") else _plain(path, text):
        matched = _COMMENT.match(comment)
        if matched is None:
            continue
        parsed = _IGNORE.match(matched[1].strip())
        names = () if parsed is None else tuple(word.strip() for word in (parsed[1] or "").split(",") if word.strip())
        yield Suppression(place, names, "" if parsed is None else parsed[2].strip(), first, last, at)


def _python(path: str, text: str) -> Iterator[tuple[Place, str, int, int, int | None]]:
    """Yield each comment with the lines it speaks for."""
    statement: list[tokenize.TokenInfo] = []  # of the statement that is being read, its comments too
    above: list[tokenize.TokenInfo] = []  # comments on lines of their own, waiting for a statement
    decorated = 0  # the line of the first decorator, while the function or class has not come
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type == tokenize.NEWLINE and statement:
                first, last = decorated or statement[0].start[0], statement[-1].end[0]
                if statement[0].string == "@":
                    decorated, above, statement = first, [*above, *(t for t in statement if _is_comment(t))], []
                    continue
                yield from (_spoken(path, comment, first, last) for comment in above)
                yield from _inside(path, statement, first, last)
                decorated, above, statement = 0, [], []
            elif _is_comment(token) and not statement:
                above.append(token)
            elif token.type not in _LAYOUT:
                statement.append(token)
    except (tokenize.TokenError, SyntaxError):
        return
    yield from (_spoken(path, comment, comment.start[0], comment.start[0]) for comment in above)


def _inside(
    path: str, statement: list[tokenize.TokenInfo], first: int, last: int
) -> Iterator[tuple[Place, str, int, int, int | None]]:
    for index, token in enumerate(statement):
        if not _is_comment(token):
            continue
        line = token.start[0]
        behind = any(other.end[0] == line for other in statement[:index])
        following = next((other.start[0] for other in statement[index + 1 :] if not _is_comment(other)), None)
        if following is None:  # behind the statement's last token
            yield _spoken(path, token, first, last)
        else:
            yield _spoken(path, token, first, last, line if behind else following)


def _spoken(
    path: str, comment: tokenize.TokenInfo, first: int, last: int, at: int | None = None
) -> tuple[Place, str, int, int, int | None]:
    line, column = comment.start
    return Place(path, line, line, column, comment.end[1]), comment.string, first, last, at


def _is_comment(token: tokenize.TokenInfo) -> bool:
    return token.type == tokenize.COMMENT


def _plain(path: str, text: str) -> Iterator[tuple[Place, str, int, int, int | None]]:
    waiting: list[tuple[Place, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        before, sign, _ = line.partition("#")
        place = Place(path, number, number, len(before), len(line))
        if sign and not before.strip():
            waiting.append((place, line[len(before) :]))
        elif line.strip():
            yield from ((above, comment, number, number, None) for above, comment in waiting)
            waiting = []
            if sign:
                yield place, line[len(before) :], number, number, None
