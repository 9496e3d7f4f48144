"""The board *reconciliation and drift*: what Genesys says, what differs, and what the brake holds."""

from typing import Final

from deploy.boards.panel import Board, Form, Panel, Query, Row, Unit, bad_from
from deploy.boards.queries import increase, rate, resources, whole

BOARD: Final = Board(
    uid="lifecycle-reconciliation",
    title="Lifecycle / Reconciliation and drift",
    description="When Genesys was last read, what differed from the tenants, and what the brake holds back.",
    jobs=("reconciler",),
    rows=(
        Row(
            "Is Genesys read?",
            (
                Panel(
                    title="Since the last whole run",
                    description="Time since an hourly run last left nothing unread, unwritten or held back. Runs that "
                    "fail meanwhile do not count: *Since the last run* and the organisations beside show them.",
                    unit=Unit.SECONDS,
                    queries=(Query("time() - max(lifecycle_reconciler_last_success_timestamp_seconds > 0)"),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(4_500, 10_800),
                    runbooks=("LifecycleReconcileTooOld",),
                    empty_when_healthy="no run has succeeded since the installation",
                ),
                Panel(
                    title="Since the last run",
                    description="Time since an hourly run last ended, well or not.",
                    unit=Unit.SECONDS,
                    queries=(Query("time() - max(lifecycle_reconciler_last_run_timestamp_seconds > 0)"),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(4_500, 10_800),
                    runbooks=("LifecycleReconcileTooOld",),
                    empty_when_healthy="no run has ended since the installation",
                ),
                Panel(
                    title="Brake",
                    description="1 while the brake holds removals back: too many integrations are absent at once. "
                    "`lifecycle reconcile` shows the plan.",
                    unit=Unit.COUNT,
                    queries=(Query("max(lifecycle_reconciler_brake_engaged)"),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleBrakeEngaged",),
                ),
                Panel(
                    title="Organisations held",
                    description="New organisations whose first comparison would create more than 5 tenants: it waits "
                    "for an approval. `lifecycle reconcile --dry-run` shows the plan.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_held_organisations")),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(None, 1),
                    runbooks=("LifecycleBrakeEngaged",),
                ),
                Panel(
                    title="Keys not read",
                    description="Keys that the last hourly run could not read.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_unread_keys")),),
                    form=Form.NUMBER,
                    width=4,
                    thresholds=bad_from(1, 100),
                ),
                Panel(
                    title="Organisations of the last run",
                    description="Organisations that the last hourly run read, and those that gave no answer.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_organisations", "result"), "{{result}}"),),
                    width=4,
                    runbooks=("LifecycleReconcileTooOld",),
                ),
            ),
        ),
        Row(
            "What differs?",
            (
                Panel(
                    title="Observations published, by cause",
                    description="`drift`: Genesys differs from what we know. `recheck`: the ledger asked. Drift that "
                    "stays: webhooks are lost.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(increase("lifecycle_reconciler_observations_total", "cause", window="1h"), "{{cause}}"),
                    ),
                    empty_when_healthy="Genesys and the tenants agree",
                ),
                Panel(
                    title="Reads of organisations",
                    description="Reads per second by result; all but `read` change nothing and are tried again.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_reconciler_reads_total", "result"), "{{result}}"),),
                ),
                Panel(
                    title="Keys that could not be read",
                    description="Keys that a run could not read, or not whole, in the last hour.",
                    unit=Unit.COUNT,
                    queries=(Query(increase("lifecycle_reconciler_unread_total", window="1h")),),
                ),
            ),
        ),
        Row(
            "Do audits tell of lost webhooks?",
            (
                Panel(
                    title="Oldest sync of an organisation",
                    description="Time since every change was read, by audits or by a listing, of the organisation with "
                    "the longest. Audits are read each minute; without the permission for them the hourly run counts.",
                    unit=Unit.SECONDS,
                    queries=(Query("max(lifecycle_reconciler_oldest_sync_seconds)"),),
                    width=5,
                    thresholds=bad_from(4_500, 10_800),
                    runbooks=("LifecycleSyncTooOld",),
                ),
                Panel(
                    title="Readings of audits",
                    description="Readings of an organisation's audits per second, by result; `not_permitted`: the "
                    "permission audits:audit:view is missing.",
                    unit=Unit.PER_SECOND,
                    queries=(Query(rate("lifecycle_reconciler_audit_reads_total", "result"), "{{result}}"),),
                    width=5,
                ),
                Panel(
                    title="Audits taken on",
                    description="Audits within an hour, by the change that their action names.",
                    unit=Unit.COUNT,
                    queries=(Query(increase("lifecycle_reconciler_audits_total", "kind", window="1h"), "{{kind}}"),),
                    width=5,
                ),
                Panel(
                    title="Keys that wait for a read",
                    description="Keys that an audit named, until a run has read them; each at most once in 5 minutes.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_audited_keys")),),
                    width=5,
                ),
                Panel(
                    title="Organisation files",
                    description="Files of ORGS_DIR by state: the organisation of a broken file is not compared. "
                    "`lifecycle orgs list` says why.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_organisation_files", "state"), "{{state}}"),),
                    width=4,
                ),
            ),
        ),
        Row(
            "Who works, and is the audit trail sealed?",
            (
                Panel(
                    title="Active reconciler",
                    description="1 for the instance that runs; 0 for those that stand by. None with 1 for more than a "
                    "minute: no instance reaches its consumer group, and `/readyz` says why.",
                    unit=Unit.COUNT,
                    queries=(Query("lifecycle_reconciler_active", "{{instance}}"),),
                    runbooks=("LifecycleReconcileTooOld",),
                ),
                Panel(
                    title="Unsealed records are younger than",
                    description="Age that an unsealed record of the audit trail can have at most. The interval is one "
                    "hour.",
                    unit=Unit.SECONDS,
                    queries=(Query("min(lifecycle_reconciler_unsealed_seconds)"),),
                    thresholds=bad_from(7200, 10_800),
                    runbooks=("LifecycleAuditUnsealed",),
                ),
                Panel(
                    title="Seals",
                    description="Seals written within an hour, and looks of the sealer that failed.",
                    unit=Unit.COUNT,
                    queries=(Query(increase("lifecycle_reconciler_seals_total", "result", window="1h"), "{{result}}"),),
                    runbooks=("LifecycleAuditUnsealed",),
                ),
            ),
        ),
        Row(
            "How are the tenants?",
            (
                Panel(
                    title="Tenants by stage and reason",
                    description="All tenants of the public view that are not simply active or gone. For which system a "
                    "tenant of `waiting_for` waits: board Provisioning, *Open circuits*.",
                    unit=Unit.COUNT,
                    queries=(
                        Query(
                            whole("lifecycle_reconciler_tenants", "stage, reason", 'stage!~"active|deprovisioned"'),
                            "{{stage}} {{reason}}",
                        ),
                    ),
                    stacked=True,
                    empty_when_healthy="every tenant is active or gone",
                ),
                Panel(
                    title="Oldest tenant by stage",
                    description="How long the tenant that has waited longest stands in its stage.",
                    unit=Unit.SECONDS,
                    queries=(Query("max by (stage) (lifecycle_reconciler_oldest_tenant_seconds)", "{{stage}}"),),
                    thresholds=bad_from(300, 900),
                    runbooks=("LifecycleTenantsUnwell",),
                    empty_when_healthy="every tenant is active or gone",
                ),
                Panel(
                    title="Tenants in doubt",
                    description="Tenants whose state is provisional until Genesys confirms it, by reason.",
                    unit=Unit.COUNT,
                    queries=(Query(whole("lifecycle_reconciler_flagged_tenants", "flag"), "{{flag}}"),),
                ),
                *resources("reconciler"),
            ),
        ),
    ),
)
