"""How text looks on a terminal: colour, signs with an ASCII fallback, widths. No dependency."""

from __future__ import annotations

import os
import re
import sys
import unicodedata
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TextIO

PIPED = 100  # columns where nobody looks
NARROWEST = 60

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_ASCII = str.maketrans(
    {"✓": "+", "✗": "x", "│": "|", "·": "-", "…": "...", "–": "-", "—": "-", "×": "x", "→": "->", "•": "*"}
)


class Style(NamedTuple):
    """What the place that text goes to can show."""

    colour: bool = False
    unicode: bool = True
    width: int = PIPED

    def paint(self, text: str, *names: str) -> str:
        """Colour a text, where colour is wanted."""
        if not self.colour or not text:
            return text
        return f"\x1b[{';'.join(_CODES[name] for name in names)}m{text}\x1b[0m"

    def finish(self, text: str) -> str:
        """Fit finished text to the place: without typographic signs where they cannot be shown."""
        return text if self.unicode else text.translate(_ASCII)


def clean(text: str) -> str:
    """Take out what would steer a terminal: names of files and texts of code are other people's."""
    return _CONTROL.sub("�", text.replace("\t", "    ").replace("\n", " "))


def columns(text: str) -> int:
    """Return how many columns a text takes."""
    return sum(
        2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text if not unicodedata.combining(sign)
    )


def cut(text: str, width: int) -> str:
    """Shorten a text that does not fit into so many columns."""
    if columns(text) <= width:
        return text
    kept = text[: max(width - 1, 1)]
    while columns(kept) > max(width - 1, 1):
        kept = kept[:-1]
    return f"{kept}…"


def style_for(stream: TextIO, colour: str = "auto", environment: Mapping[str, str] | None = None) -> Style:
    """Choose a style: `--color`, else NO_COLOR, else FORCE_COLOR, else whether a person is looking."""
    given = os.environ if environment is None else environment
    looked_at = stream.isatty()
    if colour != "auto":
        coloured = colour == "always"
    elif given.get("NO_COLOR"):
        coloured = False
    elif given.get("FORCE_COLOR"):
        coloured = True
    else:
        coloured = looked_at and given.get("TERM") != "dumb" and sys.platform != "win32"
    width = _columns_of(stream, given) if looked_at else PIPED
    encoding = (stream.encoding or "").lower().replace("-", "")
    return Style(coloured, encoding.startswith("utf"), max(NARROWEST, min(width, 140)))


def _columns_of(stream: TextIO, environment: Mapping[str, str]) -> int:
    given = environment.get("COLUMNS", "")
    if given.isdigit() and int(given) > 0:
        return int(given)
    try:
        return os.get_terminal_size(stream.fileno()).columns or PIPED
    except (OSError, ValueError):
        return PIPED
