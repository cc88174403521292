"""What services that show a repository are given: SARIF for code scanning, workflow commands for annotations."""

from __future__ import annotations

import json
from dataclasses import replace

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
