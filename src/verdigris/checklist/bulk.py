"""Section 6: writing many rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from verdigris.checklist.box import Box
from verdigris.evidence.guarantees import guaranteed
from verdigris.evidence.judgement import Judgement, Kind, Population, Severity, Subject
from verdigris.evidence.source.statements.writes import INSERTS, MERGES, BulkWrite, ChunkLoop, Writer
from verdigris.evidence.values import Known, Missing, Unknown

if TYPE_CHECKING:
    from verdigris.evidence import Evidence

COPY = "verdigris.bulk.insert"
TOGETHER = "session.add_all(objects)   # after the loop, then one flush"
AT_ONCE = "await session.execute(insert(Model), rows)   # after the loop; a connection's execute() takes rows, too"
UPSERT = (
    "upsert = insert(Model)   # of sqlalchemy.dialects.postgresql\n"
    'changed = {"name": upsert.excluded.name}   # each column that merge() would have set\n'
    "await session.execute(upsert.on_conflict_do_update(index_elements=[Model.id], set_=changed), rows)"
)
IN_CHUNKS = (
    "for start in range(0, len(rows), 1_000):   # or itertools.batched(rows, 1_000), since Python 3.12\n"
    "    await session.execute(insert(Model), rows[start : start + 1_000])"
)
MANY = 20  # single-row INSERTs of one table in one request: more is a loop


class AddAll(Box[Writer]):
    """6.1."""

    name = "bulk/add-all"
    holds = "Many rows go in together, not one by one"
    fails = "Rows go in one by one, each with a round trip of its own"
    consequence = "A thousand rows take a thousand round trips, with the transaction open all the while."

    def subjects(self, evidence: Evidence) -> Population[Writer]:
        """Name the functions that insert."""
        return evidence.source.writers

    def judge(self, subject: Writer, evidence: Evidence) -> Judgement:
        """Look for a wait in each round of a loop over rows, in the source and in the run."""
        if subject.row_wise is not None:
            fix = {MERGES: UPSERT, INSERTS: AT_ONCE}.get(subject.how, TOGETHER)
            return subject.finding(
                "row-by-row", f"a loop over rows waits for {subject.how}", place=subject.row_wise, fix=fix
            )
        for seen in evidence.inserts(subject.place):
            if seen.single_row_max > MANY:
                return subject.finding(
                    "row-by-row",
                    f"{seen.single_row_max} single-row INSERTs into {seen.table} "
                    f"in one {'request' if seen.route else 'task'}",
                    fix=TOGETHER,
                    kind=Kind.RECORDING,
                )
        return subject.proof("no loop over rows waits for the server in each round")


class Chunked(Box[BulkWrite]):
    """6.2."""

    name = "bulk/chunked"
    holds = "Large inserts go in chunks"
    fails = "A list of any length goes into one statement"
    consequence = (
        "A statement carries 32,767 parameters at most: the day the list is longer, the insert fails as a whole."
    )

    def subjects(self, evidence: Evidence) -> Population[BulkWrite]:
        """Name the statements that carry many rows."""
        return evidence.source.bulk_writes

    def judge(self, subject: BulkWrite, evidence: Evidence) -> Judgement:
        """A list in values() must be bounded; elsewhere SQLAlchemy chunks, and only memory grows."""
        if subject.how == "bulk.insert":
            promise = guaranteed(COPY, "chunks")
            return subject.proof(promise.reason) if promise else subject.doubt("nothing promises that it chunks")
        if subject.bounded:
            return subject.proof("what it carries is bounded where it stands")
        if subject.how == "values" and subject.bounded is None:
            return subject.doubt(
                "how long the list may become is not settled by the source",
                settle="insert it in chunks, or slice it to a bound",
            )
        if subject.how == "values":
            return subject.finding(
                "parameters", "a list of any length becomes the parameters of one statement", fix=IN_CHUNKS
            )
        return subject.finding(
            "unbounded",
            f"{subject.how} takes a list of any length: all its rows are in memory",
            fix=IN_CHUNKS,
            severity=Severity.ADVICE,
        )


class FlushBetween(Box[Subject]):
    """6.3."""

    name = "bulk/flush-between"
    holds = "Each chunk's objects leave the session before the next chunk comes"
    fails = "Chunks are added and none is flushed before the end"
    consequence = "The session holds every object of every chunk until the end: the chunks save nothing."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name the loops over chunks that add objects, and the bulk loads that keep none."""
        loops = evidence.source.chunk_loops.where(lambda loop: loop.adds)
        copies = evidence.source.bulk_writes.where(lambda write: write.how == "bulk.insert")
        return Population((*loops, *copies), loops.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Ask for a flush or commit in each round."""
        if isinstance(subject, ChunkLoop):
            if subject.released is None:
                return subject.finding(
                    "kept",
                    "chunks are added in a loop that never flushes",
                    fix="await session.flush()   # at the end of each round",
                )
            return subject.proof("each round ends with a flush or commit", place=subject.released)
        promise = guaranteed(COPY, "objects")
        return subject.proof(promise.reason) if promise else subject.doubt("nothing promises that it keeps no objects")


class BatchTuned(Box[Subject]):
    """6.4."""

    name = "bulk/batch-tuned"
    holds = "The size of chunks was measured, not guessed"
    fails = "The size of chunks is written down, and nothing measured it"
    consequence = "Too small wastes round trips, too large memory; which it is depends on the rows."

    def subjects(self, evidence: Evidence) -> Population[Subject]:
        """Name whatever has a chunk size."""
        loops = evidence.source.chunk_loops
        copies = evidence.source.bulk_writes.where(lambda write: write.how == "bulk.insert")
        return Population((*loops, *copies), loops.gaps)

    def judge(self, subject: Subject, evidence: Evidence) -> Judgement:
        """Believe a run that tried several sizes; the library tunes unless it is told a size."""
        if isinstance(subject, BulkWrite):
            match subject.chunk:
                case Missing():
                    return self._tuned(subject, evidence)
                case Known(size):
                    return subject.finding("fixed", f"chunk={size} switches the tuning off", fix="leave `chunk` out")
                case Unknown(reason):
                    return subject.doubt(f"its chunk size is not settled: {reason}")
        return subject.doubt(
            "a chunk size does not show whether it was measured",
            settle='accept the box with the measurement: [tool.verdigris.accept] "bulk/batch-tuned" = "…"',
        )

    def _tuned(self, subject: BulkWrite, evidence: Evidence) -> Judgement:
        for seen in evidence.copies(subject.place):
            sizes = sorted({chunk.rows for chunk in seen.chunks})
            if len(sizes) > 1:
                best = max(seen.chunks, key=lambda chunk: chunk.rows / max(chunk.seconds, 1e-9))
                rate = best.rows / max(best.seconds, 1e-9)
                return subject.proof(
                    f"tried chunks of {sizes[0]:,} to {sizes[-1]:,} rows; best {rate:,.0f} rows/s at {best.rows:,}",
                    kind=Kind.RECORDING,
                )
        promise = guaranteed(COPY, "tuned")
        return subject.proof(promise.reason) if promise else subject.doubt("nothing promises that it tunes itself")
