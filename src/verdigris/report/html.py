"""The report as one HTML file: no script, nothing loaded from elsewhere, dark and light, every box with its proofs."""

from __future__ import annotations

import html
import re
from itertools import islice
from typing import TYPE_CHECKING

from verdigris.checklist.pages import SECTIONS, page
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Doubt, Finding, Proof, Severity
from verdigris.report.page import html as page_html
from verdigris.report.style import Style, clean
from verdigris.report.words import SECTION_TITLES, SIGNS, heading, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.evidence.values import Place
    from verdigris.report.report import BoxReport, Report

WIDEST = 200  # columns of a line of code
BUDGET = 145_000  # bytes; the file is to be mailed and attached
STEPS = ((40, 12, True), (20, 6, True), (10, 4, True), (5, 2, True), (2, 1, True), (5, 2, False), (1, 1, False))
# how many findings and proofs of a box are listed, and whether its page is there

_CLASSES = {Verdict.HOLDS: "ok", Verdict.FAILS: "bad", Verdict.UNPROVEN: "open", Verdict.NOT_APPLICABLE: "off"}
_STYLE = """
:root{color-scheme:light dark;--ok:light-dark(#17692f,#6fd08c);--bad:light-dark(#a3161b,#ff8a80);
--open:light-dark(#7a5200,#f0c060);--off:light-dark(#5c6370,#9aa3b2);--line:light-dark(#d5dae1,#3a404a);
--soft:light-dark(#f4f6f8,#1f242b);--page:light-dark(#fff,#15191e);--text:light-dark(#1a1f26,#e3e7ed)}
*{box-sizing:border-box}body{margin:0 auto;max-width:62rem;padding:1rem;background:var(--page);color:var(--text);
font:16px/1.5 system-ui,sans-serif}h1{font-size:1.35rem;margin:.2rem 0}h2{font-size:1.1rem;margin:2rem 0 .5rem}
p{margin:.4rem 0}nav{position:sticky;top:0;background:var(--page);padding:.5rem 0;border-bottom:1px solid var(--line);
display:flex;flex-wrap:wrap;gap:.2rem 1rem;z-index:1}nav a{color:inherit;text-decoration:none}
nav a:hover{text-decoration:underline}code,pre{font:13px/1.45 ui-monospace,monospace}
pre{background:var(--soft);padding:.6rem;overflow-x:auto;margin:.4rem 0;border-radius:4px}
.box{border:1px solid var(--line);border-left:4px solid;border-radius:4px;margin:.5rem 0;padding:.3rem .8rem;
scroll-margin-top:4rem}.box>summary{cursor:pointer}
.box>summary::after{content:"";display:block;clear:both}
.name{float:right;color:var(--off);font:13px ui-monospace,monospace}
.ok{border-left-color:var(--ok)}.bad{border-left-color:var(--bad)}.open{border-left-color:var(--open)}
.off{border-left-color:var(--off)}.s-ok{color:var(--ok)}.s-bad{color:var(--bad)}.s-open{color:var(--open)}
.s-off{color:var(--off)}.sign{font-weight:700;display:inline-block;width:1.2em}.where{font:13px ui-monospace,monospace}
.dim{color:var(--off)}article{border-top:1px solid var(--line);padding:.5rem 0}article:first-of-type{border:0}
.fix{border-left:3px solid var(--ok)}
ul{margin:.3rem 0;padding-left:1.3rem}mark{background:none;color:inherit;border-bottom:2px solid var(--bad)}
@media print{:root{color-scheme:light}details{display:block}nav{position:static}
pre{white-space:pre-wrap;overflow-wrap:anywhere}article,.box>summary{break-inside:avoid}}
"""


def render(report: Report, _style: Style) -> str:
    """Return the whole file; where a project has very much to say, each list is cut and says by how much."""
    text = ""
    for findings, proofs, pages in STEPS:
        text = _document(report, findings, proofs, pages=pages)
        if len(text.encode("utf-8", "replace")) <= BUDGET:
            break
    return text


def _document(report: Report, findings: int, proofs: int, *, pages: bool) -> str:
    title = "verdigris" if report.root == "." else f"verdigris: {clean(report.root)}"
    sections = [section for section in SECTIONS if any(box.section == section for box in report.boxes)]
    links = "".join(_link(report, section) for section in sections)
    body = "".join(_section(report, section, findings, proofs, pages=pages) for section in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f"<title>{_text(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{_text(report.understood)}</h1>\n<p>{_text(summary(report))}</p>\n"
        f'<p class="dim">{_text(heading(report))}</p>\n<nav>{links}</nav>\n<main>{body}</main>\n{_footer(report)}'
        "</body>\n</html>\n"
    )


def _link(report: Report, section: str) -> str:
    signs = "".join(_sign(box) for box in report.boxes if box.section == section)
    return f'<a href="#{section}">{SECTION_TITLES[section]} {signs}</a>'


def _sign(box: BoxReport) -> str:
    if box.excused is not None:
        return '<b class="s-off" title="excused">~</b>'
    return f'<b class="s-{_CLASSES[box.verdict]}" title="{box.number} {box.verdict}">{SIGNS[box.verdict][0]}</b>'


def _section(report: Report, section: str, findings: int, proofs: int, *, pages: bool) -> str:
    boxes = "".join(_box(report, box, findings, proofs, pages=pages) for box in report.boxes if box.section == section)
    return f'\n<h2 id="{section}">{SECTIONS.index(section) + 1} {SECTION_TITLES[section]}</h2>{boxes}'


def _box(report: Report, box: BoxReport, findings: int, proofs: int, *, pages: bool) -> str:
    kind = "off" if box.excused is not None else _CLASSES[box.verdict]
    sign = "~" if box.excused is not None else SIGNS[box.verdict][0]
    opened = " open" if box in report.failing else ""
    parts = [_excuse(box)]
    parts.append(f'<p class="dim">{_text(box.consequence)}</p>' if box.findings else "")
    parts += [_finding(report, box, finding) for finding in box.findings[:findings]]
    parts.append(_rest(len(box.findings) - findings, "finding"))
    parts.append(_list("doubt", map(_doubt, box.doubts), len(box.doubts), proofs))
    parts.append(_list("proof", map(_proof, box.proofs), len(box.proofs), proofs))
    excused = (f"{_where(each.place)} {_text(each.message)}: {_text(why)}" for each, why in box.suppressed)
    parts.append(_list("suppressed", excused, len(box.suppressed), proofs))
    known = (f"{_where(each.place)} {_text(each.message)}" for each in box.known)
    parts.append(_list("known in the baseline", known, len(box.known), proofs))
    parts.append(_page(box.name) if pages else "")
    return (
        f'\n<details class="box {kind}" id="{box.name.replace("/", "-")}"{opened}><summary>'
        f'<span class="sign s-{kind}">{sign}</span>{box.number} {_text(box.title)}'
        f'<span class="name">{box.name} · {box.verdict}</span></summary>{"".join(parts)}</details>'
    )


def _excuse(box: BoxReport) -> str:
    return f'<p class="dim">{_text(box.excused)}</p>' if box.excused is not None else ""


def _finding(report: Report, box: BoxReport, finding: Finding) -> str:
    advice = "" if finding.severity is Severity.ERROR else " · advice"
    consequence = f'<p class="dim">{_text(finding.consequence)}</p>' if finding.consequence and not advice else ""
    fix = f'<pre class="fix">{_text(finding.fix, lines=True)}</pre>' if finding.fix else ""
    related = "".join(f"<li>{_where(place)} {_text(text)}</li>" for place, text in finding.related[:5])
    return (
        f"<article>{_where(finding.place)} <code>{_text(box.rule(finding))}</code>{advice}"
        f"<p>{_message(finding.message)}</p>"
        f"{_frame(report, finding)}{consequence}{fix}{f'<ul>{related}</ul>' if related else ''}</article>"
    )


def _message(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", _text(text))


def _frame(report: Report, finding: Finding) -> str:
    """Return the marked lines; a span within one line is underlined."""
    place = finding.place
    frame = report.frame(finding)
    if not frame or place is None:
        return ""
    lines = [f'<span class="dim">{number:>5} │</span> {_text(text[:WIDEST])}' for number, text in frame]
    number, text = frame[0]
    if place.end_line <= place.line and place.column < place.end_column <= WIDEST:
        parts = text[: place.column], text[place.column : place.end_column], text[place.end_column : WIDEST]
        before, marked, after = map(_text, parts)
        lines[0] = f'<span class="dim">{number:>5} │</span> {before}<mark>{marked}</mark>{after}'
    return "<pre>" + "\n".join(lines) + "</pre>"


def _list(word: str, items: Iterable[str], number: int, limit: int) -> str:
    if not number:
        return ""
    listed = "".join(f"<li>{item}</li>" for item in islice(items, limit))
    more = f"<li>and {number - limit} more</li>" if number > limit else ""
    return f'<p class="dim">{word}</p><ul>{listed}{more}</ul>'


def _rest(number: int, noun: str) -> str:
    return f'<p class="dim">and {number} more {noun}{"s" * (number != 1)}</p>' if number > 0 else ""


def _proof(proof: Proof) -> str:
    return (
        f'{_where(proof.place)} {_text(proof.reason)} <span class="dim">· {_text(proof.subject)} · {proof.kind}</span>'
    )


def _doubt(doubt: Doubt) -> str:
    return f'{_where(doubt.place)} {_text(doubt.reason)} <span class="dim">· {_text(doubt.settle)}</span>'


def _page(name: str) -> str:
    try:
        text = page(name)
    except LookupError:
        return ""
    return f"<details><summary>when it holds, why, what to do</summary>{page_html(text)}</details>"


def _footer(report: Report) -> str:
    groups = (
        ("unread", [f'<span class="where">{_text(file.path)}</span> {_text(file.reason)}' for file in report.unread]),
        ("ignored", [f"{number} {name}: {_text(reason)}" for number, name, reason in report.ignored]),
        ("notes", [_text(notice) for notice in report.notices]),
    )
    return "".join(f"\n<h2>{word}</h2>{_items(items)}" for word, items in groups if items)


def _items(items: Iterable[str]) -> str:
    return f"<ul>{''.join(_limited(items))}</ul>\n"


def _limited(items: Iterable[str], limit: int = 50) -> Iterator[str]:
    for index, item in enumerate(items):
        if index < limit:
            yield f"<li>{item}</li>"
        elif index == limit:
            yield "<li>and more: --output-format json lists all</li>"


def _where(place: Place | None) -> str:
    return "" if place is None else f'<span class="where">{_text(str(place))}</span>'


def _text(text: str | None, *, lines: bool = False) -> str:
    """Escape what comes from the checked code; what no document may hold is replaced."""
    parts = (text or "").splitlines() if lines else [text or ""]
    return html.escape("\n".join(clean(part) for part in parts)).encode("utf-8", "replace").decode()
