"""Several recordings become one: counts add up, maxima stay maxima, quantiles come from all."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from verdigris.evidence.recording.artefact import (
    Chunk,
    Copy,
    Engine,
    Model,
    Pool,
    Recording,
    Request,
    Statement,
    StatementUse,
    Tests,
)
from verdigris.evidence.recording.histogram import Histogram, quantile
from verdigris.evidence.recording.merge import merge


def test_counts_add_up_and_maxima_stay():
    one = Recording(
        processes=1, requests=(Request("GET /", count=2, statuses={"200": 2}, statements_max=3, max_ms=5.0),)
    )
    two = Recording(
        processes=1, requests=(Request("GET /", count=1, statuses={"500": 1}, statements_max=9, max_ms=1.0),)
    )

    merged = merge([one, two])

    assert merged.processes == 2
    assert merged.requests == (Request("GET /", count=3, statuses={"200": 2, "500": 1}, statements_max=9, max_ms=5.0),)


def test_uses_of_one_line_become_one_and_others_stay_apart():
    def statement(*uses):
        return Recording(statements=(Statement("f", "select ?", count=1, uses=uses),))

    merged = merge([statement(StatementUse("a:1", 1), StatementUse("a:1", 2)), statement(StatementUse("b:1", 4))])

    assert [(use.site, use.count) for use in merged.statements[0].uses] == [("a:1", 3), ("b:1", 4)]


def test_settings_are_no_sums():
    engine = Engine("db.py:1", "db.py:1", pool_size=5, max_overflow=10, pool_recycle=900, statements=3)

    merged = merge([Recording(engines=(engine,)), Recording(engines=(engine,))])

    assert (merged.engines[0].pool_size, merged.engines[0].max_overflow, merged.engines[0].pool_recycle) == (5, 10, 900)
    assert (merged.engines[0].created, merged.engines[0].statements) == (2, 6)


def test_chunks_are_kept_in_order_and_tests_are_of_all_workers():
    one = Recording(copies=(Copy("t", chunks=(Chunk(5, 0.1),)),), tests=Tests(run=2, names=("a", "b"), workers=1))
    two = Recording(copies=(Copy("t", chunks=(Chunk(5, 0.1),)),), tests=Tests(run=1, names=("c",), workers=1))

    merged = merge([one, Recording(), two])

    assert merged.copies[0].chunks == (Chunk(5, 0.1), Chunk(5, 0.1))
    assert merged.tests == Tests(run=3, names=("a", "b", "c"), workers=2)


def test_a_model_is_the_same_in_every_process():
    assert merge([Recording(models=(Model("A", "app"),)), Recording(models=(Model("A", "app"),))]).models == (
        Model("A", "app"),
    )


def test_nothing_is_an_empty_recording():
    assert merge([]) == Recording()


@given(st.lists(st.lists(st.integers(min_value=1, max_value=10**10), min_size=1), min_size=1, max_size=4))
@example([[16382], [16382]])
def test_quantiles_come_from_all_processes_and_are_right_to_a_fifth(processes):
    def pool(times):
        histogram = Histogram()
        for time in times:
            histogram.add(time)
        return Pool("e", checkouts=len(times), wait_max_ms=histogram.longest / 1e6, wait_histogram=histogram.counts())

    merged = merge([Recording(pools=(pool(times),)) for times in processes]).pools[0]

    every = sorted(time for times in processes for time in times)
    exact = every[-(-len(every) // 2) - 1] / 1e6
    assert merged.checkouts == len(every)
    if len(processes) > 1:
        assert exact <= merged.wait_p50_ms * 1.0005  # a bound is written with four digits
        assert merged.wait_p50_ms <= max(exact * 1.2, 0.001)
    assert quantile(merged.wait_histogram, 1, merged.wait_max_ms) <= merged.wait_max_ms
