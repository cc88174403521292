"""The demo's figures: what the pool and the slowest queries did, from the recording."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.report.style import cut

if TYPE_CHECKING:
    from collections.abc import Iterator

    from verdigris.evidence.recording.artefact import Pool, Recording
    from verdigris.report.style import Style

SLOWEST = 6


def figures(recording: Recording, routes: str, style: Style) -> str:
    """Return what was asked of the shop, how its pool did, and which queries took longest."""
    lines = ["", style.paint("What the visitors asked for", "bold"), *(f"  {line}" for line in routes.splitlines()), ""]
    for pool in recording.pools:
        lines += _pool(pool, style)
    lines += ["", *_queries(recording, style)]
    return "\n".join(lines) + "\n"


def _pool(pool: Pool, style: Style) -> Iterator[str]:
    yield style.paint("The pool", "bold")
    most = f"{pool.high_water} of {pool.capacity or 'unlimited'} connections at most"
    waited = f"waited p50 {pool.wait_p50_ms:.1f} ms, p99 {pool.wait_p99_ms:.1f} ms, at most {pool.wait_max_ms:.1f} ms"
    held = f"held p50 {pool.held_p50_ms:.1f} ms, p99 {pool.held_p99_ms:.1f} ms"
    yield f"  {most}, for {pool.max_concurrent_requests} requests at once"
    yield f"  {pool.checkouts:,} checkouts, {pool.timeouts} timed out; {waited}"
    yield f"  {held}; {pool.connects} connected, {pool.pings} pinged over the wire"


def _queries(recording: Recording, style: Style) -> Iterator[str]:
    yield style.paint("The slowest queries, by total time", "bold")
    yield style.paint("     total    calls     mean      max  where and what", "dim")
    for statement in sorted(recording.statements, key=lambda each: each.total_ms, reverse=True)[:SLOWEST]:
        site = next((use.site for use in statement.uses if use.site is not None), None) or "outside the application"
        mean = statement.total_ms / max(statement.count, 1)
        text = f"{site}  {' '.join(statement.text.split())}"
        yield (
            f"  {statement.total_ms:5.0f} ms {statement.count:8,} {mean:5.2f} ms {statement.max_ms:5.1f} ms  "
            f"{cut(text, style.width - 42)}"
        )
