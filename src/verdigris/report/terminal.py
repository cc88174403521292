"""The report on a terminal: the checklist as a grid, findings with their code and what to paste, the summary last."""

from __future__ import annotations

import shlex
import textwrap
from typing import TYPE_CHECKING

from verdigris.checklist.pages import SECTIONS
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Finding, Severity
from verdigris.report.style import Style, clean, columns, cut
from verdigris.report.words import SECTION_TITLES, heading, shown, shown_path, sign, summary

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.report.report import BoxReport, Report

IN_FULL = 5  # findings shown with their code before the rest gets a line each
LISTED = 10  # unread files, doubts' boxes and notices before the rest is counted


def render(report: Report, style: Style) -> str:
    """Return the report with the first findings in full and one line for each other one."""
    return _render(report, style, IN_FULL)


def render_full(report: Report, style: Style) -> str:
    """Return the report with every finding in full and the proofs of what holds."""
    return _render(report, style, None)


def render_quiet(report: Report, _style: Style) -> str:
    """Return nothing but the names of the boxes that fail."""
    return "".join(f"{box.name}\n" for box in report.failing)


def _render(report: Report, style: Style, limit: int | None) -> str:
    lines = [style.paint(clean(report.understood), "bold"), style.paint(heading(report), "dim"), ""]
    lines += [*_grid(report, style), ""]
    everything = limit is None
    lines += _findings(report, style, len(report.findings) if limit is None else limit)
    lines += _proofs(report, style) if everything else []
    lines += _doubts(report, style)
    lines += _excused(report, style)
    lines += _listed(
        "unread",
        [f"{shown_path(report, file.path)}: {clean(file.reason)}" for file in report.unread],
        style,
        everything,
    )
    lines += _listed("note", [clean(notice) for notice in report.notices], style, everything)
    if report.failing:
        lines.append(style.paint(f"next: verdigris explain {report.failing[0].name}", "dim"))
        lines += [style.paint(f"      {clean(text)}", "dim") for text in _to_write(report)]
    lines.append(style.paint(summary(report), "bold"))
    return style.finish("\n".join(lines) + "\n")


def _to_write(report: Report) -> Iterator[str]:
    """Say what of the findings `verdigris fix` writes, if it does of any."""
    safe = sum(edit.safe for edit in report.edits)
    others = len(report.edits) - safe
    if not report.edits:
        return
    path = "" if report.root == "." else f" {shlex.quote(report.root)}"
    option = "" if safe else " --unsafe"
    count = safe or others
    more = f", {others} more with --unsafe" if safe and others else ""
    yield f"verdigris fix{path} --diff{option}   # {count} edit{'s' * (count != 1)}{more}"


def _grid(report: Report, style: Style) -> Iterator[str]:
    """Yield the checklist in five rows, two sections a row."""
    judged = {box.name: box for box in report.boxes}
    cells = []
    for place, section in enumerate(SECTIONS, 1):
        boxes = [box for box in judged.values() if box.section == section]
        signs = [sign(box, style) for box in boxes]
        left_out = sum(1 for _, name, _ in report.ignored if name.startswith(f"{section}/"))
        text = "".join(signs) + style.paint("." * left_out, "dim")
        cells.append((f"{place:>3} {SECTION_TITLES[section]:<13}", text, len(signs) + left_out))
    half = (len(cells) + 1) // 2
    for (title, text, width), (other, more, _) in zip(cells[:half], cells[half:], strict=True):
        yield f"{title}{text}{' ' * (10 - width)}{other}{more}".rstrip()


def _findings(report: Report, style: Style, in_full: int) -> Iterator[str]:
    full = _first(report, in_full)
    for box, finding in full:
        yield from _full(report, box, finding, style)
    told = {id(finding) for _, finding in full}
    rest = [pair for pair in report.findings if id(pair[1]) not in told]
    for box, finding in rest:
        yield _line(report, box, finding, style)
    if rest:
        yield ""


def _first(report: Report, limit: int) -> list[tuple[BoxReport, Finding]]:
    """Choose what is shown in full: one finding of each rule first, errors before advice."""
    rules: set[str] = set()
    firsts: list[tuple[BoxReport, Finding]] = []
    others: list[tuple[BoxReport, Finding]] = []
    for box, finding in report.findings:
        (others if box.rule(finding) in rules else firsts).append((box, finding))
        rules.add(box.rule(finding))
    errors = [pair for pair in (*firsts, *others) if pair[1].severity is Severity.ERROR]
    advice = [pair for pair in (*firsts, *others) if pair[1].severity is Severity.ADVICE]
    chosen = {id(finding) for _, finding in [*errors, *advice][:limit]}
    return [pair for pair in report.findings if id(pair[1]) in chosen]


def _full(report: Report, box: BoxReport, finding: Finding, style: Style) -> Iterator[str]:
    mark = sign(box, style) if finding.severity is Severity.ERROR else style.paint("advice", "cyan")
    yield f"{mark} {box.number} {style.paint(box.rule(finding), 'bold')}  {shown(report, finding.place)}"
    yield from _wrapped(clean(finding.message), style, "    ")
    yield from _frame(report, finding, style)
    if finding.severity is Severity.ERROR:
        yield from _wrapped(clean(box.consequence_of(finding)), style, "    ", dim=True)
    if finding.fix:
        first, *more = [clean(line) for line in finding.fix.splitlines()]
        yield f"    {style.paint('do', 'green')}   {first}"
        yield from (f"         {line}" for line in more)
    for place, text in finding.related[:3]:
        yield f"    {style.paint(f'see  {shown(report, place)}: {clean(text)}', 'dim')}"
    yield ""


def _frame(report: Report, finding: Finding, style: Style) -> Iterator[str]:
    """Yield the marked lines, with carets under the span when it lies within one line."""
    frame = report.frame(finding)
    if not frame or finding.place is None:
        return
    gutter = max(len(str(number)) for number, _ in frame)
    bar = style.paint("│", "dim")
    room = style.width - gutter - 7
    for number, text in frame:
        yield f"    {style.paint(str(number).rjust(gutter), 'dim')} {bar} {cut(clean(text.rstrip()), room)}"
    place, text = finding.place, frame[0][1]
    if place.end_line <= place.line and place.end_column > place.column:
        before = columns(clean(text[: place.column]))
        marked = min(columns(clean(text[place.column : place.end_column])), room - before)
        if marked > 0:
            yield f"    {' ' * gutter} {bar} {' ' * before}{style.paint('^' * marked, 'red')}"


def _line(report: Report, box: BoxReport, finding: Finding, style: Style) -> str:
    mark = sign(box, style) if finding.severity is Severity.ERROR else style.paint("advice", "cyan")
    where = shown(report, finding.place)
    return f"{mark} {box.number} {style.paint(box.rule(finding), 'bold')}  {where}  {clean(finding.message)}"


def _doubts(report: Report, style: Style) -> Iterator[str]:
    """Yield the unproven boxes by what would settle them, with their first reasons; a shared one is told once."""
    unproven = [box for box in report.boxes if box.doubts and box in report.unproven]
    if not unproven:
        return
    yield f"{style.paint('?', 'yellow')} {len(unproven)} unproven"
    groups: dict[str, list[BoxReport]] = {}
    for box in unproven:
        groups.setdefault(box.doubts[0].settle, []).append(box)
    for settle, boxes in sorted(groups.items(), key=lambda group: -len(group[1])):
        yield from _wrapped(f"{len(boxes)} to settle: {clean(settle)}", style, "    ")
        alike: dict[str, list[BoxReport]] = {}
        for box in boxes:
            alike.setdefault(_doubt(report, box), []).append(box)
        for reason, same in alike.items():
            who = f"{same[0].number} {same[0].name}" if len(same) == 1 else ", ".join(box.number for box in same)
            yield from _wrapped(f"{who}: {reason}", style, "      ", dim=True, hang="    ")
    yield ""


def _doubt(report: Report, box: BoxReport) -> str:
    doubt = box.doubts[0]
    where = f"{shown(report, doubt.place)} " if doubt.place is not None else ""
    more = f" (and {len(box.doubts) - 1} more)" if len(box.doubts) > 1 else ""
    return f"{where}{clean(doubt.reason)}{more}"


def _proofs(report: Report, style: Style) -> Iterator[str]:
    """Yield every box that holds or is not applicable, with its first proof."""
    proved = [box for box in report.boxes if box.verdict in {Verdict.HOLDS, Verdict.NOT_APPLICABLE}]
    for box in proved:
        told = clean(box.holds) if box.verdict is Verdict.HOLDS else "not applicable: there is nothing to judge"
        yield f"{sign(box, style)} {box.number:>4} {style.paint(box.name, 'bold')}  {told}"
        for proof in box.proofs[:1]:
            where = f"{shown(report, proof.place)}  " if proof.place is not None else ""
            more = f" (and {len(box.proofs) - 1} more)" if len(box.proofs) > 1 else ""
            text = f"       {where}{clean(proof.reason)} · {proof.kind}{more}"
            yield style.paint(text, "dim")
    if proved:
        yield ""


def _excused(report: Report, style: Style) -> Iterator[str]:
    for box in report.excused:
        yield f"{sign(box, style)} {box.number} {box.name}  {clean(box.excused or '')}"
    if report.excused:
        yield ""


def _listed(word: str, items: list[str], style: Style, everything: bool) -> Iterator[str]:  # noqa: FBT001 - private
    shown_items = items if everything else items[:LISTED]
    for item in shown_items:
        yield f"{style.paint(word, 'yellow')} {item}"
    if len(items) > len(shown_items):
        yield f"{style.paint(word, 'yellow')} and {len(items) - len(shown_items)} more"
    if items:
        yield ""


def _wrapped(text: str, style: Style, indent: str, *, dim: bool = False, hang: str = "") -> Iterator[str]:
    width = style.width - len(indent)
    lines = textwrap.wrap(text, width, subsequent_indent=hang, break_long_words=False, break_on_hyphens=False) or [""]
    yield from (f"{indent}{style.paint(line, 'dim') if dim else line}" for line in lines)
