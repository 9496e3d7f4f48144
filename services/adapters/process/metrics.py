"""The metrics of all services, declared once with kind, labels and help text.

Rule: a metric's name, labels and help text are declared here only. No label is unbounded: never a key, organisation or
tenant.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from services.adapters.process.fast_metrics import CallbackGauge, FastCounter, FastHistogram

CONTENT_TYPE = CONTENT_TYPE_LATEST
# A registry of our own, without the collectors that prometheus_client adds to its default registry.
REGISTRY = CollectorRegistry(auto_describe=True)

_ANSWER_S = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.2, 1.6, 2.7)
_ENTRIES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
_WORK_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(name, meaning, labels, registry=REGISTRY)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    return Gauge(name, meaning, labels, registry=REGISTRY)


def _histogram(name: str, meaning: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    return Histogram(name, meaning, labels, registry=REGISTRY, buckets=buckets)


def _callback_gauge(name: str, meaning: str, *labels: str) -> CallbackGauge:
    found = CallbackGauge(name, meaning, *labels)
    REGISTRY.register(found)
    return found


# ingress
INGRESS_ANSWERS = FastCounter("lifecycle_ingress_answers_total", "Answers by status and reason.", "status", "reason")
INGRESS_ANSWER_S = FastHistogram("lifecycle_ingress_answer_seconds", "First byte read to answer given.", _ANSWER_S)
INGRESS_PREVIOUS_SECRET = FastCounter(
    "lifecycle_ingress_previous_secret_total",
    "Deliveries proved by a previous secret: while it grows, a sender does not use the current one.",
    "endpoint",
)
REGISTRY.register(INGRESS_ANSWERS)
REGISTRY.register(INGRESS_PREVIOUS_SECRET)
REGISTRY.register(INGRESS_ANSWER_S)
INGRESS_IN_FLIGHT = _gauge("lifecycle_ingress_in_flight", "Deliveries waiting for Kafka.")
INGRESS_RECHECKS = _counter("lifecycle_ingress_rechecks_total", "Re-checks asked, by reason.", "reason")
INGRESS_BREAKER = _gauge("lifecycle_ingress_breaker", "1 for the state of the breaker before Kafka.", "state")
INGRESS_SPOOL_RECORDS = _gauge("lifecycle_ingress_spool_records", "Records on local disk that Kafka has not yet.")
INGRESS_SPOOL_BYTES = _gauge("lifecycle_ingress_spool_bytes", "Size of the records on local disk.")
INGRESS_SPOOL_AGE_S = _gauge(
    "lifecycle_ingress_spool_oldest_seconds", "How long the oldest record on local disk has waited."
)
INGRESS_SPOOL_OPEN = _gauge("lifecycle_ingress_spool_open", "1 while the spool takes records.")
INGRESS_SPOOL_CLOSED = _counter("lifecycle_ingress_spool_closed_total", "Spools closed, by reason.", "reason")
INGRESS_SPOOL_DRAINED = _counter("lifecycle_ingress_spool_drained_total", "Spooled records by result.", "result")
INGRESS_ODD_MARKS = _counter("lifecycle_ingress_odd_marks_total", "Retry marks that no count could be read from.")

# keyring
KEYRING_BROKEN = _gauge(
    "lifecycle_keyring_broken", "1 while the keyring file cannot be used; the last good one counts."
)
KEYRING_RELOADS = _counter("lifecycle_keyring_reloads_total", "Changes of the keyring file by result.", "result")

# ledger
LEDGER_RECORDS = _counter("lifecycle_ledger_records_total", "Input records by kind and verdict.", "kind", "verdict")
LEDGER_EVENTS = _counter("lifecycle_ledger_events_total", "Events published for the first time.", "event")
LEDGER_STAGES = _counter("lifecycle_ledger_stage_changes_total", "Stage changes by new stage.", "stage")
LEDGER_UNACKNOWLEDGED = _gauge("lifecycle_ledger_unacknowledged", "Records sent and not yet acknowledged.")
LEDGER_JOURNAL = _histogram(
    "lifecycle_ledger_journal_entries", "Events in the journal of a row when it is written.", _ENTRIES
)
LEDGER_LAG_RECORDS = _callback_gauge(
    "lifecycle_ledger_lag_records", "Input records not processed yet.", "topic", "partition"
)
LEDGER_LAG_S = _callback_gauge(
    "lifecycle_ledger_lag_seconds", "How long the first unprocessed input record has waited.", "topic", "partition"
)
LEDGER_RECOVERING = _callback_gauge("lifecycle_ledger_recovering", "Changelog records to be read before events go on.")
LEDGER_REBALANCES = _callback_gauge("lifecycle_ledger_rebalances_total", "Times that partitions were shared out anew.")
LEDGER_ENDS = _callback_gauge("lifecycle_ledger_ends_total", "Ends of workers on this disk.", "reason")
LEDGER_DEAD_LETTERS = _counter("lifecycle_ledger_dead_letters_total", "Records sent to dead letters.", "reason")

# provisioner
SAGA_OUTCOMES = _counter("lifecycle_saga_outcomes_total", "Outcomes published.", "direction", "state")
SAGA_CALLS = _counter("lifecycle_saga_calls_total", "Calls to outside systems by answer.", "step", "verb", "result")
SAGA_UNSEALABLE = _counter("lifecycle_saga_unsealable_total", "Calls not made: no key opens an output they need.")
SAGA_CALL_S = _histogram("lifecycle_saga_call_seconds", "Length of a call.", _WORK_S, "step", "verb")
SAGA_S = _histogram("lifecycle_saga_seconds", "Taken up to ended.", _WORK_S, "direction")
SAGA_SYSTEMS_AWAY = _gauge("lifecycle_saga_systems_away", "Outside systems that this worker leaves alone now.")
SAGA_SYSTEM_REFUSES = _gauge(
    "lifecycle_saga_system_refuses", "1 while a system refuses the operator's own credentials or set-up.", "system"
)
SAGA_UNWELL = _gauge("lifecycle_saga_unwell", "Tenants that have stood at a step for UNWELL_AFTER_S or more.", "step")
SAGA_RUNNING = _gauge("lifecycle_saga_running", "Sagas this worker drives now.")
REGISTRY_UP = _gauge("lifecycle_registry_up", "1 while the registry answers.")

# reconciler
RECONCILE_RUNS = _counter("lifecycle_reconcile_runs_total", "Reads of an organisation by result.", "result")
RECONCILE_OBSERVATIONS = _counter("lifecycle_reconcile_observations_total", "Observations published.", "cause")
RECONCILE_UNREAD = _counter("lifecycle_reconcile_unread_total", "Keys that a run could not read, or not whole.")
RECONCILE_ENDED = _gauge("lifecycle_reconcile_last_run_timestamp_seconds", "When a whole run last ended, however.")
RECONCILE_AGE = _gauge(
    "lifecycle_reconcile_last_success_timestamp_seconds",
    "When a whole run last left nothing unread, unwritten or held back.",
)
RECONCILE_UNREAD_KEYS = _gauge("lifecycle_reconcile_unread_keys", "Keys that the last whole run could not read.")
RECONCILE_ORGANISATIONS = _gauge(
    "lifecycle_reconcile_organisations", "Organisations of the last whole run by result.", "result"
)
RECONCILE_STOPPED = _gauge("lifecycle_reconcile_stopped", "1 while the brake waits for an operator's approval.")


def exposition() -> bytes:
    """Return the body of `/metrics`."""
    return generate_latest(REGISTRY)
