"""Registers the ledger's gauges: lag, recovery, rebalances, and the ends of former workers.

Rule: values are read at the scrape, so no event pays for a gauge.
"""

from collections.abc import Callable, Mapping

from services.adapters.process import metrics
from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import WorkerExit

Values = Mapping[tuple[str, ...], float]


def register(app: DurableApp, now_us: Callable[[], int], ends: Mapping[WorkerExit, int]) -> None:
    """Registers a callback for each gauge; metrics call them at each scrape.

    Args:
        app: The app of this process.
        now_us: The clock, microseconds UTC.
        ends: How often former workers of this folder have ended themselves, by reason.
    """

    def lag(which: int) -> Values:
        return {(tp.topic, str(tp.partition)): both[which] for tp, both in app.lag(now_us()).items()}

    metrics.LEDGER_LAG_RECORDS.set_function(lambda: lag(0))
    metrics.LEDGER_LAG_S.set_function(lambda: lag(1))
    metrics.LEDGER_RECOVERING.set_function(lambda: {(): app.recovering})
    metrics.LEDGER_REBALANCES.set_function(lambda: {(): app.rebalancing_count})
    metrics.LEDGER_ENDS.set_function(lambda: {(reason.name.lower(),): ends.get(reason, 0) for reason in WorkerExit})
