"""The board *ledger and Kafka*: what the ledger decides, and how far behind it is."""

from typing import Final

from deploy.boards import shared
from deploy.boards.panel import Board, Panel, Query, Row, Unit, bad_from
from deploy.boards.queries import increase, occurring, quantiles, rate, resources

_RECORDS: Final = "lifecycle_ledger_records_total"
_DELIVERIES: Final = 'kind="delivery"'
_DUPLICATES: Final = 'kind="delivery",verdict=~"duplicate|absorbed|ambiguous"'

BOARD: Final = Board(
    uid="lifecycle-ledger",
    title="Lifecycle / Ledger and Kafka",
    description="What the ledger decides about records, how far it is behind, and what it could not read.",
    jobs=("ledger",),
    rows=(
        Row(
            "Does it keep up?",
            (
                Panel(
                    title="Lag in seconds",
                    description="How long the first unprocessed record of each topic has waited. A gap: the ledger is "
                    "down, or Kafka has not answered it for ten seconds.",
                    unit=Unit.SECONDS,
                    queries=(Query("max by (topic) (lifecycle_ledger_lag_seconds)", "{{topic}}"),),
                    thresholds=bad_from(30, 120),
                    runbooks=("LifecycleLedgerLags",),
                ),
                Panel(
                    title="Lag in records",
                    description="Records of each topic that are not processed yet; gaps as in the panel beside.",
                    unit=Unit.COUNT,
                    queries=(Query("sum by (topic) (lifecycle_ledger_lag_records)", "{{topic}}"),),
                    runbooks=("LifecycleLedgerLags",),
                ),
                shared.TO_EVENT,
            ),
        ),
        Row(
            "What does it decide?",
            (
                Panel(
                    title="Records by kind",
                    description="Records that the ledger decided about, per second.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_ledger_records_total", "kind"), "{{kind}}"),),
                    stacked=True,
                ),
                Panel(
                    title="Verdicts on deliveries",
                    description="Duplicates are normal (Genesys sends at least once); `ambiguous` and `conflict` ask "
                    "Genesys which of two states is true.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(rate("lifecycle_ledger_records_total", "verdict", 'kind="delivery"'), "{{verdict}}"),
                    ),
                    stacked=True,
                ),
                Panel(
                    title="Ratio of duplicates",
                    description="Part of the deliveries that repeat a known event (`duplicate`, or `absorbed` and "
                    "`ambiguous` with a new time). The alert compares it with its own level of the last days.",
                    unit=Unit.RATIO,
                    queries=(
                        Query(f"{rate(_RECORDS, where=_DUPLICATES)} / ({rate(_RECORDS, where=_DELIVERIES)} > 0)"),
                    ),
                    runbooks=("LifecycleDuplicatesAboveBaseline",),
                ),
                shared.EVENTS,
                shared.STAGE_CHANGES,
                Panel(
                    title="Dead letters by reason",
                    description="Records that could not be processed, per minute. No record is lost: each waits in "
                    "`lifecycle.dead-letters`.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            occurring(increase("lifecycle_ledger_dead_letters_total", "reason", window="1m")),
                            "{{reason}}",
                        ),
                        Query(
                            occurring(increase("lifecycle_provisioner_dead_letters_total", "reason", window="1m")),
                            "provisioner {{reason}}",
                        ),
                    ),
                    empty_when_healthy="every record can be processed",
                    runbooks=("LifecycleDeadLettersGrowing",),
                ),
            ),
        ),
        Row(
            "How are the workers and their tables?",
            (
                Panel(
                    title="Records to recover",
                    description="Changelog records that are read before events go on, after a start or a takeover.",
                    unit=Unit.COUNT,
                    queries=(Query("sum by (instance) (lifecycle_ledger_recovering_records)", "{{instance}}"),),
                ),
                Panel(
                    title="Partitions shared out anew",
                    description="Rebalances. Several in a row: workers come and go.",
                    unit=Unit.COUNT,
                    queries=(Query(increase("lifecycle_ledger_rebalances_total", window="5m")),),
                ),
                Panel(
                    title="Workers that ended themselves",
                    description="Ends by exit status in the last hour; docs/exit-statuses.md explains each. A "
                    "supervisor starts the worker again.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(occurring(increase("lifecycle_ledger_ends_total", "reason", window="1h")), "{{reason}}"),
                    ),
                    empty_when_healthy="no worker ended itself",
                    runbooks=("LifecycleLedgerEnds",),
                ),
                Panel(
                    title="Records not acknowledged",
                    description="Records that were sent and not acknowledged yet. An offset is committed after all of "
                    "them are.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_ledger_unacknowledged", "{{instance}}"),),
                ),
                Panel(
                    title="Events in a journal",
                    description="Events in the journal of a row when it is written: 512 at most.",
                    unit=Unit.COUNT,
                    queries=quantiles("lifecycle_ledger_journal_entries"),
                ),
                *resources("ledger"),
            ),
        ),
    ),
)
