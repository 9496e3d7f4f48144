"""What a scrape asks of a ledger at work: lag, recovery, rebalances, and how workers before it have ended."""

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import Exit


class Watch(Collector):
    """Reads the app at each scrape, so that nothing is counted at each event."""

    def __init__(self, app: DurableApp, now_us: Callable[[], int], ends: Mapping[Exit, int]) -> None:
        """Watch.

        Args:
            app: Of this process.
            now_us: Microseconds UTC.
            ends: How often workers of this folder have ended themselves before.
        """
        self._app = app
        self._now_us = now_us
        self._ends = ends

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: what there is to say is known once the app has begun."""
        return []

    def collect(self) -> Iterator[GaugeMetricFamily | CounterMetricFamily]:
        """For the registry."""
        records = GaugeMetricFamily(
            "lifecycle_ledger_lag_records", "Input records not processed yet.", labels=("topic", "partition")
        )
        seconds = GaugeMetricFamily(
            "lifecycle_ledger_lag_seconds", "How long the first of them waits.", labels=("topic", "partition")
        )
        for tp, (waiting, waited_s) in self._app.lag(self._now_us()).items():
            records.add_metric((tp.topic, str(tp.partition)), waiting)
            seconds.add_metric((tp.topic, str(tp.partition)), waited_s)
        yield from (records, seconds)
        yield GaugeMetricFamily(
            "lifecycle_ledger_recovering", "Changelog records to be read before events go on.", self._app.recovering
        )
        yield CounterMetricFamily(
            "lifecycle_ledger_rebalances", "Times that partitions were shared out anew.", self._app.rebalancing_count
        )
        ends = CounterMetricFamily("lifecycle_ledger_ends", "Ends of workers on this disk.", labels=("reason",))
        for reason in Exit:
            ends.add_metric((reason.name.lower(),), self._ends.get(reason, 0))
        yield ends
