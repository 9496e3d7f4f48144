"""The form of a declared metric, and tables of metrics by the services that show them.

Rule: a service shows the metrics of its own tables alone. A gauge of a different service would stand at 0 there and
say something false: a registry that is away, a run that never was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from math import prod
from typing import Final, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.registry import Collector

from services.adapters.process.fast_metrics import CallbackGauge, FastCounter, FastHistogram

# A `_created` sample beside each counter would double the samples, and nobody asks when a label was first used.
disable_created_metrics()  # type: ignore[no-untyped-call]

LabelValues = tuple[str, ...] | str
"""All values of a label in a tuple, or the set from which the values come, in words."""

ZEROS_MOST: Final = 50
"""Most series of a counter that are shown at 0 before their first event."""

C = TypeVar("C", bound=Collector)


def zeros(labels: Mapping[str, LabelValues]) -> list[tuple[str, ...]]:
    """Returns the label values of a counter that are shown at 0 from the start.

    A series that appears with its first value has no rate, so its first event stands on no board and in no alert.
    Empty for a label without declared values, and for more than `ZEROS_MOST` combinations: of so many, most never are.
    """
    sets = [values for values in labels.values() if not isinstance(values, str)]
    if len(sets) < len(labels) or prod(map(len, sets)) > ZEROS_MOST:
        return []
    return list(product(*sets))


class MetricKind(StrEnum):
    """Kind of a metric, in the words of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class DeclaredMetric:
    """A row of the table of metrics.

    Attributes:
        name: Full name.
        kind: Kind.
        meaning: The help text.
        labels: Values by label, in the order of the labels.
        buckets: Upper bounds of a histogram; empty for other kinds.
    """

    name: str
    kind: MetricKind
    meaning: str
    labels: dict[str, LabelValues]
    buckets: tuple[float, ...] = ()


class MetricTable:
    """The metrics of some services.

    Attributes:
        services: Services whose `/metrics` shows the table.
        prefix: Start of every name in the table.
        registry: Registry of the declared metrics.
        declared: Rows, in the order of their declaration.
    """

    def __init__(self, prefix: str, *services: str) -> None:
        """Begins an empty table.

        Args:
            prefix: Start of every name in the table.
            services: Services whose `/metrics` shows the table.
        """
        self.prefix: Final = prefix
        self.services: Final = services
        # A registry of our own, without the collectors that prometheus_client adds to its default registry.
        self.registry: Final = CollectorRegistry(auto_describe=True)
        self.declared: Final[list[DeclaredMetric]] = []

    def counter(self, name: str, meaning: str, **labels: LabelValues) -> Counter:
        """Declares a counter."""
        row = DeclaredMetric(name, MetricKind.COUNTER, meaning, labels)
        made = Counter(name, meaning, [*labels], registry=None)
        for values in zeros(labels) if labels else ():
            made.labels(*values)
        return self._add(row, made)

    def gauge(self, name: str, meaning: str, **labels: LabelValues) -> Gauge:
        """Declares a gauge."""
        row = DeclaredMetric(name, MetricKind.GAUGE, meaning, labels)
        return self._add(row, Gauge(name, meaning, [*labels], registry=None))

    def histogram(self, name: str, meaning: str, buckets: tuple[float, ...], **labels: LabelValues) -> Histogram:
        """Declares a histogram with these upper bounds of buckets."""
        row = DeclaredMetric(name, MetricKind.HISTOGRAM, meaning, labels, buckets)
        return self._add(row, Histogram(name, meaning, [*labels], registry=None, buckets=buckets))

    def fast_counter(self, name: str, meaning: str, **labels: LabelValues) -> FastCounter:
        """Declares a counter for events of every request."""
        row = DeclaredMetric(name, MetricKind.COUNTER, meaning, labels)
        made = FastCounter(name, meaning, *labels)
        for values in zeros(labels):
            made.show(*values)
        return self._add(row, made)

    def fast_histogram(self, name: str, meaning: str, buckets: tuple[float, ...]) -> FastHistogram:
        """Declares a histogram for events of every request."""
        row = DeclaredMetric(name, MetricKind.HISTOGRAM, meaning, {}, buckets)
        return self._add(row, FastHistogram(name, meaning, buckets))

    def callback_gauge(self, name: str, meaning: str, **labels: LabelValues) -> CallbackGauge:
        """Declares a gauge, or by the suffix `_total` a counter, read through a callback at each scrape."""
        kind = MetricKind.COUNTER if name.endswith("_total") else MetricKind.GAUGE
        return self._add(DeclaredMetric(name, kind, meaning, labels), CallbackGauge(name, meaning, *labels))

    def _add(self, row: DeclaredMetric, metric: C) -> C:
        self.registry.register(metric)
        self.declared.append(row)
        return metric
