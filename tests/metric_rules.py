"""Checks the tables of metrics: `python -m tests.metric_rules` names every breach and ends 1 when there is one.

Rules: a name is lower-case, begins with the prefix of its table and ends in a unit (`_total` for a counter, and for
nothing else); a help text is a sentence; a label is one of `BOUNDED`, with its values or the set that bounds them; a
tuple of values repeats the enumeration it stands for; every metric is declared in the tables, and used.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from schemas.dead_letter import DeadLetterReason
from schemas.journal import Verdict
from schemas.outcome import Direction, State
from schemas.tenant import Flag, Stage
from schemas.values import EventType
from services.adapters.genesys.answers import Unanswered
from services.adapters.process.metric_table import DeclaredMetric, MetricKind, MetricTable
from services.adapters.process.metrics import TABLES
from services.adapters.tables.exits import WorkerExit
from services.core.delivery.kafka_breaker import BreakerState
from services.core.delivery.timestamp_rule import TimeRule
from services.core.ledger.decisions import KIND
from services.core.reconcile.audit_gaps import AuditSort
from services.core.reconcile.tenant_census import REASON_SORTS, UNSETTLED
from services.core.saga.calls import Verb
from services.core.saga.removal import GenesysSays
from services.core.saga.why import SagaWhy
from services.ingress.hints_queue import MessageResult
from services.ingress.http import answers

ROOT: Final = Path(__file__).parents[1]
TABLE_MODULES: Final = frozenset({"metrics.py", "metric_table.py", "fast_metrics.py"})
"""Modules of `services/adapters/process` that may make a metric."""
METRIC_CLASSES: Final = frozenset({
    "Counter", "Gauge", "Histogram", "Summary", "Info", "Enum", "FastCounter", "FastHistogram", "CallbackGauge",
})  # fmt: skip

UNITS: Final = frozenset({
    "seconds", "bytes", "records", "entries", "sagas", "tenants", "keys", "organisations", "files", "removals",
    "info", "messages",
})  # fmt: skip
"""Last words of a name that say what is counted."""
STATES: Final = frozenset({
    "broken", "open", "breaker", "in_flight", "unacknowledged", "circuits_open", "circuits_refused", "running",
    "registry_up", "brake_engaged", "ready_check", "reconciler_active",
})  # fmt: skip
"""Ends of gauges whose name says what is counted, or what 1 means, without a unit."""
BOUNDED: Final = frozenset({
    "cause", "check", "direction", "endpoint", "event", "flag", "kind", "outcome", "partition", "python", "reason",
    "result", "service", "stage", "state", "status", "step", "topic", "verb", "verdict", "version", "why",
})  # fmt: skip
"""Labels that do not grow with customers."""

_NAME: Final = re.compile(r"lifecycle(_[a-z]+)+")
_SENTENCE: Final = re.compile(r"[A-Z0-9].{8,}\.")
_LETTERS: Final = frozenset(map(str, DeadLetterReason))
_VERDICTS: Final = frozenset(map(str, Verdict))
_STAGES: Final = frozenset(map(str, Stage))
_ANSWERS: Final = (*answers.TABLE, answers.malformed("f", "r"))
_HINTS: Final = (*answers.HINTS, answers.malformed("f", "r"))

ENUMERATIONS: Final[Mapping[tuple[str, str], frozenset[str]]] = {
    ("lifecycle_ingress_answers_total", "status"): frozenset(answer.label for answer in _ANSWERS),
    ("lifecycle_ingress_answers_total", "reason"): frozenset(answer.reason for answer in _ANSWERS),
    ("lifecycle_ingress_hints_total", "status"): frozenset(answer.label for answer in _HINTS),
    ("lifecycle_ingress_hints_total", "reason"): frozenset(answer.reason for answer in _HINTS),
    ("lifecycle_hints_messages_total", "result"): frozenset(map(str, MessageResult)),
    ("lifecycle_ingress_rechecks_total", "reason"): frozenset(map(str, TimeRule)),
    ("lifecycle_ingress_breaker", "state"): frozenset(map(str, BreakerState)),
    ("lifecycle_ingress_dead_letters_total", "reason"): _LETTERS,
    ("lifecycle_ledger_dead_letters_total", "reason"): _LETTERS,
    ("lifecycle_provisioner_dead_letters_total", "reason"): _LETTERS,
    ("lifecycle_ledger_records_total", "kind"): frozenset({*KIND.values(), "outcome", "unread"}),
    ("lifecycle_ledger_records_total", "verdict"): _VERDICTS | _LETTERS,
    ("lifecycle_ledger_events_total", "event"): frozenset(map(str, EventType)),
    ("lifecycle_ledger_stage_changes_total", "stage"): _STAGES | {"none"},
    ("lifecycle_ledger_ends_total", "reason"): frozenset(end.name.lower() for end in WorkerExit),
    ("lifecycle_provisioner_confirmations_total", "result"): frozenset(map(str, GenesysSays)),
    ("lifecycle_provisioner_outcomes_total", "direction"): frozenset(map(str, Direction)),
    ("lifecycle_provisioner_outcomes_total", "state"): frozenset(map(str, State)),
    ("lifecycle_provisioner_calls_total", "verb"): frozenset(map(str, Verb)),
    ("lifecycle_provisioner_sagas", "why"): frozenset(map(str, SagaWhy)),
    ("lifecycle_provisioner_oldest_saga_seconds", "why"): frozenset(map(str, SagaWhy)) - {"rest", "grace"},
    ("lifecycle_reconciler_audits_total", "kind"): frozenset(map(str, AuditSort)),
    ("lifecycle_reconciler_tenants", "stage"): _STAGES | {"none"},
    ("lifecycle_reconciler_tenants", "reason"): REASON_SORTS,
    ("lifecycle_reconciler_reads_total", "result"): frozenset({"read", *map(str, Unanswered)}),
    ("lifecycle_reconciler_oldest_tenant_seconds", "stage"): frozenset(map(str, UNSETTLED)),
    ("lifecycle_reconciler_flagged_tenants", "flag"): frozenset(map(str, Flag)),
}
"""Values of a label, as the code knows them."""


def breaches(
    tables: Sequence[MetricTable], enumerations: Mapping[tuple[str, str], frozenset[str]] = ENUMERATIONS
) -> list[str]:
    """Returns a sentence for each breach in the tables."""
    found = [breach for table in tables for metric in table.declared for breach in _of_metric(table.prefix, metric)]
    values = {
        (metric.name, label): given
        for table in tables
        for metric in table.declared
        for label, given in metric.labels.items()
    }
    for place, wanted in enumerations.items():
        given = values.get(place)
        if given is None or isinstance(given, str) or set(given) != wanted:
            found.append(f"{place[0]}: {place[1]}: is not {', '.join(sorted(wanted))}")
    return found


def _of_metric(prefix: str, metric: DeclaredMetric) -> Iterator[str]:
    name, kind = metric.name, metric.kind
    if _NAME.fullmatch(name) is None or not name.startswith(prefix):
        yield f"{name}: the name is not {prefix}, then lower-case words"
    if (kind is MetricKind.COUNTER) is not name.endswith("_total"):
        yield f"{name}: a counter ends in _total, and nothing else does"
    if kind is not MetricKind.COUNTER and not _has_unit(metric):
        yield f"{name}: the last word is no unit"
    if _SENTENCE.fullmatch(metric.meaning) is None:
        yield f"{name}: the help text is no sentence"
    for label, values in metric.labels.items():
        if label not in BOUNDED:
            yield f"{name}: {label}: is no bounded label"
        if not values or (not isinstance(values, str) and len(set(values)) < len(values)):
            yield f"{name}: {label}: has no values, or one twice"


def _has_unit(metric: DeclaredMetric) -> bool:
    if metric.name.rpartition("_")[2] in UNITS:
        return True
    return metric.kind is MetricKind.GAUGE and any(metric.name.endswith(f"_{state}") for state in STATES)


def makers(path: str, text: str) -> Iterator[str]:
    """Returns a sentence for each metric that a module makes beside the tables."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "prometheus_client":
            for name in node.names:
                if name.name in METRIC_CLASSES:
                    yield f"{path}:{node.lineno}: {name.name}: a metric is declared in metrics.py alone"
        if isinstance(node, ast.ImportFrom) and (node.module or "").endswith("fast_metrics"):
            yield f"{path}:{node.lineno}: a metric is declared in metrics.py alone"


def unused(names: Sequence[str], texts: Sequence[str]) -> list[str]:
    """Returns a sentence for each constant of the table that no module sets."""
    whole = "\n".join(texts)
    return [f"metrics.{name}: nothing sets it" for name in names if re.search(rf"metrics\.{name}\b", whole) is None]


def _constants(text: str) -> list[str]:
    """Returns the constants of the table that hold a metric."""
    assigned = [node for node in ast.parse(text).body if isinstance(node, ast.Assign)]
    return [
        target.id
        for node in assigned
        if isinstance(node.value, ast.Call) and isinstance(node.value.func, ast.Attribute)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]


def main() -> int:
    """Run the program."""
    folder = ROOT / "services" / "adapters" / "process"
    modules = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for path in sorted((ROOT / "services").rglob("*.py"))
        if path.parent != folder or path.name not in TABLE_MODULES
    }
    found = breaches(TABLES)
    found += [breach for path, text in modules.items() for breach in makers(path, text)]
    found += unused(_constants((folder / "metrics.py").read_text(encoding="utf-8")), list(modules.values()))
    for sentence in found:
        sys.stderr.write(sentence + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
