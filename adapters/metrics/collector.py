"""What is read off for a scrape: queues, memory, states. One part that fails leaves the others as they are."""

from __future__ import annotations

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from manent.adapters.metrics.catalog import BY_NAME, METRICS, Kind

_log = logging.getLogger("manent.metrics")


class Reading(NamedTuple):
    """A value of a metric of the catalog, for the values of its labels in their order."""

    name: str
    value: float
    labels: Sequence[str] = ()


Read = Callable[[], Iterable[Reading]]
"""Returns at once, and looks at what this process knows."""


class ReadingsCollector(Collector):
    """Reads all parts, each by its name, whenever somebody scrapes."""

    def __init__(self, parts: Mapping[str, Read], failed: Counter[str]) -> None:
        self._parts = parts
        self._failed = failed

    def describe(self) -> Iterator[Metric]:
        """The families without values: nothing is read to register the collector."""
        return (_family(metric.name) for metric in METRICS if metric.read)

    def collect(self) -> Iterator[Metric]:
        """The families that have values now."""
        found: defaultdict[str, dict[tuple[str, ...], float]] = defaultdict(dict)
        for part, read in self._parts.items():
            try:
                for reading in read():
                    found[reading.name][tuple(reading.labels)] = reading.value
            except Exception as error:  # noqa: BLE001 (what cannot be read is left out, and the scrape goes on)
                self._failed[part] += 1
                _log.debug("%s could not be read", part, exc_info=error)
        for name, values in found.items():
            yield _family(name, values)


def _family(name: str, values: Mapping[tuple[str, ...], float] | None = None) -> Metric:
    metric = BY_NAME[name]
    values = values or {}
    if metric.kind is Kind.INFO:
        info = InfoMetricFamily(name.removesuffix("_info"), metric.says)
        for labels in values:
            info.add_metric([], dict(zip(metric.labels, labels, strict=True)))
        return info
    if metric.kind is Kind.COUNTER:
        counter = CounterMetricFamily(name, metric.says, labels=metric.labels)
        for labels, value in values.items():
            counter.add_metric(labels, value)
        return counter
    gauge = GaugeMetricFamily(name, metric.says, labels=metric.labels)
    for labels, value in values.items():
        gauge.add_metric(labels, value)
    return gauge
