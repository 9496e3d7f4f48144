"""What a scrape asks of a ledger at work: lag, recovery, rebalances, and how workers before it have ended.

Rule: asked at the scrape, so that nothing is counted at each event.
"""

from collections.abc import Callable, Mapping

from services.adapters.process import metrics
from services.adapters.tables.app import DurableApp
from services.adapters.tables.exits import WorkerExit

Values = Mapping[tuple[str, ...], float]


def watch(app: DurableApp, now_us: Callable[[], int], ends: Mapping[WorkerExit, int]) -> None:
    """Let metrics ask.

    Args:
        app: Of this process.
        now_us: Microseconds UTC.
        ends: How often workers of this folder have ended themselves before.
    """

    def lag(which: int) -> Values:
        return {(tp.topic, str(tp.partition)): both[which] for tp, both in app.lag(now_us()).items()}

    metrics.LEDGER_LAG_RECORDS.set_function(lambda: lag(0))
    metrics.LEDGER_LAG_S.set_function(lambda: lag(1))
    metrics.LEDGER_RECOVERING.set_function(lambda: {(): app.recovering})
    metrics.LEDGER_REBALANCES.set_function(lambda: {(): app.rebalancing_count})
    metrics.LEDGER_ENDS.set_function(lambda: {(reason.name.lower(),): ends.get(reason, 0) for reason in WorkerExit})
