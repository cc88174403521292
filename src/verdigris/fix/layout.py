"""A file's text as edits see it: its tree and its tokens, found by where they are, and what fits into its layout."""

from __future__ import annotations

import ast
import io
import tokenize
import warnings
from typing import TYPE_CHECKING, TypeAlias

from verdigris.evidence.source.reading.files import lines_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from verdigris.evidence.values import Place

_LAYOUT = {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.NEWLINE}
Span: TypeAlias = tuple[int, int]  # offsets in the text
Change: TypeAlias = tuple[int, int, str]  # what to put in the place of a span


class Unwritable(Exception):  # noqa: N818 - no error: an edit that is left to people
    """Why an edit cannot be written."""


def parsed(text: str) -> ast.Module:
    """Parse a text without a word about what is odd in it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return ast.parse(text)


class Layout:
    """A text with its tree and its tokens, all of them found by offsets."""

    def __init__(self, text: str) -> None:
        """Read a text; raise Unwritable where it cannot be read."""
        self.text = text
        self.ascii = text.isascii()
        try:
            self.tree = parsed(text)
            lines = lines_of(text)
            self.starts = [0]
            for line in lines[:-1]:
                end = self.starts[-1] + len(line)
                self.starts.append(end + (2 if text.startswith("\r\n", end) else 1))
            self.lines = lines
            stream = io.StringIO("\n".join(lines))  # tokens have lines and columns; 3.11 knows this end of a line only
            self.tokens = [
                (self.offset(*token.start), self.offset(*token.end), token)
                for token in tokenize.generate_tokens(stream.readline)
                if token.type != tokenize.ENDMARKER
            ]
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
            raise Unwritable("the file is no Python that can be read here") from error
        self.ends = {end: index for index, (_, end, token) in enumerate(self.tokens) if token.string}
        self._nodes: dict[Span, list[ast.stmt | ast.expr]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, (ast.stmt, ast.expr)):
                self._nodes.setdefault(self.span(node), []).append(node)

    def offset(self, line: int, column: int) -> int:
        """Return where a column of characters is in the text."""
        if not 0 < line <= len(self.starts):
            return len(self.text)
        return self.starts[line - 1] + column

    def span(self, node: ast.stmt | ast.expr | ast.keyword | ast.alias) -> Span:
        """Return where a node begins and ends."""
        return (
            self.offset(node.lineno, self._column(node.lineno, node.col_offset)),
            self.offset(node.end_lineno or 0, self._column(node.end_lineno or 0, node.end_col_offset or 0)),
        )

    def _column(self, line: int, offset: int) -> int:
        if self.ascii:
            return offset
        return len(self.lines[line - 1].encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace"))

    def at(self, place: Place) -> list[ast.stmt | ast.expr]:
        """Return the nodes that span a place exactly, outer ones first."""
        span = (self.offset(place.line, place.column), self.offset(place.end_line, place.end_column))
        return self._nodes.get(span, [])

    def replaced(self, span: Span, written: str) -> Change:
        """Return a span with another text; a comment inside would be lost, and nobody decided that."""
        start, end = span
        if any(start <= begin < end and token.type == tokenize.COMMENT for begin, _, token in self.tokens):
            raise Unwritable("a comment stands in what would be replaced")
        return (start, end, written)

    def inserted(
        self, last: int, written: Sequence[str], given: Sequence[ast.expr | ast.keyword | ast.alias]
    ) -> list[Change]:
        """Return what to write before the bracket that ends at an offset, in the layout of what is given before it."""
        index = self.ends.get(last, 0)
        closing, _, bracket = self.tokens[index]
        if not index or bracket.string not in {")", "}"}:
            raise Unwritable("the call does not end in a bracket")
        _, end, token = next(each for each in reversed(self.tokens[:index]) if each[2].type not in _LAYOUT)
        comma = "," if token.string == "," else ""
        line = self.starts[bracket.start[0] - 1]
        indent = self._indent(given) if not self.text[line:closing].strip() else None
        if indent is None:
            lead = "" if token.string in {"(", "{"} else " " if comma else ", "
            return [(end, end, lead + ", ".join(written) + comma)]
        newline = self.newline(line)
        added = (line, line, f"{indent}{f',{newline}{indent}'.join(written)}{comma}{newline}")
        return [added] if comma else [(end, end, ","), added]

    def _indent(self, given: Sequence[ast.expr | ast.keyword | ast.alias]) -> str | None:
        """Return the indentation of the last argument where it begins a line, None where it does not."""
        if not given:
            return None
        line, begin = max((each.lineno, self.span(each)[0]) for each in given)
        before = self.text[self.starts[line - 1] : begin]
        return before if not before.strip() else None

    def newline(self, begin: int) -> str:
        """Return how the line before an offset ends."""
        return "\r\n" if self.text.endswith("\r\n", 0, begin) else self.text[begin - 1]
