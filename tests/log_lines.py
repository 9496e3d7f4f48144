"""The log lines of all services: `python -m tests.log_lines` writes docs/logs.md, `--check` compares only.

The events, levels, services and fields are read from the code: every call of a logger is found by its name (`log`,
`_log`) and every call of a method that passes its arguments on to one (`_PASSED_ON`). The meanings stand here, in
`EVENTS` and `FIELDS`; an event or a field without a meaning is a breach, and so is a meaning that nothing uses. Hence
one thing has one name in every service.
"""

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.adapters.process.settings import SECTIONS

ROOT: Final = Path(__file__).parents[1]
PAGE: Final = ROOT / "docs" / "logs.md"

_LEVELS: Final = {name: name for name in ("debug", "info", "warning", "error", "critical")} | {"exception": "error"}
_PASSED_ON: Final = {"_sampled": ("warning", ("reason", "count")), "spool": ("warning", ())}
"""Method of the ingress' telemetry to the level of its line and the fields that it adds."""
_SPREAD: Final = {"_named": ("key", "trace_id")}
"""Function whose result a call spreads (`**`) to the fields in it."""
_LOGGERS: Final = frozenset({"log", "_log"})

_EVERY: Final = "every service"
_WRITERS: Final[Mapping[str, str]] = {
    "services/adapters/kafka/rights.py": _EVERY,
    "services/adapters/genesys/organisations_watch.py": "reconciler",
    "services/adapters/secrets/keyring_watch.py": "ingress",
    "services/ingress/hints_main.py": "hints",
    "services/ingress/hints_queue.py": "hints",
    "services/adapters/system_gates.py": "provisioner",
    "services/adapters/tables/": "ledger",
    "services/adapters/tenant_file.py": "provisioner",
}
"""Path of an adapter to the service that uses it; the other paths name their service."""

EVENTS: Final[Mapping[str, str]] = {
    "active": "this reconciler is the active one of several",
    "answered": "a delivery was accepted: written to Kafka or to the spool; or a re-sent one is known",
    "asked after a loss": "records were lost, and that was accepted: every key of the partition is read from Genesys",
    "audit trail differs": "the newest records of a partition are not the sealed ones: `lifecycle audit verify`",
    "audit trail not sealed": "a look of the sealer failed; it looks again within seconds, then minutes",
    "audits are read again": "of an organisation whose audits were not read",
    "audits not read": "of an organisation, said once: lost webhooks are noticed by the hourly listing alone",
    "breaker": "deliveries ask Kafka first (`closed`), or go to the spool at once (`open`)",
    "broken": "a fault of our own, with its traceback; the request is answered all the same",
    "call failed in a way nobody foresaw": "a bug in a kind: the call counts as maybe done and is read back",
    "census failed": "the registry was not counted: the gauges of the whole registry keep their last values",
    "census succeeds again": "the gauges of the whole registry are of the present again",
    "dead letter": "a record that cannot be processed went to `lifecycle.dead-letters`",
    "decided": "the verdict on a record that changed a row",
    "draining": "SIGTERM: `/readyz` answers 503, requests are still answered",
    "event URLs are replaced": "`EGRESS_MAP` is set: for one machine alone",
    "first comparison held": "a new organisation has too many integrations at once: nothing of it is published without "
    "an approval",
    "hint answered": "a hint was acknowledged: written, spooled, known, or of nothing that asks a re-check",
    "hint refused": "hints were answered with an error; one line a second for each reason, with the count since",
    "intake begins anew": "Kafka refuses the consumer; another one is made in two seconds",
    "intake stopped": "records may have been missed: nothing is read until an operator acts; known sagas go on",
    "its tenant is another organisation's by now": "of a recovery: the tenantId was bound elsewhere meanwhile",
    "Kafka takes no deliveries": "topics are missing, are not as the table says, or have no leader",
    "keyring broken": "the changed file cannot be used; the former endpoints stay",
    "keyring taken": "another file, or the mended one, is in force",
    "line": "what a reconciliation found about one tenant, and does",
    "loss accepted": "`--accept-loss`: records that Kafka removed unread are passed over",
    "message left in the queue": "a message that cannot be read, or of a foreign organisation or account: it is not "
    "deleted, and the queue's `RedrivePolicy` moves it; one line a minute for each reason",
    "no information": "an organisation was not read whole: nothing is concluded from it",
    "no key of material.outputs opens what was sealed": "a key was taken out of the keyring too early: sagas wait",
    "no right is missing any more": "the rights that were missing are granted",
    "offsets not committed": "harmless: the records are read again",
    "outcome": "what became of a desired version; `error` where an operator has to act",
    "outcomes not acknowledged": "Kafka did not take them; the outbox keeps them and tries again",
    "partition taken over": "this worker holds the partition, and has published its newest keys again",
    "organisation file broken": "a file of `ORGS_DIR` cannot be used: its organisation is not compared",
    "organisation files changed": "files of `ORGS_DIR` were added, changed or removed, and are in force",
    "plan of a life cannot be carried out": "the plan that this tenant was made by names what this release has not",
    "plan of an ended life cannot be carried out": "likewise, of a tenant that is gone; its sweep waits",
    "program said more": "a program of a step wrote further lines, which are not logged",
    "program says": "a line that the program of a step wrote to standard error, secrets redacted",
    "queue answers": "the queue of hints is read again",
    "queue fails": "Amazon refuses a call, or does not answer: the messages stay in the queue meanwhile",
    "queue without a dead-letter queue": "its `RedrivePolicy` is missing: docs/connect-genesys.md",
    "recovered": "a table partition is up to date with its changelog",
    "recovering": "a table partition is read from its changelog, and how far it is",
    "recovery begins": "the registry is older than its outcomes: everything is looked up again",
    "recovery ended": "sagas are driven again",
    "refused": "deliveries were refused; one line a second for each reason",
    "registry cannot be used": "PostgreSQL is away, refuses, or is not proved yet; sagas wait",
    "removal contradicted": "Genesys was asked before a removal, and has the integration: nothing is removed",
    "removal not confirmed": "Genesys gave no information before a removal, or was not asked now: `why`",
    "rights are missing": "Kafka refuses what this service has to do",
    "row cannot be read": "of another release, or edited by hand: looked at again every minute",
    "row cannot be read, nor recovered: mend it, or remove it": "the same, in a recovery",
    "run": "a reconciliation ended",
    "saga stopped": "a bug: the saga is tried again in a minute, with the traceback here",
    "saga stopped and could not say so": "the same, and the registry was away",
    "sealed": "a seal was written over the new records of a partition of the audit trail",
    "spool aside": "a damaged spool is kept aside, under its path, with what could be saved drained",
    "spool closed": "the spool takes no more records",
    "spool found": "a former process left records; they are drained",
    "spool left": "a folder cannot be opened or drained; it stays, and is tried at the next start",
    "spool refused": "the folder cannot be used: deliveries need Kafka",
    "stage": "a tenant's stage changed",
    "standing by": "another reconciler of the installation is active, or this one has not joined its group yet",
    "started": "the service listens",
    "stopped": "the service ended",
    "stopped by the brake": "too many tenants are gone at once: nothing is removed without an approval",
    "system does not refuse the operator any more": "credentials or set-up are accepted again",
    "system is well again": "the system answers; waiting sagas are due at once",
    "system refuses the operator": "a system refuses our own credentials or set-up: sagas wait, nobody is rolled back",
    "task ended": "a background task ended by a bug: the process ends with status 1",
    "tenants file broken": "the changed `TENANTS_FILE` cannot be used; the former lines stay",
    "tenants file taken": "another file, or the mended one, is in force",
    "the producer has failed for good": "librdkafka gave up: the process ends with status 1",
    "too few files": "the limit of open files is below what may be needed",
    "unwritten": "records that Kafka did not take; one line a second for each reason, of `hints` a minute",
    "waiting": "the reconciler cannot work now",
    "waiting for the registry": "PostgreSQL is not there at the start",
    "webhook given up": "the simulator's Genesys has no answer after its last retry",
}
"""Event to its meaning."""

FIELDS: Final[Mapping[str, str]] = {
    "absent": "tenants that are gone, by the run",
    "added": "organisations with a new file",
    "action": "what the run does about the tenant",
    "after": "the stage from now on",
    "answer": "status and short code of the failed step's last answer",
    "approval": "what `lifecycle reconcile --approve` takes",
    "before": "the stage until now",
    "changed": "true if the content changed",
    "compiled": "true if the delivery's way is compiled",
    "count": "lines that this one stands for; of `sealed`, the sealed records",
    "damaged": "records that could not be saved",
    "direction": "`provision`, `deprovision` …, as in the outcome",
    "edited": "organisations with another file than before",
    "end": "end of the changelog, an offset",
    "endpoint": "endpoint of the webhook",
    "endpoints": "endpoints in force",
    "error_class": "class of the failed step's answer",
    "event_type": "event of the simulated webhook",
    "fatal": "true if the process ends with status 1",
    "generation": "life of the key",
    "group": "consumer group",
    "host": "address that is listened on",
    "hosts": "hosts that are replaced",
    "in_flight": "deliveries not yet acknowledged",
    "interval_s": "seconds between two runs",
    "kept": "endpoints that stay in force",
    "key": "`orgId:integrationId`: whose line this is",
    "keys": "number of keys",
    "kind": "`delivery`, `observation`, `recheck` or `outcome`",
    "limit": "how many may be gone in one run",
    "lines": "tenants that something was found about",
    "message_id": "Amazon's id of the message",
    "newcomers": "tenants that the first comparison would create",
    "number": "number of the seal in its partition",
    "occasion": "`hourly`, `due` (keys) or `file` (an organisation's)",
    "offset": "offset that was reached; of `audit trail differs`, of the seal",
    "older": "keys whose rows were older than Kafka",
    "org": "organisation",
    "partition": "partition",
    "partitions": "partitions of every topic",
    "path": "folder",
    "place": "key, generation and step of the sealed value",
    "port": "port that is listened on; of the services but the ingress, that of health and metrics",
    "published": "observations that were published",
    "queue": "URL of the queue",
    "read": "organisations that were read whole",
    "reason": "a word of a fixed list, as in metrics and records",
    "record": "topic, partition and offset of the record",
    "records": "number of records",
    "removed": "organisations without a file from now on",
    "remedy": "what to do",
    "said": "a line of a program, cut after 200 characters",
    "spooled": "records that stay in the spool",
    "state": "state of the outcome, or of the breaker",
    "status": "HTTP status of the answer",
    "step": "step of the plan",
    "system": "outside system",
    "table": "table of the ledger",
    "task": "name of the task",
    "trace_id": "trace of the delivery, where it has one (docs/traces.md)",
    "unread": "keys that were not read, or not whole",
    "unreported": "records without a report of Kafka's",
    "verb": "`create`, `update`, `delete` or `read`",
    "verdict": "the ledger's verdict",
    "version": "version of the row, or desired version",
    "why": "the cause, in a sentence",
    "woken": "sagas that are due now",
}
"""Field to its meaning."""

_HEAD: Final = """# Logs

<!-- Written by `make logs-page` from the code and tests/log_lines.py; `make check` refuses a page that differs. -->

Every service writes a JSON object a line to standard error. One thing has one name in every service. No line holds a
body, a secret, a header or a value of a configuration, and nothing of a request that was not proved, but for its
endpoint where we have that one.

| in every line | |
|---|---|
| `at` | time, RFC 3339, UTC |
| `level` | as below; `LOG_LEVEL` is the least that is written |
| `service` | `ingress`, `hints`, `ledger`, `provisioner`, `reconciler`, `simulator`; absent in lines of libraries |
| `event` | the words in the tables below |
| `key` | `orgId:integrationId`, in every line about one tenant |
| `trace_id` | in every line about a delivery of a trace ([traces](traces.md)) |
| `exception` | traceback, where one belongs to the line |

| level | |
|---|---|
| `debug` | each delivery and each verdict |
| `info` | what happened |
| `warning` | look at it today |
| `error` | somebody has to act |
| `critical` | nothing goes on without somebody |

## The story of one tenant

`lifecycle logs --key KEY` shows the lines of all services about one tenant in the order of time, where `lifecycle up`
runs (`KEY` is also a tenantId or the beginning of either). Elsewhere ask the store of your logs for the field:
`{namespace="lifecycle"} | json | key="…"` in Loki, `jq -c 'select(.key == "…")'` in files.

At `LOG_LEVEL=info` the story is every change of stage (`stage`), every outcome (`outcome`) and every trouble. At
`debug` it begins with the delivery (`answered` of the ingress) and has every verdict (`decided` of the ledger). A line
for each delivery costs CPU that a storm has not to spare, hence `debug`. The ingress answers once Kafka has the
delivery, so the ledger's first line may stand before the ingress' line. The audit trail has all of it at any level
(`lifecycle tenants timeline KEY`).
"""


@dataclass(frozen=True, order=True)
class LogLine:
    """A log call.

    Attributes:
        service: Who writes it.
        event: The first argument.
        level: Level of the line.
        fields: Names of the keyword arguments, sorted.
    """

    service: str
    event: str
    level: str
    fields: tuple[str, ...]


class Unscannable(Exception):
    """A log call whose event, fields or service the code does not say."""


def scan(root: Path = ROOT) -> Iterator[LogLine]:
    """Every log call of the services.

    Raises:
        Unscannable: names the place.
    """
    for path in sorted((root / "services").rglob("*.py")):
        name = path.relative_to(root).as_posix()
        tree = ast.parse(path.read_text())
        skipped = {
            inner for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in _PASSED_ON
            for inner in ast.walk(node)
        }  # fmt: skip
        aliases = _aliases(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node not in skipped:
                for level, added in _levels(node, aliases):
                    yield _line(name, node, level, added)


def _levels(call: ast.Call, aliases: Mapping[str, list[str]]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The levels that a call may log at, each with the fields that are added; none for another call."""
    made = call.func
    if isinstance(made, ast.Attribute) and made.attr in _PASSED_ON and _name(made.value) in {"self", "_telemetry"}:
        level, added = _PASSED_ON[made.attr]
        yield level, added
    elif isinstance(made, ast.Name) and made.id in aliases:
        yield from ((level, ()) for level in aliases[made.id])
    else:
        yield from ((level, ()) for level in _of_logger(made))


def _of_logger(made: ast.expr) -> Iterator[str]:
    """The levels of `log.info`, and of `log.error if … else log.info`."""
    if isinstance(made, ast.IfExp):
        yield from _of_logger(made.body)
        yield from _of_logger(made.orelse)
    elif isinstance(made, ast.Attribute) and made.attr in _LEVELS and _name(made.value) in _LOGGERS:
        yield _LEVELS[made.attr]


def _aliases(tree: ast.Module) -> dict[str, list[str]]:
    """Names that a module gives to methods of a logger (`write = log.info`)."""
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            levels = list(_of_logger(node.value))
            if levels:
                found[node.targets[0].id] = levels
    return found


def _name(node: ast.expr) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def _line(path: str, call: ast.Call, level: str, added: tuple[str, ...]) -> LogLine:
    event = call.args[0] if call.args else None
    if not isinstance(event, ast.Constant) or not isinstance(event.value, str):
        raise Unscannable(f"{path}:{call.lineno}: the event of a log call is a constant text")
    fields = set(added)
    for given in call.keywords:
        spread = given.value
        if given.arg is not None:
            fields.add(given.arg)
        elif isinstance(spread, ast.Call) and _name(spread.func) in _SPREAD:
            fields |= set(_SPREAD[_name(spread.func)])
        else:
            raise Unscannable(f"{path}:{call.lineno}: the fields of a log call are named")
    writer = next((who for part, who in _WRITERS.items() if path.startswith(part)), path.split("/")[1])
    if writer not in {*SECTIONS, _EVERY}:
        raise Unscannable(f"{path}:{call.lineno}: say in tests/log_lines.py which service writes it")
    return LogLine(writer, event.value, level, tuple(sorted(fields - {"exc_info"})))


def breaches(lines: list[LogLine]) -> Iterator[str]:
    """What the tables and the code do not say alike."""
    events, fields = {line.event for line in lines}, {field for line in lines for field in line.fields}
    for what, used, table in (("event", events, EVENTS), ("field", fields, FIELDS)):
        yield from (f"{what} {name!r} of the code has no meaning in tests/log_lines.py" for name in used - table.keys())
        yield from (f"{what} {name!r} of tests/log_lines.py is in no log call" for name in table.keys() - used)


def page(lines: list[LogLine]) -> str:
    """The text of the page."""
    by_event: dict[tuple[str, str], list[LogLine]] = defaultdict(list)
    for line in lines:
        by_event[line.service, line.event].append(line)
    parts = [_HEAD]
    for service in dict.fromkeys(service for service, _ in sorted(by_event)):
        parts.append(f"## {service.capitalize()}\n\n| event | level | fields | meaning |\n|---|---|---|---|")
        for (who, event), calls in sorted(by_event.items()):
            if who == service:
                levels = [level for level in _LEVELS if level in {call.level for call in calls}]
                fields = sorted({field for call in calls for field in call.fields})
                named = ", ".join(f"`{field}`" for field in fields) or "none"
                parts.append(f"| `{event}` | {', '.join(levels)} | {named} | {EVENTS.get(event, '')} |")
        parts.append("")
    parts += ["## Fields\n", "| field | meaning |", "|---|---|"]
    parts += [f"| `{name}` | {meaning} |" for name, meaning in sorted(FIELDS.items())]
    return "\n".join(parts) + "\n"


def main() -> int:
    """Write or compare the page; 1 with a breach."""
    try:
        lines = sorted(set(scan()))
    except Unscannable as fault:
        print(fault, file=sys.stderr)
        return 1
    found = sorted(breaches(lines))
    written = page(lines)
    if "--check" not in sys.argv:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        found.append("docs/logs.md is not as the code is: make logs-page")
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
