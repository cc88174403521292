"""The figures for Prometheus and OpenTelemetry; both packages are optional (`pip install verdigris[metrics]`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from verdigris.performance.queries import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from verdigris.performance.queries import Histogram, Queries

__all__ = ["CONTENT_TYPE", "PrometheusCollector", "observe_with_opentelemetry", "prometheus_text"]

#: Of `prometheus_text()`.
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_GAUGES = {
    "size": "Connections that the pool keeps.",
    "max_overflow": "Connections that it may open beyond them.",
    "in_use": "Connections that are checked out.",
    "idle": "Connections that wait to be used.",
    "overflow": "Connections open beyond the pool's size.",
    "waiting": "Tasks that wait for a connection.",
}


class PrometheusCollector:
    """A collector for `prometheus_client`: `REGISTRY.register(PrometheusCollector({"main": db.queries}))`."""

    def __init__(self, databases: Mapping[str, Queries]) -> None:
        self._databases = databases

    def collect(self) -> Iterator[Any]:
        """Yield the families of metrics, as prometheus_client asks for them."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        gauges = {
            name: GaugeMetricFamily(f"verdigris_pool_{name}", text, labels=["database"])
            for name, text in _GAUGES.items()
        }
        timeouts = CounterMetricFamily(
            "verdigris_pool_timeouts", "Checkouts that found no connection.", labels=["database"]
        )
        waits = HistogramMetricFamily("verdigris_pool_wait_seconds", "Time to get a connection.", labels=["database"])
        times = HistogramMetricFamily(
            "verdigris_query_seconds", "Time of a statement at the driver.", labels=["database", "operation"]
        )
        for database, queries in self._databases.items():
            if queries.gauges is not None:
                status = queries.gauges.status()
                for name, family in gauges.items():
                    family.add_metric([database], getattr(status, name))
                timeouts.add_metric([database], status.timeouts)
                waits.add_metric([database], _buckets(queries.gauges.waits), queries.gauges.waits.total)
            for operation, histogram in sorted(queries.operations.items()):
                times.add_metric([database, operation], _buckets(histogram), histogram.total)
        yield from (*gauges.values(), timeouts, waits, times)


def prometheus_text(databases: Mapping[str, Queries]) -> bytes:
    """Return the figures as Prometheus scrapes them; raises ImportError where prometheus_client is not installed."""
    from prometheus_client import CollectorRegistry, generate_latest

    registry = CollectorRegistry()
    registry.register(PrometheusCollector(databases))
    return generate_latest(registry)


def observe_with_opentelemetry(databases: Mapping[str, Queries], meter: Any = None) -> None:
    """Register the pool's gauges with OpenTelemetry; raises ImportError where its API is not installed."""
    from opentelemetry import metrics

    meter = metrics.get_meter("verdigris") if meter is None else meter
    for name, text in _GAUGES.items():
        meter.create_observable_gauge(f"verdigris.pool.{name}", [_observer(databases, name)], description=text)


def _observer(databases: Mapping[str, Queries], name: str) -> Callable[[Any], Iterable[Any]]:
    from opentelemetry.metrics import Observation

    def observe(_options: Any) -> Iterator[Any]:
        for database, queries in databases.items():
            if queries.gauges is not None:
                yield Observation(getattr(queries.gauges.status(), name), {"database": database})

    return observe


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return cumulated counts by upper edge."""
    counted, cumulated = 0, []
    for edge, count in zip((*map(str, BUCKETS), "+Inf"), histogram.counts, strict=True):
        counted += count
        cumulated.append((edge, float(counted)))
    return cumulated
