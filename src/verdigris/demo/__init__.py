"""`verdigris demo`: a real shop on a real PostgreSQL, served, driven and proved, box by box."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from verdigris import embedded
from verdigris.checklist.verdict import Verdict
from verdigris.cli.options import Parser
from verdigris.demo.figures import figures
from verdigris.demo.stage import Stage, StageError, equipped, free_port, shop_directory
from verdigris.evidence.recording.artefact import Recording
from verdigris.report.style import style_for

if TYPE_CHECKING:
    from argparse import Namespace

    from verdigris.report.report import Report

SETTINGS: dict[str, str | float | bool] = {"shared_preload_libraries": "pg_stat_statements", "max_connections": 60}
INTERRUPTED = 130


def main(given: list[str]) -> int:
    """Run the demo; return 0 only when every box of the shop holds."""
    parser = Parser(
        "demo", "Serve, drive and prove the example shop.", "verdigris demo [--serve] [--port N] [--output DIR]"
    )
    parser.add_argument("--serve", action="store_true", help="leave the shop running afterwards, until Ctrl-C")
    parser.add_argument("--port", type=int, default=None, help="port of the shop; default: a free one")
    parser.add_argument(
        "--output", metavar="DIR", default=None, help="where the reports go; default: a temporary directory"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="how long the visitors stay; default: 6")
    options = parser.read(given)
    try:
        return _run(options)
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted: everything that was started has been stopped.\n")
        return INTERRUPTED


def _run(options: Namespace) -> int:
    started = time.perf_counter()
    equipped()
    output = Path(options.output or tempfile.mkdtemp(prefix="verdigris-demo-"))
    output.mkdir(parents=True, exist_ok=True)
    port = free_port(options.port)
    _say("starting a private PostgreSQL")
    with embedded.server(durable=False, settings=SETTINGS) as server:
        stage = Stage(shop_directory(), server.url, port, output)
        _say(f"PostgreSQL {server.version} on port {server.port}; making the tables: alembic upgrade head")
        stage.migrate()
        _say("loading a year of trade by COPY: python -m shop.seed")
        stage.seed()
        _say(f"serving the shop on {stage.address} under the recorder, and driving every route")
        with stage.served(record=True):
            routes = stage.drive(options.seconds)
        recording = Recording.load(stage.recording)
        _say("gathering the evidence: source, recording, database")
        report = stage.prove()
        _show(report, recording, routes, output, time.perf_counter() - started)
        if options.serve:
            with stage.served(record=False):
                _say(f"the shop runs on {stage.address} (its API: {stage.address}/docs); Ctrl-C stops it")
                stage.wait()
    return 0 if all(box.verdict is Verdict.HOLDS for box in report.boxes) else 1


def _show(report: Report, recording: Recording, routes: str, output: Path, seconds: float) -> None:
    from verdigris.report import html, json, terminal

    style = style_for(sys.stdout)
    (output / "report.html").write_text(html.render(report, style), "utf-8")
    (output / "report.json").write_text(json.render(report, style), "utf-8")
    sys.stdout.write(terminal.render_full(report, style))
    sys.stdout.write(style.finish(figures(recording, routes, style)))
    sys.stdout.write(f"\nreport     {output / 'report.html'}\n           {output / 'report.json'}\n")
    sys.stdout.write(f"recording  {output / 'recording.json'}\n")
    held = report.counts[Verdict.HOLDS]
    sys.stdout.write(f"{held} of {len(report.boxes)} boxes of the shop hold; {seconds:.0f} s from nothing to here\n")
    sys.stdout.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"· {text}\n" if style_for(sys.stderr).unicode else f"- {text}\n")
    sys.stderr.flush()


__all__ = ["StageError", "main"]
