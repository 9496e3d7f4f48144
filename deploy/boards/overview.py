"""The board *overview*: whether anybody is hurt, and what changed. The first page for a person on call."""

from typing import Final

from deploy.boards import shared
from deploy.boards.panel import Board, Form, Panel, Query, Row, Unit, bad_below, bad_from
from deploy.boards.queries import counted, whole

ANSWERED_WELL: Final = (
    "1 - sum(increase(lifecycle:bad_deliveries:total_by_instance[$__range])) "
    "/ (sum(increase(lifecycle:deliveries:total_by_instance[$__range])) > 0)"
)
"""Ratio of deliveries with a good answer in time, as the first objective counts; refusals (4xx) are left out."""

CONVERGED_IN_TIME: Final = (
    "1 - sum(increase(lifecycle:bad_convergences:total_by_instance[15m])) "
    "/ (sum(increase(lifecycle:convergences:total_by_instance[15m])) > 0.5)"
)
"""Ratio of desired versions that ended as desired within 120 s, as the second objective counts.

Of the last quarter of an hour: over the range of the board the good ones of before would hide that none ends now.
"""

NOT_TAKEN: Final = (
    'sum(increase(lifecycle_ingress_answers_total{status=~"401|5.."}[5m])) '
    "/ (sum(increase(lifecycle_ingress_answers_total[5m])) > 0)"
)
"""Ratio of deliveries that were refused for their signature, or could not be written."""

SPOOLED: Final = (
    'sum(increase(lifecycle_ingress_answers_total{reason="spooled"}[5m])) '
    '/ (sum(increase(lifecycle_ingress_answers_total{status="200"}[5m])) > 0)'
)
"""Ratio of good answers for which the delivery went to local disk, since Kafka was away or slow."""

WITHOUT_KAFKA: Final = (
    "count(count by (namespace, job, instance) ("
    'lifecycle_ready_check{check=~"kafka|intake|outbox|view"} == 0 '
    'or min_over_time(lifecycle_ingress_breaker{state="closed"}[5m]) == 0'
    ")) or vector(0)"
)
"""Processes that Kafka did not serve: by their readiness, or by the breaker of an ingress that has room to spool."""

_UNWELL: Final = f"(sum({whole('lifecycle_provisioner_unwell_tenants', 'step')}) or vector(0))"
_HURT: Final = 'stage=~"provisioning_rolled_back|deprovisioning_failed"'

BOARD: Final = Board(
    uid="lifecycle-overview",
    title="Lifecycle / Overview",
    description="Is anything wrong now, is anybody hurt, what changed, and which board to open next.",
    jobs=("ingress", "ledger", "provisioner", "reconciler"),
    rows=(
        Row(
            "Is anything wrong now?",
            (
                Panel(
                    title="Refused or not written now",
                    description="Part of the deliveries of the last 5 minutes that were answered 401 (the signature) "
                    "or 5xx. Next: board Ingress, *Answers other than 200, by reason*.",
                    unit=Unit.RATIO,
                    queries=(Query(NOT_TAKEN),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(0.01, 0.1),
                    runbooks=("LifecycleSignaturesRefused", "LifecycleDeliveryBudgetBurn"),
                    empty_when_healthy="no deliveries",
                    decimals=1,
                ),
                Panel(
                    title="Spooled now",
                    description="Part of the deliveries taken in the last 5 minutes that went to local disk, since "
                    "Kafka was away or slow. Next: board Ingress.",
                    unit=Unit.RATIO,
                    queries=(Query(SPOOLED),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(0.001, 0.1),
                    runbooks=("LifecycleSpoolNotEmpty", "LifecycleKafkaBreakerOpen"),
                    empty_when_healthy="no deliveries",
                    decimals=1,
                ),
                Panel(
                    title="Services without Kafka",
                    description="Processes whose readiness lacks Kafka now, or whose breaker before Kafka opened in "
                    "the last 5 minutes. *Checks of readiness that fail* names the checks.",
                    unit=Unit.COUNT,
                    queries=(Query(WITHOUT_KAFKA),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleNotReady", "LifecycleKafkaBreakerOpen"),
                ),
                Panel(
                    title="Workers without the registry",
                    description="Provisioners that PostgreSQL does not answer: no saga goes on, and nothing is lost. "
                    "Counts of sagas and unwell tenants are unknown meanwhile. Next: board Provisioning.",
                    unit=Unit.COUNT,
                    queries=(
                        Query("count(lifecycle_provisioner_registry_up) - sum(lifecycle_provisioner_registry_up)"),
                    ),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleRegistryAway",),
                ),
                Panel(
                    title="Organisations not read",
                    description="Organisations of Genesys that gave the last hourly run no answer: what they lost is "
                    "not found. Next: board Reconciliation and drift.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_organisations", where='result="unanswered"')),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(1, 10),
                    runbooks=("LifecycleReconcileTooOld",),
                ),
                Panel(
                    title="Ends of the ledger",
                    description="Times that a worker of the ledger ended itself in the last hour. Next: board Ledger "
                    "and Kafka, *Workers that ended themselves*, for the reason.",
                    unit=Unit.COUNT,
                    queries=(Query("sum(increase(lifecycle_ledger_ends_total[1h]))"),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(0.5, 2.5),
                    runbooks=("LifecycleLedgerEnds",),
                    decimals=0,
                ),
            ),
        ),
        Row(
            "Is anybody hurt?",
            (
                Panel(
                    title="Deliveries answered well",
                    description="Part of the deliveries that were answered 2xx within 2.7 s. Genesys sends a delivery "
                    "again after any other answer. Refusals (4xx) are left out. Next: board Ingress.",
                    unit=Unit.RATIO,
                    queries=(Query(ANSWERED_WELL),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_below(0.99, 0.999),
                    runbooks=("LifecycleDeliveryBudgetBurn",),
                    decimals=2,
                ),
                Panel(
                    title="Tenants converged in 120 s",
                    description="Of the sagas that ended in the last 15 minutes, the part that did so as desired "
                    'within 120 s after the delivery. "Nothing ended" while tenants wait (below) is a standstill. '
                    "Next: board Provisioning.",
                    unit=Unit.RATIO,
                    queries=(Query(CONVERGED_IN_TIME),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_below(0.95, 0.99),
                    runbooks=("LifecycleConvergenceBudgetBurn",),
                    empty_when_healthy="nothing ended",
                    decimals=2,
                ),
                Panel(
                    title="Unwell tenants",
                    description="Tenants that have stood at one step for 15 minutes or more. `lifecycle sagas list "
                    "--state failed` names them. No data while the registry is not counted.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(_UNWELL)),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleTenantsUnwell",),
                ),
                Panel(
                    title="Rolled back or not removed",
                    description="Tenants without a working installation (provisioning rolled back), and ended tenants "
                    "whose resources are still there (deprovisioning failed).",
                    unit=Unit.COUNT,
                    queries=(
                        Query(f"sum({whole('lifecycle_reconciler_tenants', 'stage, reason', _HURT)}) or vector(0)"),
                    ),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=(
                        "LifecycleProvisioningRolledBack",
                        "LifecycleDeprovisioningFailed",
                    ),
                ),
                Panel(
                    title="Dead letters",
                    description="Records that could not be processed, in the range of the board. Each waits in "
                    "`lifecycle.dead-letters` with its reason.",
                    unit=Unit.COUNT,
                    queries=(Query("sum(increase(lifecycle:dead_letters:total_by_instance[$__range]))"),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(1, 100),
                    runbooks=("LifecycleDeadLettersGrowing",),
                    decimals=0,
                ),
                Panel(
                    title="Services that do not answer",
                    description="Scrape targets that are down. A service that is down loses nothing: deliveries wait "
                    "in Kafka or at Genesys.",
                    unit=Unit.COUNT,
                    queries=(Query('count(up{job=~"ingress|ledger|provisioner|reconciler"} == 0) or vector(0)'),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleServiceDown",),
                ),
            ),
        ),
        Row(
            "Who waits, and for what?",
            (
                Panel(
                    title="Tenants by stage",
                    description="All tenants of the public view. A growing band of `pending_install` or "
                    "`deprovisioning` means that work arrives faster than it is done.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            f"sum by (stage) ({whole('lifecycle_reconciler_tenants', 'stage, reason')})", "{{stage}}"
                        ),
                    ),
                    stacked=True,
                ),
                Panel(
                    title="Sagas that are not at rest",
                    description="Sagas by what they wait for: `due` and `running` are work in progress; `system_away`, "
                    "`operator_refused` and `contradicted` want a person. Nothing while the last count is older than a "
                    "minute. Next: board Provisioning.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(whole("lifecycle_provisioner_sagas", "why", 'why!="rest"')), "{{why}}"),),
                    stacked=True,
                    runbooks=("LifecycleSagasNotDriven",),
                ),
                Panel(
                    title="Checks of readiness that fail",
                    description="Each check of `/readyz` that fails now, by service. Healthy is an empty panel.",
                    unit=Unit.COUNT,
                    queries=(Query("sum by (job, check) (lifecycle_ready_check == bool 0) > 0", "{{job}} {{check}}"),),
                    empty_when_healthy="every check passes",
                ),
            ),
        ),
        Row(
            "What changed?",
            (
                shared.EVENTS,
                shared.STAGE_CHANGES,
                Panel(
                    title="Versions that run",
                    description="Processes by service and version; two versions of a service stand side by side while "
                    "a deploy is under way.",
                    unit=Unit.COUNT,
                    queries=(Query("count by (service, version) (lifecycle_build_info)", "{{service}} {{version}}"),),
                ),
            ),
        ),
        Row(
            "How long does it take?",
            (
                shared.TO_EVENT,
                shared.TO_FIRST_CALL,
                shared.TO_CONVERGED,
            ),
        ),
    ),
)
