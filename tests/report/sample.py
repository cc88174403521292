"""A report with one box of every kind, made by hand: what the golden texts show."""

from __future__ import annotations

from dataclasses import replace

from verdigris.checklist.verdict import Verdict
from verdigris.evidence.judgement import Doubt, Finding, Kind, Proof, Severity
from verdigris.evidence.source.reading.files import Role, Unread
from verdigris.evidence.values import Place
from verdigris.report.report import BoxReport, Report

RECORD = "record a run: verdigris record -- CMD, then check --recording FILE"

DB = [
    "from sqlalchemy.ext.asyncio import create_async_engine",
    "",
    "engine = create_async_engine(settings.url)",
    "reports = create_async_engine(",
    "    settings.reports_url,",
    "    pool_size=20,",
    "    max_overflow=0,",
    ")",
]


def box(name: str, number: str, verdict: Verdict, **more) -> BoxReport:
    title = name.partition("/")[2].replace("-", " ")
    return BoxReport(
        name,
        number,
        holds=f"Every {title} is as it should be",
        fails=f"A {title} is not as it should be",
        consequence="A connection that the server closed fails the next request that gets it.",
        verdict=verdict,
        **more,
    )


def finding(line: int = 3, variant: str = "off", **more) -> Finding:
    given = {
        "subject": "app/db.py:engine",
        "variant": variant,
        "message": "`pool_pre_ping` is off on `engine`",
        "kind": Kind.SOURCE,
        "place": Place("app/db.py", line, line, 9, 42),
        "fix": "create_async_engine(settings.url, pool_pre_ping=True)",
    }
    return Finding(**(given | more))


def sample() -> Report:
    proof = Proof("app/db.py:engine", "create_async_engine", Kind.SOURCE, Place("app/db.py", 3))
    doubt = Doubt("app/db.py:engine", "its options come from **options", RECORD, Place("app/db.py", 3))
    advice = finding(
        variant="joined",
        severity=Severity.ADVICE,
        place=None,
        message="Order.customer is loaded by a second round trip",
        fix=None,
    )
    several = finding(
        4,
        "default",
        place=Place("app/db.py", 4, 8, 10, 1),
        message="`reports` has the default pool",
        consequence="Requests queue for connections.",
        fix="reports = create_async_engine(\n    settings.reports_url,\n    pool_size=10,\n)",
        related=((Place("app/api.py", 12), "used here"),),
    )
    boxes = (
        box("engine/held", "1.1", Verdict.HOLDS, proofs=(proof, replace(proof, kind=Kind.RECORDING, place=None))),
        box("engine/failed", "1.2", Verdict.FAILS, findings=(finding(), several), proofs=(proof,)),
        box("engine/suppressed", "1.3", Verdict.FAILS, suppressed=((finding(), "the proxy does it"),)),
        box("session/doubted", "2.1", Verdict.UNPROVEN, doubts=(doubt, replace(doubt, place=None))),
        box("fastapi/absent", "3.1", Verdict.NOT_APPLICABLE),
        box("models/known", "4.1", Verdict.FAILS, known=(finding(),)),
        box("loading/advised", "5.1", Verdict.HOLDS, proofs=(proof,), findings=(advice,)),
        box("errors/accepted", "8.1", Verdict.UNPROVEN, doubts=(doubt,), accepted="reviewed in March"),
    )
    return Report(
        version="0.1.0",
        root="shop",
        understood="2 engines, 1 factory, 50 routes, 31 models; services commit",
        kinds=(Kind.SOURCE, Kind.RECORDING),
        boxes=boxes,
        unread=(Unread("app/new.py", "it is broken at line 3 or newer than Python 3.11's grammar", Role.APPLICATION),),
        files=148,
        seconds=0.84,
        recorded="212 tests",
        ignored=(("10.2", "performance/explained", "reviewed monthly by the data team"),),
        notices=("app/db.py:9: nothing to suppress here: engine/held (old)",),
        lines={"app/db.py": DB},
    )


def many(findings: int = 3_000, proofs: int = 3_000) -> Report:
    """A report of a project that has very much to say."""
    proof = Proof("app/db.py:engine", "create_async_engine " * 5, Kind.SOURCE, Place("app/db.py", 3))
    boxes = tuple(
        box(
            f"{section}/box-{number}",
            f"{place}.{number}",
            Verdict.FAILS,
            findings=tuple(finding(subject=f"app/db.py:{index}") for index in range(findings // 40)),
            proofs=tuple(replace(proof, subject=f"app/db.py:{index}") for index in range(proofs // 40)),
        )
        for place, section in enumerate(("engine", "session", "fastapi", "models", "loading", "bulk"), 1)
        for number in range(1, 8)
    )
    return replace(sample(), boxes=boxes)
