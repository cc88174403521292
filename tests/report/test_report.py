from __future__ import annotations

from dataclasses import replace

from tests.report.sample import box, finding, sample
from verdigris.checklist.box import Box
from verdigris.checklist.verdict import Verdict
from verdigris.evidence import Evidence
from verdigris.evidence.judgement import Severity
from verdigris.evidence.values import Place
from verdigris.report.report import judge


def test_a_box_that_fails_makes_the_exit_code_one():
    assert sample().exit_code() == 1


def test_nothing_that_fails_makes_the_exit_code_zero_whatever_is_unproven_or_advised():
    report = sample()
    calm = replace(report, boxes=tuple(each for each in report.boxes if each not in report.failing))

    assert calm.exit_code() == 0
    assert calm.exit_code(strict=True) == 1


def test_advice_alone_counts_when_strict():
    advice = finding(severity=Severity.ADVICE)
    report = replace(sample(), boxes=(box("engine/held", "1.1", Verdict.HOLDS, findings=(advice,)),))

    assert (report.exit_code(), report.exit_code(strict=True)) == (0, 1)


def test_an_accepted_box_that_is_unproven_is_accepted_when_strict_too():
    unproven = box("engine/doubted", "1.1", Verdict.UNPROVEN, accepted="looked at")
    report = replace(sample(), boxes=(unproven,))

    assert report.exit_code(strict=True) == 0


def test_a_box_that_broke_makes_the_exit_code_two():
    broken = box("engine/broken", "1.1", Verdict.UNPROVEN, crash="KeyError: 'x'")
    report = sample()

    assert replace(report, boxes=(*report.boxes, broken)).exit_code() == 2


def test_a_box_is_excused_only_when_no_error_is_left():
    both = box("engine/both", "1.1", Verdict.FAILS, findings=(finding(),), suppressed=((finding(4), "a proxy"),))
    one = replace(both, findings=())

    assert both.excused is None
    assert one.excused == "suppressed: a proxy"


def test_a_frame_has_at_most_three_lines_and_stays_within_the_file():
    report = sample()

    assert [number for number, _ in report.frame(finding(4, place=Place("app/db.py", 4, 8)))] == [4, 5, 6]
    assert [number for number, _ in report.frame(finding(8, place=Place("app/db.py", 8, 30)))] == [8]
    assert report.frame(finding(place=Place("app/db.py", 99, 99))) == []
    assert report.frame(finding(place=Place("other.py", 1))) == []
    assert report.frame(finding(place=None)) == []


def test_a_box_that_breaks_is_unproven_and_the_others_are_judged(monkeypatch, tmp_path):
    from verdigris.checklist import registry as module
    from verdigris.evidence.source import Source

    class Held(Box):
        name = "engine/test-held"
        holds = fails = consequence = ""

        def subjects(self, evidence):
            return evidence.source.engines

        def judge(self, subject, evidence):
            raise AssertionError

    class Broken(Held):
        name = "engine/test-broken"

        def subjects(self, evidence):
            return {}["key"]

    monkeypatch.delitem(Box.registry, "engine/test-held")
    monkeypatch.delitem(Box.registry, "engine/test-broken")
    listed = {"engine/test-held": ("1.1", Held()), "engine/test-broken": ("1.2", Broken())}
    monkeypatch.setattr(module, "boxes", lambda: listed)

    held, broken = judge(Evidence(Source.read(tmp_path)))

    assert (held.verdict, held.crash) == (Verdict.NOT_APPLICABLE, None)
    assert broken.verdict is Verdict.UNPROVEN
    assert broken.crash.startswith("KeyError at test_report.py:")
