"""The board *provisioning*: sagas, their steps, and the outside systems."""

from typing import Final

from deploy.boards import shared
from deploy.boards.panel import Board, Panel, Query, Row, Unit, bad_from
from deploy.boards.queries import counted, increase, occurring, quantiles, rate, resources, whole

_DUE_FOR: Final = (
    "lifecycle_provisioner_census_timestamp_seconds - (lifecycle_provisioner_oldest_due_timestamp_seconds > 0)"
)
"""Ages at the time of the census: with the present time they would grow from census to census on the best of days."""

BOARD: Final = Board(
    uid="lifecycle-provisioning",
    title="Lifecycle / Provisioning",
    description="Sagas by what they wait for, calls to outside systems, and which system is in trouble.",
    jobs=("provisioner",),
    rows=(
        Row(
            "Is a system outside in trouble?",
            (
                Panel(
                    title="Open circuits",
                    description="Outside systems that are left alone now, by step of the plan. Their sagas wait and go "
                    "on by themselves.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_provisioner_circuits_open", "step"), "{{step}}"),),
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleSystemAway",),
                ),
                Panel(
                    title="Systems that refuse us",
                    description="Outside systems that refuse the operator's own credentials or set-up. Nothing goes on "
                    "before a person mends them.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_provisioner_circuits_refused", "step"), "{{step}}"),),
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleSystemRefusesOperator",),
                ),
                Panel(
                    title="Unwell tenants by step",
                    description="Tenants that have stood at a step for 15 minutes or more.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(whole("lifecycle_provisioner_unwell_tenants", "step")), "{{step}}"),),
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleTenantsUnwell",),
                    empty_when_healthy="no tenant was ever unwell, or the census is old",
                ),
                Panel(
                    title="Calls by answer",
                    description="Calls to outside systems. `retryable` and `unknown` are tried again; `refused` is the "
                    "tenant's own fault and is compensated.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_provisioner_calls_total", "result"), "{{result}}"),),
                    stacked=True,
                ),
                Panel(
                    title="Calls that did not succeed, by step",
                    description="Calls with another answer than `done` or `absent`.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            occurring(
                                rate("lifecycle_provisioner_calls_total", "step, result", 'result!~"done|absent"')
                            ),
                            "{{step}} {{result}}",
                        ),
                    ),
                    empty_when_healthy="every call succeeds",
                ),
                Panel(
                    title="Length of a call, p95 by step",
                    description="A step that grows slow before its circuit opens.",
                    unit=Unit.SECONDS,
                    queries=quantiles("lifecycle_provisioner_call_seconds", "step", at=(0.95,)),
                ),
            ),
        ),
        Row(
            "Which sagas wait?",
            (
                Panel(
                    title="Sagas by what they wait for",
                    description="All sagas of the registry that are not at rest; nothing while the census is older "
                    "than a minute.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(whole("lifecycle_provisioner_sagas", "why", 'why!="rest"')), "{{why}}"),),
                    stacked=True,
                ),
                Panel(
                    title="Oldest saga by what it waits for",
                    description="How long the oldest saga has waited. `due` that grows: too few workers, or none.",
                    unit=Unit.SECONDS,
                    queries=(Query(counted("max by (why) (lifecycle_provisioner_oldest_saga_seconds)"), "{{why}}"),),
                    thresholds=bad_from(300, 900),
                    runbooks=("LifecycleSagasNotDriven",),
                ),
                Panel(
                    title="Oldest saga that no worker takes",
                    description="How long the oldest saga had been due, when last counted, that no worker holds: about "
                    "0 in health. It falls with each saga that is taken up; one that is passed over makes it grow on.",
                    unit=Unit.SECONDS,
                    queries=(Query(counted(f"max({_DUE_FOR})"), "no worker"),),
                    thresholds=bad_from(300, 900),
                    empty_when_healthy="every saga that is due is held by a worker",
                    runbooks=("LifecycleSagasNotDriven",),
                ),
                Panel(
                    title="Sagas driven now",
                    description="Sagas that each worker drives, at most SAGAS_AT_ONCE (64, unless it was set: the "
                    "line).",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_provisioner_running", "{{instance}}"),),
                    thresholds=bad_from(None, 64),
                ),
            ),
        ),
        Row(
            "Are removals held?",
            (
                Panel(
                    title="Removals held",
                    description="Removals that wait before their first delete: at the brake, refused by an operator, "
                    "contradicted by Genesys (`installed`), or not confirmed (`unread`). Nothing of them is removed.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(whole("lifecycle_provisioner_held_removals", "why")), "{{why}}"),),
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleRemovalsBraked", "LifecycleRemovalContradicted"),
                ),
                Panel(
                    title="Removals against the brake",
                    description="Removals of the last hour that count, admitted or held, and how many the brake admits "
                    "by itself. Approved ones do not count.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(counted(whole("lifecycle_provisioner_counted_removals")), "counted"),
                        Query(counted(whole("lifecycle_provisioner_allowed_removals")), "allowed"),
                    ),
                    runbooks=("LifecycleRemovalsBraked",),
                ),
                Panel(
                    title="Answers of Genesys before removals",
                    description="With CONFIRM_REMOVALS: what Genesys answered before a first delete. `installed` "
                    "contradicts the removal, `unread` is no information.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_provisioner_confirmations_total", "result"), "{{result}}"),),
                    empty_when_healthy="CONFIRM_REMOVALS is off, or nothing is removed",
                    runbooks=("LifecycleRemovalContradicted",),
                ),
            ),
        ),
        Row(
            "How do they end?",
            (
                Panel(
                    title="Outcomes",
                    description="Outcomes published, by direction (`up` creates, `down` removes) and state.",
                    unit=Unit.PER_SECOND,
                    queries=(
                        Query(
                            rate("lifecycle_provisioner_outcomes_total", "direction, state"), "{{direction}} {{state}}"
                        ),
                    ),
                ),
                Panel(
                    title="Rolled back or failed",
                    description="Sagas in the last hour that were compensated (`up rolled_back`), or whose resources "
                    "could not be removed (`down failed`).",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            occurring(
                                increase(
                                    "lifecycle_provisioner_outcomes_total",
                                    "direction, state",
                                    'state=~"rolled_back|failed"',
                                    "1h",
                                )
                            ),
                            "{{direction}} {{state}}",
                        ),
                    ),
                    empty_when_healthy="no saga was rolled back or failed",
                    runbooks=(
                        "LifecycleProvisioningRolledBack",
                        "LifecycleDeprovisioningFailed",
                    ),
                ),
                Panel(
                    title="Length of a saga",
                    description="From the begin of a phase to its end.",
                    unit=Unit.SECONDS,
                    queries=quantiles("lifecycle_provisioner_saga_seconds", "direction", at=(0.5, 0.95)),
                ),
                shared.TO_FIRST_CALL,
                shared.TO_CONVERGED,
                Panel(
                    title="Calls not made for a lost key",
                    description="Calls for which no key of the keyring opens a sealed output: a key was removed too "
                    "early.",
                    unit=Unit.COUNT,
                    queries=(Query(increase("lifecycle_provisioner_unsealable_total", window="1h")),),
                    thresholds=bad_from(None, 1),
                ),
            ),
        ),
        Row(
            "Does the registry work?",
            (
                Panel(
                    title="Registry answers",
                    description="1 while PostgreSQL answers the worker. At 0 no saga goes on, and nothing is lost.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_provisioner_registry_up", "{{instance}}"),),
                    runbooks=("LifecycleRegistryAway",),
                ),
                Panel(
                    title="Since the last census",
                    description="Time since the worker that is furthest behind counted the whole registry, every ten "
                    "seconds. While it grows, the counts of sagas, unwell tenants and outcomes are old.",
                    unit=Unit.SECONDS,
                    queries=(Query("time() - min(lifecycle_provisioner_census_timestamp_seconds > 0)"),),
                    thresholds=bad_from(60, 900),
                    runbooks=("LifecycleCensusTooOld",),
                ),
                Panel(
                    title="Outcomes waiting to be published",
                    description="Rows of the outbox: outcomes that Kafka has not acknowledged yet.",
                    unit=Unit.COUNT,
                    queries=(Query(counted(whole("lifecycle_provisioner_outbox_records"))),),
                    runbooks=("LifecycleOutboxStuck",),
                ),
                Panel(
                    title="Age of the oldest outcome",
                    description="How long the oldest row of the outbox has waited.",
                    unit=Unit.SECONDS,
                    queries=(Query(counted("max(lifecycle_provisioner_outbox_oldest_seconds)")),),
                    thresholds=bad_from(60, 300),
                    runbooks=("LifecycleOutboxStuck",),
                ),
                *resources("provisioner"),
            ),
        ),
    ),
)
