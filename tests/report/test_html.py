from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from tests.report.sample import box, finding, many, sample
from verdigris.checklist.registry import boxes
from verdigris.checklist.verdict import Verdict
from verdigris.report import renderer
from verdigris.report.style import Style

VOID = {"meta", "br", "link"}


class Reader(HTMLParser):
    """Checks that every tag is closed where it has to be, and notes what the file would load or run."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.text = [], [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [value for name, value in attrs if name in {"src", "srcset"} or name.startswith("on")]
        if tag in {"script", "link", "iframe", "object", "img"}:
            self.loads.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def test_it_loads_nothing_and_runs_nothing():
    text = renderer("html")(sample(), Style())

    assert read(text).loads == []
    assert "url(" not in text
    assert "@import" not in text


def test_it_shows_every_box_with_its_proof_folded():
    told = "".join(read(renderer("html")(sample(), Style())).text)

    for each in sample().boxes:
        assert each.name in told
    assert "create_async_engine · app/db.py:engine · source" in told


def test_what_comes_from_the_checked_code_is_text():
    nasty = replace(finding(), message="<script>alert(1)</script>", fix='"><img src=x onerror=alert(1)>\ud800\x00')
    report = replace(sample(), boxes=(box("engine/failed", "1.1", Verdict.FAILS, findings=(nasty,)),))

    text = renderer("html")(report, Style())

    assert read(text).loads == []
    assert "&lt;script&gt;" in text
    text.encode("utf-8")


@pytest.mark.parametrize(("findings", "proofs"), [(400, 400), (40_000, 40_000)])
def test_it_stays_small_however_much_there_is_to_say(findings, proofs):
    text = renderer("html")(many(findings, proofs), Style())

    read(text)
    assert len(text.encode()) < 150_000


def test_the_whole_checklist_with_its_pages_stays_small():
    report = sample()
    every = tuple(
        replace(box(name, number, Verdict.FAILS, findings=(finding(),) * 20), holds=each.holds)
        for name, (number, each) in boxes().items()
    )

    text = renderer("html")(replace(report, boxes=every), Style())

    read(text)
    assert len(text.encode()) < 150_000
