"""What services are given: SARIF for code scanning, workflow commands for annotations, JUnit's XML for tests."""

from __future__ import annotations

import json
from dataclasses import replace
from xml.etree import ElementTree as ET

import pytest

from tests.report.sample import box, finding, many, sample
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Severity
from verdigris.evidence.values import Place
from verdigris.report import renderer
from verdigris.report.style import Style


def sarif(report):
    [run] = json.loads(renderer("sarif")(report, Style()))["runs"]
    return run


def commands(report):
    return renderer("github")(report, Style()).splitlines()


def junit(report):
    return ET.fromstring(renderer("junit")(report, Style()))


def case(report, name):
    [found] = [each for each in junit(report).iter("testcase") if each.get("name") == name]
    return found


def failing(*findings, **more):
    return replace(
        sample(), boxes=(box("engine/pre-ping", "1.3", Verdict.FAILS, findings=findings, **more),), unread=()
    )


def test_every_result_has_a_location_a_message_and_a_rule_that_is_described():
    run = sarif(sample())

    rules = run["tool"]["driver"]["rules"]
    assert run["results"]
    for result in run["results"]:
        [location] = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"]
        assert location["physicalLocation"]["region"]["startLine"] >= 1
        assert result["message"]["text"]
        assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
    assert all(rule["shortDescription"]["text"] and rule["help"]["text"] for rule in rules)


def test_what_a_team_has_decided_otherwise_is_no_alert():
    report = failing(accepted="a proxy", suppressed=((finding(), "a proxy"),), known=(finding(),))
    accepted = failing(finding(), accepted="a proxy")

    assert sarif(report)["results"] == sarif(accepted)["results"] == []
    assert len(commands(accepted)) == 1


def test_a_finding_keeps_its_fingerprint_when_its_line_moves_and_two_of_one_subject_have_their_own():
    def prints(*findings):
        return [result["partialFingerprints"]["verdigris/v1"] for result in sarif(failing(*findings))["results"]]

    first, second = prints(finding(3), finding(9))

    assert first != second
    assert prints(finding(40), finding(41)) == [first, second]


@pytest.mark.parametrize(
    ("root", "path", "uri"),
    [
        (".", "app/db.py", "app/db.py"),
        ("shop", "app/db.py", "shop/app/db.py"),
        ("./shop/", "app/db.py", "shop/app/db.py"),
        ("/somewhere/shop", "app/db.py", "app/db.py"),
        ("../shop", "app/db.py", "app/db.py"),
        ("shop/db.py", "db.py", "shop/db.py"),
        (".", "app/данные 1%.py", "app/%D0%B4%D0%B0%D0%BD%D0%BD%D1%8B%D0%B5%201%25.py"),
    ],
)
def test_paths_lead_from_where_the_command_was_run(root, path, uri):
    report = replace(failing(finding(place=Place(path, 3))), root=root)

    assert sarif(report)["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == uri


def test_more_results_than_are_taken_are_cut_and_errors_come_first():
    report = many(findings=60_000)
    late = box("testing/last", "9.9", Verdict.FAILS, findings=(finding(variant="late"),))
    advice = box("engine/first", "1.0", Verdict.HOLDS, findings=(finding(severity=Severity.ADVICE),))

    results = sarif(replace(report, boxes=(advice, *report.boxes[:10], late)))["results"]

    assert len(results) <= 25_000
    assert results[-2]["ruleId"] == "testing/last/late"
    assert results[-1]["level"] == "note"


def test_a_command_cannot_be_ended_or_begun_by_what_the_code_says():
    odd = finding(message="100% of\n::error::`x`\r\n\u2028", place=Place("a,b:c%.py", 3, 3, 4, 9), fix=None)

    [line, _] = commands(failing(odd))

    assert line.startswith(
        "::error file=shop/a%2Cb%3Ac%25.py,line=3,title=1.3 engine/pre-ping/off,col=5,endColumn=10::100%25 of%0A"
    )
    assert "\n" not in line


def test_columns_are_given_for_one_line_only_and_a_project_has_no_file():
    several, whole = finding(place=Place("db.py", 3, 8, 4, 1)), finding(place=None)

    first, second, _ = commands(failing(several, whole))

    assert "line=3,title=1.3 engine/pre-ping/off,endLine=8::" in first
    assert second.startswith("::error title=1.3 engine/pre-ping/off::")


SUITE = {"name", "tests", "failures", "errors", "skipped", "time"}
NAMED = {"name", "classname", "time"}
TOLD = {"message", "type"}
JUNIT = {  # what Jenkins' junit-10.xsd allows, as far as it is used: attributes, those that have to be there, children
    "testsuites": (SUITE - {"skipped"}, set(), {"testsuite"}),
    "testsuite": (SUITE, {"name", "tests", "failures", "errors"}, {"testcase", "system-out", "system-err"}),
    "testcase": (NAMED, {"name"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    "skipped": (TOLD, set(), set()),
    "failure": (TOLD, set(), set()),
    "error": (TOLD, set(), set()),
    "system-out": (set(), set(), set()),
    "system-err": (set(), set(), set()),
}


@pytest.mark.parametrize("report", [sample(), many(), replace(sample(), boxes=(), ignored=(), unread=())])
def test_a_junit_document_is_as_jenkins_and_gitlab_expect_it_and_its_sums_are_right(report):
    root = junit(report)

    assert root.tag == "testsuites"
    for element in root.iter():
        allowed, needed, children = JUNIT[element.tag]
        assert needed <= set(element.attrib) <= allowed
        assert {child.tag for child in element} <= children
    for suite in root:
        cases = suite.findall("testcase")
        for name, outcome in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
            assert int(suite.get(name)) == len(suite.findall(f"testcase/{outcome}"))
        assert int(suite.get("tests")) == len(cases) > 0
        assert all(len({"failure", "error", "skipped"} & {child.tag for child in each}) <= 1 for each in cases)
    assert int(root.get("tests", 0)) == len(report.boxes) + len(report.ignored)
    assert len({(each.get("classname"), each.get("name")) for each in root.iter("testcase")}) == int(root.get("tests"))


def test_a_box_that_fails_is_a_failure_with_every_place_and_what_to_do():
    failure = case(failing(finding(), finding(9, variant="late")), "1.3 pre-ping").find("failure")

    assert failure.get("message") == "shop/app/db.py:3: `pool_pre_ping` is off on `engine` (and 1 more)"
    assert failure.get("type") == "engine/pre-ping/off"
    assert "shop/app/db.py:9: engine/pre-ping/late: " in failure.text
    assert failure.text.count("    do: create_async_engine(settings.url, pool_pre_ping=True)") == 2


def test_only_a_box_that_was_proved_passes():
    outcomes = {
        each.get("name"): next((child.tag for child in each if child.tag != "system-out"), "passed")
        for each in junit(sample()).iter("testcase")
    }
    broken = replace(sample().boxes[3], crash="ValueError at engine.py:3: odd")

    assert outcomes == {
        "1.1 held": "passed",
        "1.2 failed": "failure",
        "1.3 suppressed": "skipped",
        "2.1 doubted": "skipped",
        "3.1 absent": "skipped",
        "4.1 known": "skipped",
        "5.1 advised": "passed",
        "8.1 accepted": "skipped",
        "10.2 explained": "skipped",
    }
    assert case(replace(sample(), boxes=(broken,)), "2.1 doubted").find("error") is not None
    assert "settle" in case(sample(), "2.1 doubted").find("skipped").get("message")


def test_what_no_document_may_hold_is_left_out_of_it():
    odd = finding(message="\x00\x1b[31m \ud800 \ufffe ]]> <b> & é", place=Place("a\udcff.py", 3), fix="x\ud800 < 1")

    text = renderer("junit")(failing(odd), Style())

    assert text.isascii()
    assert ET.fromstring(text).find(".//failure").get("message").endswith("]]> <b> & é")
