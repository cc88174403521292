"""The report as JUnit's XML, in the part of it that Jenkins and GitLab read: a box is a test, a section a suite.

A test has one outcome there: what a box fails by is all in one failure, and only a box that was proved passes.
https://github.com/jenkinsci/xunit-plugin/blob/master/src/main/resources/org/jenkinsci/plugins/xunit/types/model/xsd/junit-10.xsd
https://docs.gitlab.com/ci/testing/unit_test_reports/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from verdigris.checklist.pages import SECTIONS
from verdigris.checklist.verdict import Verdict
from verdigris.report.style import clean
from verdigris.report.words import heading, shown, shown_path, summary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from verdigris.evidence.judgement import Doubt, Finding
    from verdigris.evidence.values import Place
    from verdigris.report.report import BoxReport, Report
    from verdigris.report.style import Style

LISTED = 20  # proofs, doubts and pieces of advice of one box: a page of a server shows all of them at once
_NO_XML = re.compile("[\ud800-\udfff\ufffe\uffff]")  # undecodable bytes of file names, and what no document may hold
_NONE = "not applicable: there is nothing to judge"


def render(report: Report, _style: Style) -> str:
    """Return the document, in ASCII: whatever it is written to can hold it."""
    root = document(report)
    indent(root)
    text: bytes = tostring(root, "us-ascii", xml_declaration=True)
    return f"{text.decode('ascii')}\n"


def document(report: Report) -> Element:
    """Return the document: a suite for each section that has a box, and their sums."""
    root = Element("testsuites", name="verdigris")
    for section in SECTIONS:
        cases = [_case(report, box) for box in report.boxes if box.section == section]
        ignored = (each for each in report.ignored if each[1].startswith(f"{section}/"))
        cases += [_left_out(name, number, why) for number, name, why in ignored]
        if cases:
            suite = SubElement(root, "testsuite", name=f"verdigris.{section}")
            suite.extend(sorted(cases, key=_number))
            _count(suite, cases)
    _count(root, list(root.iter("testcase")))
    root.set("time", f"{report.seconds:.3f}")
    for suite in root[:1]:
        SubElement(suite, "system-out").text = _lines([report.understood, heading(report), summary(report)])
        told = [f"{shown_path(report, file.path)} was not read: {file.reason}" for file in report.unread]
        if told or report.notices:
            SubElement(suite, "system-err").text = _lines([*told, *report.notices])
    return root


def _count(suite: Element, cases: list[Element]) -> None:
    suite.set("tests", str(len(cases)))
    for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        if suite.tag == "testsuite" or name != "skipped":  # the sums of a document know no skipped ones
            suite.set(name, str(sum(case.find(outcome) is not None for case in cases)))
    if suite.tag == "testsuite":
        suite.set("time", "0.000")  # boxes share their evidence: no part of the time is one's own


def _number(case: Element) -> tuple[int, ...]:
    return tuple(int(part) for part in case.get("name", "").partition(" ")[0].split("."))


def _new(name: str, number: str) -> Element:
    section, _, rest = name.partition("/")
    return Element("testcase", classname=f"verdigris.{section}", name=f"{number} {rest}", time="0.000")


def _left_out(name: str, number: str, why: str) -> Element:
    case = _new(name, number)
    SubElement(case, "skipped", message=_line(f"ignored: {why}"))
    return case


def _case(report: Report, box: BoxReport) -> Element:
    case = _new(box.name, box.number)
    told: Iterable[str] = ()
    if box.crash is not None:
        SubElement(case, "error", message=_line(f"this box broke: {box.crash}"), type="crash")
    elif box.excused is not None:
        SubElement(case, "skipped", message=_line(box.excused))
        told = (line for finding in (*box.errors, *box.known) for line in _found(report, box, finding))
    elif box.verdict is Verdict.FAILS:
        told = (line for finding in box.errors for line in _found(report, box, finding))
        first = box.errors[0]
        more = f" (and {len(box.errors) - 1} more)" if len(box.errors) > 1 else ""
        message = f"{shown(report, first.place)}: {first.message}{more}"
        SubElement(case, "failure", message=_line(message), type=_line(box.rule(first))).text = _lines(told)
        told = ()
    elif box.verdict is Verdict.UNPROVEN:
        reason = _doubt(report, box.doubts[0]) if box.doubts else "nobody knows whether all of it was seen"
        SubElement(case, "skipped", message=_line(f"unproven: {reason}"))
        told = (_doubt(report, doubt) for doubt in box.doubts[1:LISTED])
    elif box.verdict is Verdict.NOT_APPLICABLE:
        SubElement(case, "skipped", message=_NONE)
    told = [*told, *_proved(report, box), *_advised(report, box)]
    if told:
        SubElement(case, "system-out").text = _lines(told)
    return case


def _found(report: Report, box: BoxReport, finding: Finding) -> Iterator[str]:
    yield f"{shown(report, finding.place)}: {box.rule(finding)}: {finding.message}"
    yield f"    {box.consequence_of(finding)}"
    for number, line in enumerate((finding.fix or "").splitlines()):
        yield f"    {'    ' if number else 'do: '}{line}"
    yield from (f"    see {shown(report, place)}: {text}" for place, text in finding.related)


def _doubt(report: Report, doubt: Doubt) -> str:
    return f"{_at(report, doubt.place)}{doubt.reason}; to settle: {doubt.settle}"


def _proved(report: Report, box: BoxReport) -> Iterator[str]:
    if box.verdict is Verdict.HOLDS:
        yield from (f"{_at(report, proof.place)}{proof.reason} ({proof.kind})" for proof in box.proofs[:LISTED])


def _advised(report: Report, box: BoxReport) -> Iterator[str]:
    yield from (f"advice: {_at(report, finding.place)}{finding.message}" for finding in box.advice[:LISTED])


def _at(report: Report, place: Place | None) -> str:
    return "" if place is None else f"{shown(report, place)}: "


def _line(text: str) -> str:
    return _NO_XML.sub("�", clean(text))


def _lines(texts: Iterable[str]) -> str:
    return "\n".join(_line(line) for line in texts if line)
