"""A box's page for reading, on a terminal and in HTML: the part of Markdown that the pages use, and no more."""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.report.style import Style

_FENCE = re.compile(r"^```\s*(\S+)?\s*(.*)$")
_ITEM = re.compile(r"^([-*]|\d+\.) +(.*)$")
_INLINE = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\[([^\]]+)\]\(([^)\s]+)\)|(?<!\w)\*([^*\s][^*]*)\*(?!\w)")
_MARKS = {"fails": ("✗", "red"), "holds": ("✓", "green"), "unproven": ("?", "yellow"), "not-applicable": ("–", "dim")}


class Block(NamedTuple):
    """A paragraph, a list item or a code block; `info` is what stands behind the fence."""

    kind: str  # text, item, code
    text: str
    info: str = ""


def blocks(page: str) -> Iterator[Block]:
    """Split a page into blocks; its own heading is left out."""
    lines = iter(page.splitlines())
    paragraph: list[str] = []
    kind = "text"
    for line in lines:
        fence, item = _FENCE.match(line), _ITEM.match(line)
        starts = fence is not None or item is not None or not line.strip() or line.startswith("#")
        if starts and paragraph:
            yield Block(kind, " ".join(paragraph))
            paragraph, kind = [], "text"
        if fence is not None:
            code: list[str] = []
            for inner in lines:
                if inner.startswith("```"):
                    break
                code.append(inner)
            yield Block("code", "\n".join(code).strip("\n"), f"{fence[1] or ''} {fence[2]}".strip())
        elif item is not None:
            paragraph, kind = [item[2]], "item"
        elif line.strip() and not line.startswith("#"):
            paragraph.append(line.strip())
    if paragraph:
        yield Block(kind, " ".join(paragraph))


def terminal(page: str, number: str, style: Style) -> str:
    """Return a page as text for a terminal."""
    name = page.partition("\n")[0].removeprefix("## ").strip()
    parts = [f"{number} {style.paint(name, 'bold')}"]
    for block in blocks(page):
        if block.kind == "code":
            parts.append(_code(block, name, style))
        else:
            indent = "  - " if block.kind == "item" else ""
            wrapped = textwrap.wrap(
                _plain(block.text),
                min(style.width, 100),
                initial_indent=indent,
                subsequent_indent=" " * len(indent),
                break_long_words=False,
                break_on_hyphens=False,
            )
            parts.append(_painted("\n".join(wrapped), block.text, style))
    return style.finish("\n\n".join(parts) + "\n")


def _code(block: Block, name: str, style: Style) -> str:
    sign, colour, label = _label(block.info, name)
    body = textwrap.indent(block.text, "    ")
    mark = f"{style.paint(sign, colour)} " if sign else ""
    return f"  {mark}{style.paint(label, 'dim')}\n{body}" if label else body


def _label(info: str, name: str) -> tuple[str, str, str]:
    """Say what a code block is: an example with its verdict, a further file, or other evidence."""
    language, _, rest = info.partition(" ")
    mark, _, variant = rest.partition(" ")
    if mark in _MARKS:
        sign, colour = _MARKS[mark]
        return sign, colour, f"{mark.replace('-', ' ')}{f': {name}/{variant}' if variant else ''}"
    if language == "json" and mark in {"recording", "database"}:
        return "", "dim", f"with this from the {mark}"
    return "", "dim", rest


def _plain(text: str) -> str:
    return _INLINE.sub(lambda found: f"`{found[1]}`" if found[1] else found[2] or found[3] or found[5], text)


def _painted(wrapped: str, source: str, style: Style) -> str:
    """Make a paragraph's leading bold words bold again, after wrapping."""
    leading = re.match(r"\*\*(.+?)\*\*", source)
    if leading is None or not wrapped.startswith(leading[1]):
        return wrapped
    return style.paint(leading[1], "bold") + wrapped[len(leading[1]) :]


def html(page: str) -> str:
    """Return a page as HTML, without its heading; examples stay as they are, all other evidence is left out."""
    name = page.partition("\n")[0].removeprefix("## ").strip()
    parts = []
    for block in blocks(page):
        if block.kind == "code":
            sign, _, label = _label(block.info, name)
            if label.startswith("with this"):
                continue
            caption = f"<b>{sign} {_escaped(label)}</b>\n" if label else ""
            parts.append(f"<pre>{caption}{_escaped(block.text)}</pre>")
        else:
            tag = "li" if block.kind == "item" else "p"
            parts.append(f"<{tag}>{_marked_up(block.text)}</{tag}>")
    return re.sub(r"((?:<li>.*?</li>\n?)+)", r"<ul>\1</ul>", "\n".join(parts), flags=re.DOTALL)


def _marked_up(text: str) -> str:
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(_escaped(text[end : found.start()]))
        code, bold, words, link, emphasis = found.groups()
        if code:
            parts.append(f"<code>{_escaped(code)}</code>")
        elif bold:
            parts.append(f"<b>{_marked_up(bold)}</b>")
        elif words and link.startswith(("https://", "http://")):
            parts.append(f'<a href="{_escaped(link)}">{_escaped(words)}</a>')
        else:
            parts.append(_escaped(words) if words else f"<i>{_marked_up(emphasis)}</i>")
        end = found.end()
    return "".join([*parts, _escaped(text[end:])])


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&quot;")
