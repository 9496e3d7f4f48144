"""Counts that one thread makes and any thread reads, for what happens at each request.

prometheus_client's own metrics take a lock and five calls for each count: at a request's rate a tenth of its proof.
Rule: written from one thread alone, the event loop's; what another thread reads may be one request old.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class FastCounter(Collector):
    """A counter with labels."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        """Count nothing yet.

        Args:
            name: With `_total`.
            meaning: For a person.
            labels: Names.
        """
        self._of = (name.removesuffix("_total"), meaning, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def inc(self, *values: str) -> None:
        """It happened once more.

        Args:
            values: Of the labels, in order.
        """
        self._counts[values] = self._counts.get(values, 0) + 1

    def collect(self) -> Iterator[CounterMetricFamily]:
        """For the registry."""
        name, meaning, labels = self._of
        family = CounterMetricFamily(name, meaning, labels=labels)
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        yield family


class CallbackGauge(Collector):
    """A gauge or counter with labels that is asked for at each scrape; without values until somebody answers."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        """Be answered by nobody yet.

        Args:
            name: A counter's with `_total`.
            meaning: For a person.
            labels: Names.
        """
        self._of = (name, meaning, labels)
        self._answer: Callable[[], Mapping[tuple[str, ...], float]] = dict

    def set_function(self, answer: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Who answers: a value by the values of the labels, in order."""
        self._answer = answer

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """For the registry."""
        name, meaning, labels = self._of
        made = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = made(name.removesuffix("_total"), meaning, labels=labels)
        for values, value in self._answer().items():
            family.add_metric(values, value)
        yield family


class FastHistogram(Collector):
    """A histogram of seconds."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        """Have seen nothing yet.

        Args:
            name: With `_seconds`.
            meaning: For a person.
            bounds: Upper bounds of the buckets, rising; the last one, +Inf, comes by itself.
        """
        self._of = (name, meaning)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """It took so long."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """For the registry."""
        name, meaning = self._of
        family = HistogramMetricFamily(name, meaning)
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([], buckets, self._sum)
        yield family
