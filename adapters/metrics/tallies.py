"""Counts and histograms by labels, for one event loop: a fifth of what prometheus-client's own take, which lock.

A completion is counted a dozen times; how that is written down for a scraper is still the library's business.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from manent.adapters.metrics.catalog import METRICS, Kind
from manent.adapters.metrics.catalog import Metric as Described

ROWS_MAX = 4096
"""Series of one metric. Labels have few values; this bound is for a label that turns out to have not."""

Labels = tuple[str, ...]


class Count:
    """A counter."""

    def __init__(self, metric: Described) -> None:
        self._metric = metric
        self._rows: dict[Labels, float] = {} if metric.labels else {(): 0.0}

    def add(self, labels: Labels = (), amount: float = 1.0) -> None:
        """Count ``amount`` more."""
        rows = self._rows
        if labels in rows:
            rows[labels] += amount
        elif len(rows) < ROWS_MAX:
            rows[labels] = amount

    def family(self) -> Metric:
        """What it has counted."""
        family = CounterMetricFamily(self._metric.name, self._metric.says, labels=self._metric.labels)
        for labels, value in self._rows.items():
            family.add_metric(labels, value)
        return family


class Distribution:
    """A histogram: for each series its sum and the number of values in each bucket, the last one unbounded."""

    def __init__(self, metric: Described) -> None:
        self._metric = metric
        self._bounds = list(metric.buckets)
        self._rows: dict[Labels, list[float]] = {} if metric.labels else {(): self._empty()}

    def observe(self, value: float, labels: Labels = ()) -> None:
        """Take a value in."""
        row = self._rows.get(labels)
        if row is None:
            if len(self._rows) >= ROWS_MAX:
                return
            row = self._rows[labels] = self._empty()
        row[0] += value
        row[1 + bisect_left(self._bounds, value)] += 1

    def family(self) -> Metric:
        """What it has seen, each bucket with those below it, as Prometheus wants them."""
        family = HistogramMetricFamily(self._metric.name, self._metric.says, labels=self._metric.labels)
        names = [*map(floatToGoString, self._bounds), "+Inf"]
        for labels, (total, *counts) in self._rows.items():
            below, buckets = 0.0, []
            for name, count in zip(names, counts, strict=True):
                below += count
                buckets.append((name, below))
            family.add_metric(labels, buckets, total)
        return family

    def _empty(self) -> list[float]:
        return [0.0] * (len(self._bounds) + 2)


class Tallies(Collector):
    """One of each metric of the catalog that is counted as things happen, or before it is read, by ``settle``."""

    def __init__(self, settle: Callable[[], None]) -> None:
        self._settle = settle
        counted = [metric for metric in METRICS if not metric.read]
        self.counts = {metric.name: Count(metric) for metric in counted if metric.kind is Kind.COUNTER}
        self.distributions = {metric.name: Distribution(metric) for metric in counted if metric.kind is Kind.HISTOGRAM}

    def collect(self) -> Iterator[Metric]:
        """All of them."""
        self._settle()
        yield from (tally.family() for tally in self.distributions.values())
        yield from (tally.family() for tally in self.counts.values())
