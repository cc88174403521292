from __future__ import annotations

import io
from dataclasses import replace

import pytest

from tests.report.sample import box, finding, many, sample
from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Edit
from verdigris.evidence.values import Place
from verdigris.report import renderer
from verdigris.report.style import Style, clean, columns, cut, style_for
from verdigris.report.words import shown, summary


class Stream(io.StringIO):
    def __init__(self, *, looked_at=False, encoding="utf-8"):
        super().__init__()
        self.looked_at, self.given = looked_at, encoding

    @property
    def encoding(self):
        return self.given

    def isatty(self):
        return self.looked_at


@pytest.mark.parametrize(
    ("colour", "environment", "looked_at", "expected"),
    [
        ("auto", {}, False, False),
        ("auto", {}, True, True),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": "", "TERM": "xterm"}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": "1", "NO_COLOR": "1"}, True, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("auto", {"CI": "true"}, False, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_colour_follows_the_option_then_no_color_then_force_color_then_the_terminal(
    colour, environment, looked_at, expected
):
    assert style_for(Stream(looked_at=looked_at), colour, environment).colour is expected


def test_a_pipe_is_a_hundred_columns_wide_and_a_terminal_as_wide_as_it_says():
    assert style_for(Stream(), "auto", {"COLUMNS": "72"}).width == 100
    assert style_for(Stream(looked_at=True), "auto", {"COLUMNS": "72"}).width == 72


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", True), ("UTF8", True), ("ascii", False), ("cp1252", False)]
)
def test_typographic_signs_need_a_unicode_stream(encoding, expected):
    assert style_for(Stream(encoding=encoding), "auto", {}).unicode is expected


def test_without_unicode_every_character_of_our_own_is_ascii():
    assert renderer("terminal")(sample(), Style(unicode=False)).isascii()


def test_texts_of_the_checked_code_cannot_steer_the_terminal():
    nasty = replace(finding(), message="\x1b[2J\x9b31m`a`\r\u202eb", place=Place("app/\x1b]0;title\x07.py", 1))
    report = replace(sample(), boxes=(box("engine/failed", "1.1", Verdict.FAILS, findings=(nasty,)),))

    for form in ("terminal", "full", "concise"):
        text = renderer(form)(report, Style())
        assert not any(sign in text for sign in "\x1b\x9b\x07\r\u202e")


def test_carets_stand_under_wide_characters():
    assert columns(clean("名前 = x")) == 8


@pytest.mark.parametrize("text", ["a" * 30, "數" * 30, "a" + "數" * 29, "数a" * 15])
def test_a_line_is_cut_to_the_columns_of_the_terminal(text):
    assert cut(text, 60) == text
    assert 18 <= columns(cut(text, 20)) <= 20
    assert cut(text, 20).endswith("…")


def test_limits_change_no_count_and_no_exit_code():
    report = many(3_000)
    text = renderer("terminal")(report, Style())

    assert len([line for line in text.splitlines() if "│" in line and line.strip().startswith("3")]) == 5
    assert text.count("engine/box-1/off") == 75
    assert "42 fail" in summary(report)


@pytest.mark.parametrize(
    ("safe", "unsafe", "told"),
    [
        (2, 1, "      verdigris fix shop --diff   # 2 edits, 1 more with --unsafe"),
        (1, 0, "      verdigris fix shop --diff   # 1 edit"),
        (0, 1, "      verdigris fix shop --diff --unsafe   # 1 edit"),
        (0, 0, None),
    ],
)
def test_what_can_be_written_is_offered_before_the_summary(safe, unsafe, told):
    edits = tuple(
        Edit(Place("app/db.py", line), "ping", "True", safe=line <= safe) for line in range(1, safe + unsafe + 1)
    )
    report = replace(
        sample(),
        boxes=(
            box("engine/pre-ping", "1.3", Verdict.FAILS, findings=(finding(edits=edits),)),
            box("engine/recycle", "1.5", Verdict.FAILS, findings=(finding(edits=edits),)),
            box("session/autoflush", "2.3", Verdict.FAILS, findings=(finding(edits=(Edit(Place("x", 1), "a", "1"),)),),
                accepted="a proxy"),
        ),
    )  # fmt: skip

    *_, offered, _ = renderer("terminal")(report, Style()).splitlines()

    assert offered == (told or "next: verdigris explain engine/pre-ping")


def test_a_place_is_shown_as_it_can_be_opened_from_where_the_command_was_run():
    report = sample()

    assert shown(replace(report, root="."), Place("a/b.py", 3)) == "a/b.py:3"
    assert shown(replace(report, root="../x/"), Place("a/b.py", 3)) == "../x/a/b.py:3"
    assert shown(replace(report, root="app/db.py"), Place("db.py", 3)) == "app/db.py:3"
