"""Metrics without locks, for events of every request, and gauges read through a callback.

Problem: prometheus_client's metrics take a lock and five calls for each count, at the ingress's rate about a tenth of
the time for verifying a request.

Rule: only the event loop's thread writes these metrics. A scrape may read from any thread; the values read may be a
request old.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector


class FastCounter(Collector):
    """A counter with labels, without a lock."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        """Declare the counter, without any count.

        Args:
            name: The metric's name, with `_total`.
            meaning: The help text.
            labels: Names of the labels.
        """
        self._declared = (name.removesuffix("_total"), meaning, labels)
        self._counts: dict[tuple[str, ...], int] = {}

    def inc(self, *values: str) -> None:
        """Increment the count by 1.

        Args:
            values: Values of the labels, in order.
        """
        self._counts[values] = self._counts.get(values, 0) + 1

    def show(self, *values: str) -> None:
        """Show the count from now on, at 0 if it has none.

        Args:
            values: Values of the labels, in order.
        """
        self._counts.setdefault(values, 0)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the counts; called by the Prometheus registry at a scrape."""
        name, meaning, labels = self._declared
        family = CounterMetricFamily(name, meaning, labels=labels)
        # A copy: the event loop may add labels while a scrape in another thread iterates.
        for values, count in list(self._counts.items()):
            family.add_metric(values, count)
        yield family


class CallbackGauge(Collector):
    """A gauge or counter with labels, read through a callback at each scrape; empty until the callback is set."""

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        """Declare the metric, without a callback.

        Args:
            name: The metric's name; the suffix `_total` makes a counter.
            meaning: The help text.
            labels: Names of the labels.
        """
        self._declared = (name, meaning, labels)
        self._function: Callable[[], Mapping[tuple[str, ...], float]] = dict

    def set_function(self, function: Callable[[], Mapping[tuple[str, ...], float]]) -> None:
        """Set the callback, which returns the metric's values by the labels' values in order."""
        self._function = function

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """Yield the callback's values; called by the Prometheus registry at a scrape."""
        name, meaning, labels = self._declared
        family_class = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        family = family_class(name.removesuffix("_total"), meaning, labels=labels)
        for values, value in self._function().items():
            family.add_metric(values, value)
        yield family


class FastHistogram(Collector):
    """A histogram of durations without labels and without a lock."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        """Declare the histogram, without any observation.

        Args:
            name: The metric's name, with `_seconds`.
            meaning: The help text.
            bounds: Upper bounds of the buckets in seconds, rising; the bucket +Inf is added.
        """
        self._declared = (name, meaning)
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        """Add an observation, in seconds."""
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Yield the buckets; called by the Prometheus registry at a scrape."""
        name, meaning = self._declared
        family = HistogramMetricFamily(name, meaning)
        # Prometheus buckets are cumulative; each stored count is of its own bucket only.
        buckets, total = [], 0
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        family.add_metric([], buckets, self._sum)
        yield family
