"""Checks of the running installation: `/readyz` and metrics of each service, and the unwell tenants."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from schemas.tenant import Tenant
from services.adapters.kafka import tenant_view
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.process.scrape import ServiceStatus, scrape
from services.adapters.process.settings import Settings
from services.cli.doctor.finding import CheckContext, Finding, fault, skipped, well
from services.cli.environment import ENDPOINTS, UpNotRunning, environment_of_up
from services.core.unwell import is_unwell
from services.core.url_redaction import redacted_url

SERVICES: Final = ("ingress", "ledger", "provisioner", "reconciler")
"""The services without any of which events stop being processed."""

_LAG_S: Final = 60.0
"""Seconds that the first unread record may wait."""
_READ_S: Final = 8.0
"""Seconds for reading the whole view of tenants."""
_MOST_NAMED: Final = 3
_CIRCUITS: Final = re.compile(r"lifecycle_provisioner_circuits_(open|refused)\{(.*)\}")
"""A sample about the outside systems of a step, with the step's name."""
_RESUMES: Final = "put right what it names; it goes on by itself"


@dataclass(frozen=True, slots=True)
class _Rule:
    """A metric with a limit.

    Attributes:
        metric: Name of the sample, as in the result of `scrape`.
        is_fault: True if the value is a fault.
        detail: The fault in words; `{value}` is replaced.
        cure: The remedy.
    """

    metric: str
    is_fault: Callable[[float], bool]
    detail: str
    cure: str


_RULES: Final = (
    _Rule(
        "lifecycle_reconciler_brake_engaged",
        lambda value: value > 0,
        "the brake holds a run that would remove too many tenants",
        "`lifecycle reconcile --report` shows them, and the commands that approve or refuse exactly these removals",
    ),
    _Rule(
        "lifecycle_reconciler_held_organisations",
        lambda value: value > 0,
        "organisations whose first comparison waits for an approval: {value:.0f}",
        "`lifecycle reconcile --report` shows their tenants to create, and the command that approves exactly these",
    ),
    _Rule(
        "lifecycle_ledger_lag_seconds",
        lambda value: value > _LAG_S,
        "the first unread record has waited {value:.0f} s",
        "its log says what it waits for; more ledgers share the partitions",
    ),
    _Rule(
        "lifecycle_reconciler_unread_keys",
        lambda value: value > 0,
        "{value:.0f} keys could not be read, or not whole, in its last whole run",
        "`lifecycle reconcile --now` reads them again and says of each why",
    ),
    _Rule(
        "lifecycle_reconciler_organisations{unanswered}",
        lambda value: value > 0,
        "{value:.0f} organisations gave no information, or not all, in its last whole run",
        "`lifecycle doctor --deep` logs in to each and says why",
    ),
    _Rule(
        "lifecycle_keyring_broken",
        lambda value: value > 0,
        "KEYRING_FILE cannot be used; the last good one is in force",
        "correct the file: it is taken within a second",
    ),
)


def known_services(chosen: Settings, up: Path) -> tuple[Mapping[str, str], str]:
    """Returns the URLs of the running services, and the source: SERVICE_URLS, else the `up` of the state folder.

    The services of an `up` count only if its Kafka is the configured one: any other `up` is a different installation.
    """
    if chosen.service_urls:
        return chosen.service_urls, "SERVICE_URLS"
    # Any damage of the files of an `up` means that no service is known, which is a finding by itself.
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError, UpNotRunning):
        if environment_of_up(up)["KAFKA_BOOTSTRAP_SERVERS"] != chosen.kafka_bootstrap_servers:
            return {}, ""
        metrics: dict[str, str] = json.loads((up / ENDPOINTS).read_text())["metrics"]
        return {name: url.removesuffix("/metrics") for name, url in metrics.items()}, "lifecycle up"
    return {}, ""


def services(context: CheckContext) -> Iterator[Finding]:
    """Checks each service by its own `/readyz` and metrics."""
    if not context.services:
        detail = (
            "none is known: SERVICE_URLS is not set, and no `lifecycle up` with this Kafka runs in the state folder"
        )
        yield skipped(
            "services", detail, 'set SERVICE_URLS, as {"ingress": "http://…:8080", "ledger": "http://…:9100", …}'
        )
        return
    with ThreadPoolExecutor(min(16, len(context.services))) as pool:
        found = pool.map(scrape, context.services.values())
        for (name, url), status in zip(context.services.items(), found, strict=True):
            yield from _service_findings(context, name, url, status)
    # By the beginning of a name: SERVICE_URLS may list `ledger-1` and `ledger-2`.
    if unnamed := [name for name in SERVICES if not any(known.startswith(name) for known in context.services)]:
        detail = f"{context.services_source} names no {', '.join(unnamed)}"
        yield skipped("services", detail, f"add it to {context.services_source} to have it looked at")


def tenants(context: CheckContext) -> Iterator[Finding]:
    """Checks for unwell tenants: failed, or waiting too long."""
    context.kafka()
    config = {**context.settings.kafka, "log_level": 0}
    try:
        view = tenant_view.read(config, context.settings.topic_prefix, _READ_S)
    except KafkaError as error:
        yield skipped("tenants", in_words(error), "put that right, or read them with `lifecycle tenants list`")
        return
    unwell = [tenant for tenant in view.values() if is_unwell(tenant, context.now_us())]
    if not unwell:
        yield well("tenants", f"{len(view)} known, none is unwell")
        return
    stages = ", ".join(f"{count} {stage}" for stage, count in Counter(map(_stage_text, unwell)).most_common())
    keys = ", ".join(sorted(tenant.key for tenant in unwell)[:_MOST_NAMED])
    more = f" and {len(unwell) - _MOST_NAMED} more" if len(unwell) > _MOST_NAMED else ""
    cure = "`lifecycle tenants timeline KEY` says why; once its cause is gone, `lifecycle sagas retry KEY`"
    yield fault("tenants", f"{len(unwell)} of {len(view)} are unwell ({stages}): {keys}{more}", cure)


def _stage_text(tenant: Tenant) -> str:
    """Returns the stage of a tenant, with the reason in brackets."""
    return f"{tenant.stage} ({tenant.reason})" if tenant.reason else str(tenant.stage)


def _service_findings(context: CheckContext, name: str, url: str, status: ServiceStatus) -> Iterator[Finding]:
    """Yields the findings of a service: unanswered, unready, metrics beyond a limit, or well."""
    if status.unanswered:
        cure = f"start `lifecycle {name}`, or correct its URL in {context.services_source}; its log says why it ended"
        yield fault(name, f"{redacted_url(url)}: {status.unanswered}", cure)
        return
    found = [fault(name, f"not ready: {check}: {why}", _RESUMES) for check, why in status.faults.items()]
    found += [fault(name, f"{note}: {why}", _RESUMES) for note, why in status.notes.items()]
    for rule in _RULES:
        value = status.metrics.get(rule.metric)
        if value is not None and rule.is_fault(value):
            found.append(fault(name, rule.detail.format(value=value), rule.cure))
    for metric, value in status.metrics.items():
        if value > 0 and (circuits := _CIRCUITS.fullmatch(metric)):
            found.append(fault(name, *_circuit_fault(circuits[1], circuits[2], value)))
    if stale := _stale_run_fault(context, status):
        cure = "its log names what gave no information; `lifecycle reconcile --now` tries again and says why"
        found.append(fault(name, stale, cure))
    yield from found or [well(name, f"ready at {redacted_url(url)}")]


def _circuit_fault(what: str, step: str, number: float) -> tuple[str, str]:
    """Returns the fault and the remedy of outside systems of a step that are away, or refuse the operator."""
    if what == "refused":
        detail = f"the system {step} refuses the operator's credentials or set-up"
        return detail, "`lifecycle sagas list` shows its answer; put it right, and sagas go on"
    detail = (
        f"outside systems of step {step} that are left alone, because they do not answer or refuse us: {number:.0f}"
    )
    return detail, "`lifecycle sagas list` names them (why); put them right, and sagas go on by themselves"


def _stale_run_fault(context: CheckContext, status: ServiceStatus) -> str:
    """Returns the fault of a reconciler without a complete run for two intervals; empty without a fault.

    A reconciler in the middle of the first run has no fault either.
    """
    last_s = status.metrics.get("lifecycle_reconciler_last_success_timestamp_seconds") or 0.0
    if last_s <= 0:
        # Both gauges are 0 until their first event, so 0 means never.
        ended_s = status.metrics.get("lifecycle_reconciler_last_run_timestamp_seconds") or 0.0
        return "no whole run has ever left nothing unread, unwritten or held back" if ended_s > 0 else ""
    age_s = context.now_us() / 1_000_000 - last_s
    if age_s <= 2 * context.settings.reconcile_interval_s:
        return ""
    return f"its last run that left nothing unread, unwritten or held back was {age_s / 60:.0f} minutes ago"
