"""The metrics of all services, declared once with kind, help text, labels and the values of each label.

Rule: a metric is declared here only (`tests.metric_rules` judges names, units, help texts and labels). No label is
unbounded: never a key, organisation, tenant or host. docs/metrics.md is made from these tables by `make metrics-page`.
"""

from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.adapters.process.metric_table import MetricTable

CONTENT_TYPE = CONTENT_TYPE_LATEST

_ANSWER_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.2, 1.6, 2.7)
_ENTRIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_WORK_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)
_PUBLISHED_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
# 120 s is the objective; 900 s is when a tenant becomes unwell.
_CONVERGED_S = (0.5, 1, 2.5, 5, 10, 20, 30, 60, 90, 120, 300, 900, 3600, 21_600, 86_400)

# Sets of label values. `tests.metric_rules` compares each tuple with the enumeration or table that it repeats.
_STATUSES = ("200", "400", "401", "403", "405", "408", "413", "414", "415", "417", "431", "503")
_ANSWER_REASONS = (
    "queued", "duplicate_handled", "parked", "spooled", "proved",
    "not_post", "not_json", "target_too_long", "head_too_large", "body_too_large", "framing", "host", "target",
    "expectation", "late",
    "signature_shape", "timestamp_shape", "endpoint", "forged", "future", "stale", "unmarked", "unbound", "malformed",
    "kafka", "saturated", "crowded", "broken",
)  # fmt: skip
_HINT_STATUSES = ("200", "400", "401", "403", "405", "408", "413", "415", "429", "503")
_HINT_REASONS = (
    "queued", "duplicate_handled", "spooled", "ignored_topic", "ignored_entity", "ignored_action", "ignored_change",
    "not_post", "not_json", "body_too_large", "framing", "late",
    "secret_shape", "endpoint", "forged", "unbound", "malformed", "flooded", "kafka", "saturated", "broken",
)  # fmt: skip
_MESSAGE_RESULTS = (
    "written", "duplicate", "ignored_topic", "ignored_entity", "ignored_action", "unbound", "malformed",
)  # fmt: skip
_TIME_RULES = ("future", "stale", "fresh", "retry", "redelivery", "unmarked")
_BREAKER_STATES = ("closed", "open", "half_open")
_LETTER_REASONS = (
    "malformed", "unknown_event", "conflict", "future", "too_large", "unreadable", "misplaced", "spooled_too_long",
)  # fmt: skip
_VERDICTS = (
    "new", "absorbed", "ambiguous", "duplicate", "conflict", "late", "invalid", "asked", "future", "too_large",
    "forgotten",
)  # fmt: skip
_EVENTS = ("installed", "uninstalled", "enabled", "disabled", "configuration_updated")
_STAGES = (
    "pending_install", "active", "deprovisioning", "deprovisioned", "deprovisioning_failed", "provisioning_rolled_back",
)  # fmt: skip
_ENDS = (
    "undelivered", "unexpected", "loss", "store", "foreign_writer", "fence", "coordinator", "stall",
    "incomplete_assignment", "metadata", "changelog_behind", "crashed", "stuck", "poison", "denied",
)  # fmt: skip
_DIRECTIONS = ("up", "down")
_OUTCOMES = ("working", "done", "rolled_back", "failed", "held")
_VERBS = ("create", "update", "delete", "read")
_CALL_RESULTS = ("done", "absent", "retryable", "unknown", "refused", "operator_refused", "contradicted")
_WHYS = (
    "due", "running", "retrying", "system_away", "operator_refused", "contradicted", "grace", "removal_braked",
    "removal_refused", "genesys_says_installed", "genesys_unread", "tenant_conflict", "tenant_unknown", "rolled_back",
    "stopped", "rest",
)  # fmt: skip
_TENANT_REASONS = (
    "", "retrying", "system_away", "system_refuses", "waiting_for", "compensating", "restoring", "former_life", "grace",
    "removal_braked", "removal_refused", "genesys_says_installed", "genesys_unread", "tenant_conflict",
    "tenant_unknown", "install_unknown", "tenant_changed", "update_refused", "refused", "exhausted", "contradicted",
    "other",
)  # fmt: skip
_UNANSWERED = ("no_credentials", "refused", "rate_limited", "no_answer", "incomplete")
_FLAGS = ("tie", "ambiguous", "conflict", "storm")
_STEP = "steps of the plans in use"
_ENDPOINT = "endpoints of the keyring"

SHARED = MetricTable("lifecycle_", "ingress", "hints", "ledger", "provisioner", "reconciler", "simulator")
ProcessCollector(registry=SHARED.registry)
BUILD_INFO = SHARED.gauge(
    "lifecycle_build_info",
    "1, with the release of the package and of Python.",
    service=SHARED.services,
    version="the release of this package",
    python="the release of Python",
)
READY_CHECK = SHARED.callback_gauge(
    "lifecycle_ready_check", "1 while this check of /readyz passes.", check="checks of the service's /readyz"
)

KEYRING = MetricTable("lifecycle_keyring_", "ingress")
KEYRING_BROKEN = KEYRING.gauge(
    "lifecycle_keyring_broken", "1 while the keyring file cannot be used; the last good one counts."
)
KEYRING_RELOADS = KEYRING.counter(
    "lifecycle_keyring_reloads_total", "Changes of the keyring file by result.", result=("taken", "broken")
)
KEYRING_EXPIRY = KEYRING.callback_gauge(
    "lifecycle_keyring_secret_expiry_timestamp_seconds",
    "When the previous secret of an endpoint ends; absent for an endpoint with the current secret alone.",
    endpoint=_ENDPOINT,
)

INGRESS = MetricTable("lifecycle_ingress_", "ingress")
INGRESS_ANSWERS = INGRESS.fast_counter(
    "lifecycle_ingress_answers_total", "Answers by status and reason.", status=_STATUSES, reason=_ANSWER_REASONS
)
INGRESS_ANSWER_S = INGRESS.fast_histogram(
    "lifecycle_ingress_answer_seconds", "First byte read to answer given.", _ANSWER_S
)
INGRESS_PREVIOUS_SECRET = INGRESS.fast_counter(
    "lifecycle_ingress_previous_secret_total",
    "Deliveries and hints proved by a previous secret: while it grows, a sender does not use the current one.",
    endpoint=_ENDPOINT,
)
INGRESS_IN_FLIGHT = INGRESS.gauge("lifecycle_ingress_in_flight", "Deliveries waiting for Kafka.")
INGRESS_RECHECKS = INGRESS.counter(
    "lifecycle_ingress_rechecks_total",
    "Re-checks that were due, by the row of the time rule and by outcome.",
    reason=_TIME_RULES,
    outcome=("asked", "asked_before", "no_room", "unwritten"),
)
INGRESS_HINTS = INGRESS.counter(
    "lifecycle_ingress_hints_total",
    "Answers to hints of EventBridge, by status and reason; hints are no deliveries and count in no further metric.",
    status=_HINT_STATUSES,
    reason=_HINT_REASONS,
)
INGRESS_BREAKER = INGRESS.gauge(
    "lifecycle_ingress_breaker", "1 for the state of the breaker before Kafka.", state=_BREAKER_STATES
)
INGRESS_SPOOL_RECORDS = INGRESS.gauge(
    "lifecycle_ingress_spool_records", "Records on local disk that Kafka has not yet."
)
INGRESS_SPOOL_BYTES = INGRESS.gauge("lifecycle_ingress_spool_bytes", "Size of the records on local disk.")
INGRESS_SPOOL_AGE_S = INGRESS.gauge(
    "lifecycle_ingress_spool_oldest_seconds", "How long the oldest record on local disk has waited."
)
INGRESS_SPOOL_OPEN = INGRESS.gauge("lifecycle_ingress_spool_open", "1 while the spool takes records.")
INGRESS_SPOOL_CLOSED = INGRESS.counter(
    "lifecycle_ingress_spool_closed_total",
    "Spools closed, by reason.",
    reason=("age", "size", "high_water", "gone", "open", "full", "write", "fsync", "corrupt"),
)
INGRESS_SPOOL_DRAINED = INGRESS.counter(
    "lifecycle_ingress_spool_drained_total", "Spooled records by result.", result=("written", "expired", "failed")
)
INGRESS_DEAD_LETTERS = INGRESS.counter(
    "lifecycle_ingress_dead_letters_total", "Durable dead letters by reason, of deliveries.", reason=_LETTER_REASONS
)
INGRESS_ODD_MARKS = INGRESS.counter(
    "lifecycle_ingress_odd_marks_total", "Retry marks that no count could be read from."
)

HINTS = MetricTable("lifecycle_hints_", "hints")
HINTS_MESSAGES = HINTS.counter(
    "lifecycle_hints_messages_total",
    "Messages of the queue by result; unbound and malformed ones stay, and count at each receipt.",
    result=_MESSAGE_RESULTS,
)
HINTS_WRITTEN_S = HINTS.histogram(
    "lifecycle_hints_written_seconds", "Sent to the queue until Kafka acknowledged the request for a read.", _WORK_S
)
HINTS_IN_HAND = HINTS.gauge("lifecycle_hints_in_hand_messages", "Messages received and neither deleted nor left.")
HINTS_QUEUE = HINTS.callback_gauge(
    "lifecycle_hints_queue_messages",
    "Messages of the queue, about: waiting, received by somebody, and delayed; absent while Amazon does not say.",
    state=("waiting", "received", "delayed"),
)
HINTS_FAULTS = HINTS.counter(
    "lifecycle_hints_queue_faults_total",
    "Calls to the queue that failed, by their aim.",
    kind=("receive", "delete", "keep", "measure"),
)

LEDGER = MetricTable("lifecycle_ledger_", "ledger")
LEDGER_RECORDS = LEDGER.counter(
    "lifecycle_ledger_records_total",
    "Input records by kind and verdict; the verdict of an unread record is the reason of its dead letter.",
    kind=("delivery", "audited", "observation", "recheck", "outcome", "unread"),
    verdict=tuple(dict.fromkeys((*_VERDICTS, *_LETTER_REASONS))),
)
LEDGER_EVENTS = LEDGER.counter("lifecycle_ledger_events_total", "Events published for the first time.", event=_EVENTS)
LEDGER_PUBLISHED_S = LEDGER.histogram(
    "lifecycle_ledger_published_seconds",
    "Log time of a delivery's record in lifecycle.received until Kafka acknowledged its event.",
    _PUBLISHED_S,
)
LEDGER_STAGES = LEDGER.counter(
    "lifecycle_ledger_stage_changes_total", "Stage changes by new stage.", stage=(*_STAGES, "none")
)
LEDGER_UNACKNOWLEDGED = LEDGER.gauge("lifecycle_ledger_unacknowledged", "Records sent and not yet acknowledged.")
LEDGER_JOURNAL = LEDGER.histogram(
    "lifecycle_ledger_journal_entries", "Events in the journal of a row when it is written.", _ENTRIES
)
_INPUTS = "the two input topics of the ledger"
_PARTITIONS = "partitions of the topic"
LEDGER_LAG_RECORDS = LEDGER.callback_gauge(
    "lifecycle_ledger_lag_records",
    "Input records not processed yet; no 0 while Kafka has not answered for 10 s.",
    topic=_INPUTS,
    partition=_PARTITIONS,
)
LEDGER_LAG_S = LEDGER.callback_gauge(
    "lifecycle_ledger_lag_seconds",
    "How long the first unprocessed input record has waited; no 0 while Kafka has not answered for 10 s.",
    topic=_INPUTS,
    partition=_PARTITIONS,
)
LEDGER_RECOVERING = LEDGER.callback_gauge(
    "lifecycle_ledger_recovering_records", "Changelog records to be read before events go on."
)
LEDGER_REBALANCES = LEDGER.callback_gauge(
    "lifecycle_ledger_rebalances_total", "Times that partitions were shared out anew."
)
LEDGER_ENDS = LEDGER.callback_gauge("lifecycle_ledger_ends_total", "Ends of workers on this disk.", reason=_ENDS)
LEDGER_DEAD_LETTERS = LEDGER.counter(
    "lifecycle_ledger_dead_letters_total", "Dead letters by reason, of input records.", reason=_LETTER_REASONS
)

PROVISIONER = MetricTable("lifecycle_provisioner_", "provisioner")
PROVISIONER_OUTCOMES = PROVISIONER.counter(
    "lifecycle_provisioner_outcomes_total", "Outcomes published.", direction=_DIRECTIONS, state=_OUTCOMES
)
PROVISIONER_CALLS = PROVISIONER.counter(
    "lifecycle_provisioner_calls_total",
    "Calls to outside systems by answer.",
    step=_STEP,
    verb=_VERBS,
    result=_CALL_RESULTS,
)
PROVISIONER_CALL_S = PROVISIONER.histogram(
    "lifecycle_provisioner_call_seconds", "Length of a call.", _WORK_S, step=_STEP, verb=_VERBS
)
PROVISIONER_FIRST_CALL_S = PROVISIONER.histogram(
    "lifecycle_provisioner_first_call_seconds",
    "Log time of a delivery's record in lifecycle.received until the first outside call for its desired version.",
    _PUBLISHED_S,
)
PROVISIONER_CONVERGED_S = PROVISIONER.histogram(
    "lifecycle_provisioner_converged_seconds",
    "Log time of a delivery's record in lifecycle.received (of a removal with a grace period: the period's end; of a "
    "held one: its first delete) until its desired version was carried out; refused updates are left out.",
    _CONVERGED_S,
    direction=_DIRECTIONS,
)
PROVISIONER_SAGA_S = PROVISIONER.histogram(
    "lifecycle_provisioner_saga_seconds", "Taken up to ended.", _WORK_S, direction=_DIRECTIONS
)
PROVISIONER_UNSEALABLE = PROVISIONER.counter(
    "lifecycle_provisioner_unsealable_total", "Calls not made: no key opens an output they need."
)
PROVISIONER_DEAD_LETTERS = PROVISIONER.counter(
    "lifecycle_provisioner_dead_letters_total", "Dead letters by reason, of desired versions.", reason=_LETTER_REASONS
)
PROVISIONER_CIRCUITS_OPEN = PROVISIONER.callback_gauge(
    "lifecycle_provisioner_circuits_open", "Outside systems that this worker leaves alone now.", step=_STEP
)
PROVISIONER_CIRCUITS_REFUSED = PROVISIONER.callback_gauge(
    "lifecycle_provisioner_circuits_refused",
    "Outside systems that refuse the operator's own credentials or set-up.",
    step=_STEP,
)
PROVISIONER_RUNNING = PROVISIONER.gauge("lifecycle_provisioner_running", "Sagas that this worker drives now.")
PROVISIONER_REGISTRY_UP = PROVISIONER.gauge("lifecycle_provisioner_registry_up", "1 while the registry answers.")
PROVISIONER_CENSUS_AT = PROVISIONER.gauge(
    "lifecycle_provisioner_census_timestamp_seconds",
    "When this worker last counted the whole registry; the counts below are of that time.",
)
# Of the whole registry: every worker shows an equal number, and a dashboard takes the maximum, never the sum.
PROVISIONER_UNWELL = PROVISIONER.gauge(
    "lifecycle_provisioner_unwell_tenants",
    "Tenants of the whole registry that have stood at a step for UNWELL_AFTER_S or more.",
    step=_STEP,
)
PROVISIONER_SAGAS = PROVISIONER.gauge(
    "lifecycle_provisioner_sagas", "Sagas of the whole registry by why they stand where they stand.", why=_WHYS
)
PROVISIONER_OLDEST_SAGA_S = PROVISIONER.gauge(
    "lifecycle_provisioner_oldest_saga_seconds",
    "How long the oldest saga of the whole registry has stood, by why.",
    why=tuple(why for why in _WHYS if why not in {"rest", "grace"}),
)
PROVISIONER_OLDEST_DUE_AT = PROVISIONER.gauge(
    "lifecycle_provisioner_oldest_due_timestamp_seconds",
    "Since when the oldest saga of the whole registry has been due that no worker holds; 0 without such a saga.",
)
PROVISIONER_REMOVALS_COUNTED = PROVISIONER.gauge(
    "lifecycle_provisioner_counted_removals",
    "Removals of the whole registry that count against the brake now, admitted or held; without approved ones.",
)
PROVISIONER_REMOVALS_ALLOWED = PROVISIONER.gauge(
    "lifecycle_provisioner_allowed_removals", "Removals within REMOVALS_WINDOW_S that the brake admits by itself."
)
PROVISIONER_REMOVALS_HELD = PROVISIONER.gauge(
    "lifecycle_provisioner_held_removals",
    "Removals of the whole registry that wait before their first delete: at the brake, refused by an operator, "
    "contradicted by Genesys (installed), or not confirmed (unread).",
    why=("brake", "refused", "installed", "unread"),
)
PROVISIONER_CONFIRMATIONS = PROVISIONER.counter(
    "lifecycle_provisioner_confirmations_total",
    "Questions to Genesys before a removal, by answer; unread is no information.",
    result=("gone", "installed", "unread"),
)
PROVISIONER_OUTBOX_RECORDS = PROVISIONER.gauge(
    "lifecycle_provisioner_outbox_records", "Records of the whole registry that Kafka has not acknowledged yet."
)
PROVISIONER_OUTBOX_OLDEST_S = PROVISIONER.gauge(
    "lifecycle_provisioner_outbox_oldest_seconds", "How long the oldest record of the outbox has waited."
)

RECONCILER = MetricTable("lifecycle_reconciler_", "reconciler")
RECONCILER_ACTIVE = RECONCILER.gauge(
    "lifecycle_reconciler_active", "1 while this instance is the active one; 0 while it stands by."
)
RECONCILER_READS = RECONCILER.counter(
    "lifecycle_reconciler_reads_total", "Reads of an organisation by result.", result=("read", *_UNANSWERED)
)
RECONCILER_OBSERVATIONS = RECONCILER.counter(
    "lifecycle_reconciler_observations_total", "Observations published.", cause=("recheck", "drift")
)
RECONCILER_UNREAD = RECONCILER.counter(
    "lifecycle_reconciler_unread_total", "Keys that a run could not read, or not whole."
)
RECONCILER_LAST_RUN = RECONCILER.gauge(
    "lifecycle_reconciler_last_run_timestamp_seconds", "When a whole run last ended, however."
)
RECONCILER_LAST_SUCCESS = RECONCILER.gauge(
    "lifecycle_reconciler_last_success_timestamp_seconds",
    "When a whole run last left nothing unread, unwritten or held back.",
)
RECONCILER_UNREAD_KEYS = RECONCILER.gauge(
    "lifecycle_reconciler_unread_keys", "Keys that the last whole run could not read."
)
RECONCILER_ORGANISATIONS = RECONCILER.gauge(
    "lifecycle_reconciler_organisations",
    "Organisations of the last whole run by result.",
    result=("read", "unanswered"),
)
RECONCILER_BRAKE = RECONCILER.gauge(
    "lifecycle_reconciler_brake_engaged", "1 while the brake waits for an operator's approval."
)
RECONCILER_HELD = RECONCILER.gauge(
    "lifecycle_reconciler_held_organisations",
    "Organisations whose first comparison waits for an operator's approval: too many tenants would be created.",
)
RECONCILER_FILES = RECONCILER.gauge(
    "lifecycle_reconciler_organisation_files", "Files of ORGS_DIR by state.", state=("usable", "broken")
)
RECONCILER_SEALS = RECONCILER.counter(
    "lifecycle_reconciler_seals_total", "Seals of the audit trail, and looks that failed.", result=("written", "failed")
)
RECONCILER_UNSEALED_S = RECONCILER.callback_gauge(
    "lifecycle_reconciler_unsealed_seconds",
    "Age that an unsealed record of the audit trail can have at most; from the start on until the first look.",
)
RECONCILER_AUDIT_READS = RECONCILER.counter(
    "lifecycle_reconciler_audit_reads_total",
    "Readings of an organisation's audits by result.",
    result=("read", "not_permitted", "no_information"),
)
RECONCILER_AUDITS = RECONCILER.counter(
    "lifecycle_reconciler_audits_total",
    "Audits taken on, by the change that their action names.",
    kind=("created", "restored", "switched", "changed", "removed", "read", "unknown", "other"),
)
RECONCILER_AUDITED_KEYS = RECONCILER.gauge(
    "lifecycle_reconciler_audited_keys", "Keys that wait for a read because of an audit."
)
RECONCILER_OLDEST_SYNC_S = RECONCILER.gauge(
    "lifecycle_reconciler_oldest_sync_seconds",
    "Time since every change was read, by audits or by a listing, of the organisation with the longest.",
)
RECONCILER_TENANTS = RECONCILER.callback_gauge(
    "lifecycle_reconciler_tenants",
    "Tenants of the public view by stage and by the sort of their reason.",
    stage=(*_STAGES, "none"),
    reason=_TENANT_REASONS,
)
RECONCILER_OLDEST_TENANT_S = RECONCILER.callback_gauge(
    "lifecycle_reconciler_oldest_tenant_seconds",
    "Time since the newest change of the tenant that has stood longest in this stage, grace periods left out.",
    stage=tuple(stage for stage in _STAGES if stage not in {"active", "deprovisioned"}),
)
RECONCILER_FLAGGED = RECONCILER.callback_gauge(
    "lifecycle_reconciler_flagged_tenants", "Tenants of the public view with this flag.", flag=_FLAGS
)

TABLES: Final = (SHARED, KEYRING, INGRESS, HINTS, LEDGER, PROVISIONER, RECONCILER)
"""All tables; a service shows those that name the service."""


def exposition(service: str) -> bytes:
    """Return the body of a service's `/metrics`."""
    return b"".join(generate_latest(table.registry) for table in TABLES if service in table.services)
