"""Panels that stand on two boards: on the overview, and on the board that goes into detail."""

from typing import Final

from deploy.boards.panel import Panel, Query, Unit, bad_from
from deploy.boards.queries import quantiles, rate

EVENTS: Final = Panel(
    title="Events published",
    description="Events that the ledger published for the first time, per second.",
    unit=Unit.PER_SECOND,
    queries=(Query(rate("lifecycle_ledger_events_total", "event"), "{{event}}"),),
)
STAGE_CHANGES: Final = Panel(
    title="Changes of stage",
    description="Tenants that entered a stage, per second.",
    unit=Unit.PER_SECOND,
    queries=(Query(rate("lifecycle_ledger_stage_changes_total", "stage"), "{{stage}}"),),
)
TO_EVENT: Final = Panel(
    title="Delivery to event",
    description="From the delivery's record in Kafka to the acknowledged event.",
    unit=Unit.SECONDS,
    queries=quantiles("lifecycle_ledger_published_seconds"),
)
TO_FIRST_CALL: Final = Panel(
    title="Delivery to first outside call",
    description="From the delivery's record in Kafka to the first call to an outside system.",
    unit=Unit.SECONDS,
    queries=quantiles("lifecycle_provisioner_first_call_seconds"),
)
TO_CONVERGED: Final = Panel(
    title="Delivery to converged",
    description="From the delivery's record in Kafka (for a removal: from the end of the grace period) to the outcome "
    "`done`. The goal is 120 s.",
    unit=Unit.SECONDS,
    queries=quantiles("lifecycle_provisioner_converged_seconds", "direction", at=(0.5, 0.95)),
    thresholds=bad_from(None, 120),
)
