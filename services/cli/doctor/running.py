"""Checks of what runs: the services' own `/readyz` and metrics, and the tenants that are unwell."""

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
from services.cli.environment import ENDPOINTS, NoUp, left_by_up
from services.core.unwell import is_unwell
from services.core.url_redaction import shown

SERVICES: Final = ("ingress", "ledger", "provisioner", "reconciler")
"""Those without which the journey stands still."""

_LAG_S: Final = 60.0
_READ_S: Final = 8.0
_NAMED: Final = 3
_REFUSES: Final = re.compile(r"lifecycle_saga_system_refuses\{(.*)\}")
_GO_ON: Final = "put right what it names; it goes on by itself"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What a metric must not say: the name of a sample, when it counts as a fault, the sentence, and the cure."""

    metric: str
    is_fault: Callable[[float], bool]
    told: str
    cure: str


_RULES: Final = (
    _Rule(
        "lifecycle_reconcile_stopped",
        lambda value: value > 0,
        "the brake holds a run that would remove too many tenants",
        "`lifecycle reconcile --now` shows them, and the word that approves exactly these removals",
    ),
    _Rule(
        "lifecycle_ledger_lag_seconds",
        lambda value: value > _LAG_S,
        "the first unread record has waited {value:.0f} s",
        "its log says what it waits for; more ledgers share the partitions",
    ),
    _Rule(
        "lifecycle_saga_systems_away",
        lambda value: value > 0,
        "outside systems that are left alone, because they do not answer or refuse us: {value:.0f}",
        "`lifecycle sagas list` names them (why); put them right, and sagas go on by themselves",
    ),
    _Rule(
        "lifecycle_reconcile_unread_keys",
        lambda value: value > 0,
        "{value:.0f} keys could not be read, or not whole, in its last whole run",
        "`lifecycle reconcile --now` reads them again and says of each why",
    ),
    _Rule(
        "lifecycle_reconcile_organisations{unanswered}",
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


def known(chosen: Settings, up: Path) -> tuple[Mapping[str, str], str]:
    """The running services: those of SERVICE_URLS, else those of the `up` in a state folder; and how they are known.

    The services of an `up` count only beside its own Kafka: beside another one they are another installation's.
    """
    if chosen.service_urls:
        return chosen.service_urls, "SERVICE_URLS"
    with suppress(OSError, ValueError, KeyError, AttributeError, TypeError, NoUp):
        if left_by_up(up)["KAFKA_BOOTSTRAP_SERVERS"] != chosen.kafka_bootstrap_servers:
            return {}, ""
        metrics: dict[str, str] = json.loads((up / ENDPOINTS).read_text())["metrics"]
        return {name: url.removesuffix("/metrics") for name, url in metrics.items()}, "lifecycle up"
    return {}, ""


def services(asked: CheckContext) -> Iterator[Finding]:
    """Each service that is known, as it says itself."""
    if not asked.services:
        told = "none is known: SERVICE_URLS is not set, and no `lifecycle up` with this Kafka runs in the state folder"
        yield skipped(
            "services", told, 'set SERVICE_URLS, as {"ingress": "http://…:8080", "ledger": "http://…:9100", …}'
        )
        return
    with ThreadPoolExecutor(min(16, len(asked.services))) as pool:
        found = pool.map(scrape, asked.services.values())
        for (name, url), standing in zip(asked.services.items(), found, strict=True):
            yield from _judged(asked, name, url, standing)
    if unnamed := [name for name in SERVICES if not any(known.startswith(name) for known in asked.services)]:
        told = f"{asked.known_by} names no {', '.join(unnamed)}"
        yield skipped("services", told, f"add it to {asked.known_by} to have it looked at")


def tenants(asked: CheckContext) -> Iterator[Finding]:
    """The tenants that somebody may have to help."""
    asked.kafka()
    config = {**asked.settings.kafka, "log_level": 0}
    try:
        view = tenant_view.read(config, asked.settings.topic_prefix, _READ_S)
    except KafkaError as error:
        yield skipped("tenants", in_words(error), "put that right, or read them with `lifecycle tenants list`")
        return
    unwell = [tenant for tenant in view.values() if is_unwell(tenant, asked.now_us())]
    if not unwell:
        yield well("tenants", f"{len(view)} known, none is unwell")
        return
    stages = ", ".join(f"{count} {stage}" for stage, count in Counter(map(_standing, unwell)).most_common())
    keys = ", ".join(sorted(tenant.key for tenant in unwell)[:_NAMED])
    more = f" and {len(unwell) - _NAMED} more" if len(unwell) > _NAMED else ""
    cure = "`lifecycle tenants timeline KEY` says why; once its cause is gone, `lifecycle sagas retry KEY`"
    yield fault("tenants", f"{len(unwell)} of {len(view)} are unwell ({stages}): {keys}{more}", cure)


def _standing(tenant: Tenant) -> str:
    return f"{tenant.stage} ({tenant.reason})" if tenant.reason else str(tenant.stage)


def _judged(asked: CheckContext, name: str, url: str, standing: ServiceStatus) -> Iterator[Finding]:
    if standing.unanswered:
        cure = f"start `lifecycle {name}`, or correct its URL in {asked.known_by}; its log says why it ended"
        yield fault(name, f"{shown(url)}: {standing.unanswered}", cure)
        return
    found = [fault(name, f"not ready: {check}: {why}", _GO_ON) for check, why in standing.faults.items()]
    found += [fault(name, f"{note}: {why}", _GO_ON) for note, why in standing.notes.items()]
    for rule in _RULES:
        value = standing.metrics.get(rule.metric)
        if value is not None and rule.is_fault(value):
            found.append(fault(name, rule.told.format(value=value), rule.cure))
    for metric, value in standing.metrics.items():
        if value > 0 and (refuses := _REFUSES.fullmatch(metric)):
            told = f"the system {refuses[1]} refuses the operator's credentials or set-up"
            found.append(fault(name, told, "`lifecycle sagas list` shows its answer; put it right, and sagas go on"))
    if stale := _stale(asked, standing):
        cure = "its log names what gave no information; `lifecycle reconcile --now` tries again and says why"
        found.append(fault(name, stale, cure))
    yield from found or [well(name, f"ready at {shown(url)}")]


def _stale(asked: CheckContext, standing: ServiceStatus) -> str:
    """Why the last run that left nothing out is too long ago; empty text where it is not, or no run has ended yet."""
    last_s = standing.metrics.get("lifecycle_reconcile_last_success_timestamp_seconds") or 0.0
    if last_s <= 0:
        ended_s = standing.metrics.get("lifecycle_reconcile_last_run_timestamp_seconds") or 0.0
        return "no whole run has ever left nothing unread, unwritten or held back" if ended_s > 0 else ""
    age_s = asked.now_us() / 1_000_000 - last_s
    if age_s <= 2 * asked.settings.reconcile_interval_s:
        return ""
    return f"its last run that left nothing unread, unwritten or held back was {age_s / 60:.0f} minutes ago"
