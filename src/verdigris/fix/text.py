"""Keywords set in the text of a file: everything else of it stays, to the byte.

An edit finds its call by the span that the checker saw. What was written is parsed again and has to be the tree that
the edits mean, so that no layout, however odd, can make an edit say something else.
"""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

from verdigris.evidence.source.reading.files import lines_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from verdigris.evidence.judgement import Edit

_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE}
_Span = tuple[int, int]  # offsets in the text


class Unwritable(Exception):  # noqa: N818 - no error: an edit that is left to people
    """Why an edit cannot be written."""


def edited(text: str, edits: Iterable[Edit]) -> str:
    """Return a file's text with keywords set; raise Unwritable where that is not certain to mean what it should."""
    source = _Source(text)
    wanted: dict[_Span, dict[str, str]] = defaultdict(dict)
    for edit in edits:
        place = edit.place
        span = (source.offset(place.line, place.column), source.offset(place.end_line, place.end_column))
        wanted[span][edit.keyword] = edit.value
    changes: list[tuple[int, int, str]] = []
    for span, keywords in wanted.items():
        changes += source.changes(span, keywords)
    changes.sort()
    if any(later < end for (_, end, _), (later, _, _) in pairwise(changes)):
        raise Unwritable("two edits are in each other's way")
    for start, end, written in reversed(changes):
        text = text[:start] + written + text[end:]
    _verify(source.expected(wanted), text)
    return text


def _verify(expected: str, text: str) -> None:
    try:
        written = ast.dump(_parsed(text))
    except (SyntaxError, ValueError, RecursionError) as error:
        raise Unwritable("the file would be no Python afterwards") from error
    if written != expected:
        raise Unwritable("the file would say something else too")


def _parsed(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


class _Source:
    """A text with its tree and its tokens, all of them found by offsets."""

    def __init__(self, text: str) -> None:
        self.text = text
        try:
            self.tree = _parsed(text)
            lines = lines_of(text)
            self.starts = [0]
            for line in lines[:-1]:
                end = self.starts[-1] + len(line)
                self.starts.append(end + (2 if text.startswith("\r\n", end) else 1))
            self.lines = lines
            self.calls = {self._span(node): node for node in ast.walk(self.tree) if isinstance(node, ast.Call)}
            stream = io.StringIO("\n".join(lines))  # tokens have lines and columns; 3.11 knows this end of a line only
            self.tokens = [
                (self.offset(*token.start), self.offset(*token.end), token)
                for token in tokenize.generate_tokens(stream.readline)
                if token.type != tokenize.ENDMARKER
            ]
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
            raise Unwritable("the file is no Python that can be read here") from error
        self.ends = {end: index for index, (_, end, token) in enumerate(self.tokens) if token.string}

    def offset(self, line: int, column: int) -> int:
        """Return where a column of characters is in the text."""
        if not 0 < line <= len(self.starts):
            return len(self.text)
        return self.starts[line - 1] + column

    def _span(self, node: ast.expr) -> _Span:
        return (
            self.offset(node.lineno, self._column(node.lineno, node.col_offset)),
            self.offset(node.end_lineno or 0, self._column(node.end_lineno or 0, node.end_col_offset or 0)),
        )

    def _column(self, line: int, offset: int) -> int:
        return len(self.lines[line - 1].encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace"))

    def changes(self, span: _Span, keywords: Mapping[str, str]) -> list[tuple[int, int, str]]:
        """Return what to write for the keywords of one call: start, end, text."""
        call = self.calls.get(span)
        if call is None:
            raise Unwritable("the call is not where it was")
        found = []
        new = dict(keywords)
        for each in call.keywords:
            if each.arg in new:
                start, end = self._span(each.value)
                found.append((start, end, new.pop(each.arg)))
        return [*found, *self._inserted(call, span[1], [f"{name}={value}" for name, value in new.items()])]

    def _inserted(self, call: ast.Call, end: int, arguments: Sequence[str]) -> list[tuple[int, int, str]]:
        """Return what to write before a call's last bracket, in the layout that its arguments have."""
        if not arguments:
            return []
        index = self.ends.get(end, 0)
        closing, _, bracket = self.tokens[index]
        if not index or bracket.string != ")":
            raise Unwritable("the call does not end in a bracket")
        _, last, token = next(each for each in reversed(self.tokens[:index]) if each[2].type not in _LAYOUT)
        comma = "," if token.string == "," else ""
        line = self.starts[bracket.start[0] - 1]
        indent = self._indent(call) if not self.text[line:closing].strip() else None
        if indent is None:
            lead = "" if token.string == "(" else " " if comma else ", "
            return [(last, last, lead + ", ".join(arguments) + comma)]
        newline = self._newline(line)
        added = (line, line, f"{indent}{f',{newline}{indent}'.join(arguments)}{comma}{newline}")
        return [added] if comma else [(last, last, ","), added]

    def _indent(self, call: ast.Call) -> str | None:
        """Return the indentation of the last argument where it begins a line, None where it does not."""
        arguments: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
        given = [self._begin(each) for each in arguments]
        if not given:
            return None
        line, begin = max(given)
        before = self.text[self.starts[line - 1] : begin]
        return before if not before.strip() else None

    def _begin(self, argument: ast.expr | ast.keyword) -> tuple[int, int]:
        line = argument.lineno
        return line, self.offset(line, self._column(line, argument.col_offset))

    def _newline(self, begin: int) -> str:
        """Return how the line before ends."""
        return "\r\n" if self.text.endswith("\r\n", 0, begin) else self.text[begin - 1]

    def expected(self, wanted: Mapping[_Span, Mapping[str, str]]) -> str:
        """Return the tree that the edits mean."""
        for span, keywords in wanted.items():
            call = self.calls[span]
            for name, value in keywords.items():
                node = ast.parse(value, mode="eval").body
                given = next((each for each in call.keywords if each.arg == name), None)
                if given is None:
                    call.keywords.append(ast.keyword(name, node))
                else:
                    given.value = node
        return ast.dump(self.tree)
