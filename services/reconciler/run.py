"""One run: read the organisations, compare with the view, publish what differs, remember what was seen.

Rule: the plan is made before anything is published, and a dry run ends there. Memory is saved whole before and after
publishing, so that a crash repeats an observation and never skips a second look.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

from schemas import codec
from schemas.event import Observed
from schemas.genesys import Organisation, Reading
from schemas.tenant import Tenant
from schemas.topics import RECEIVED, TENANTS, named
from schemas.values import Key
from services.adapters.genesys import organisations
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process import metrics
from services.adapters.process.settings import Settings, Unusable
from services.adapters.secrets import keyring
from services.core.delivery.topic_rules import judge
from services.core.reconcile.reconcile import (
    PlanLine,
    ReconcilePlan,
    ReconcileRules,
    Sight,
    approval_of,
    compare,
    remember,
    seen,
)
from services.reconciler.memory import Sights
from services.reconciler.reading import Readers
from services.reconciler.report import NO_CREDENTIALS, NOT_WHOLE, NOT_WRITTEN, Refusal, RunReport, last_of

SOURCE: Final = "/genesys-lifecycle/reconciler"
LINGER_MS: Final = 5
PUBLISH_TIMEOUT_MS: Final = 30_000
VIEW_TIMEOUT_S: Final = 60.0
_ASK_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class RunResources:
    """What a run works with, made once a process.

    Attributes:
        settings: The environment.
        configuration_key: Of `configuration_mac`.
        view: The tenants; blocking, so asked for in a thread.
        sights: The memory.
        readers: The clients.
        producer: Of observations.
        now_us: Our clock.
    """

    settings: Settings
    configuration_key: bytes
    view: TenantView
    sights: Sights
    readers: Readers
    producer: Producer
    now_us: Callable[[], int]

    async def close(self) -> None:
        """Let everything go."""
        await self.readers.close()
        await asyncio.to_thread(self.view.close)
        await self.producer.close(PUBLISH_TIMEOUT_MS / 1000)


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run is asked to do.

    Attributes:
        dry_run: Plan, and stop there.
        orgs: Only these organisations; None for all.
        keys: Only these keys; None for all.
        approval: An operator's word for one set of removals.
    """

    dry_run: bool = False
    orgs: Collection[str] | None = None
    keys: Collection[Key] | None = None
    approval: str | None = None

    @property
    def whole(self) -> bool:
        """True if nobody is left out and what differs is published."""
        return not self.dry_run and self.orgs is None and self.keys is None


async def run_once(
    settings: Settings,
    *,
    now: Callable[[], int],
    dry_run: bool,
    orgs: Collection[str] | None = None,
    keys: Collection[Key] | None = None,
    approval: str | None = None,
) -> RunReport:
    """One run over all organisations, or over `orgs` or `keys`: what `lifecycle reconcile --now` does.

    Args:
        settings: Kafka, keyring, ORGS_DIR, Genesys, state folder.
        now: Our clock, microseconds UTC.
        dry_run: Plan, and stop there: nothing is published or remembered.
        orgs: Organisation ids; None for all.
        keys: Only these tenants; None for all.
        approval: `stopped.approval` of an earlier report, to remove exactly that set.

    Raises:
        Unusable: brokers or key material are missing, or `approval` approves nothing of this run.
        KafkaError: the view cannot be read.
    """
    hands = made(settings, now)
    try:
        return await run(hands, RunRequest(dry_run=dry_run, orgs=orgs, keys=keys, approval=approval))
    finally:
        await hands.close()


def made(settings: Settings, now_us: Callable[[], int]) -> RunResources:
    """Make the hands.

    Raises:
        Unusable: brokers or key material are missing.
    """
    key = keyring.raw(keyring.material(settings.keyring_file).configuration)
    return RunResources(
        settings=settings,
        configuration_key=key,
        view=TenantView(settings.kafka, settings.topic_prefix),
        sights=Sights(settings.state_dir),
        readers=Readers(settings, now_us),
        producer=Producer(settings.kafka, linger_ms=LINGER_MS, timeout_ms=PUBLISH_TIMEOUT_MS),
        now_us=now_us,
    )


async def run(hands: RunResources, asked: RunRequest) -> RunReport:
    """Read, compare, publish, remember; alone in its state folder.

    Raises:
        KafkaError: the view cannot be read.
        Unusable: the approval is not that of the plan; nothing was published or remembered.
    """
    async with hands.sights.alone():
        if wrong := await asyncio.to_thread(_wrong_topics, hands.settings):
            raise KafkaError(wrong)
        began_us = hands.now_us()
        known = organisations.load(hands.settings.orgs_dir)
        readings, refusals = await _readings(hands, known, await _tenants(hands), asked)
        # The view again: what arrived while Genesys was read is no difference.
        tenants, memory = await _tenants(hands), hands.sights.load()
        rules = rules_of(hands, began_us, asked.approval)
        plan = compare(readings, tenants, memory, rules, asked.keys)
        _judge_approval(asked.approval, approval_of(plan.lines))
        written: dict[Key, Sight] = {}
        if not asked.dry_run:
            hands.sights.save({**memory, **plan.memory})
            written, failed = await _publish(hands, plan)
            refusals += failed
            hands.sights.save({**memory, **plan.memory, **written})
        waiting = [sight.doubt.since_us for sight in {**plan.memory, **written}.values() if sight.doubt is not None]
        report = RunReport(
            dry_run=asked.dry_run,
            read=tuple(sorted(reading.org_id for reading, _ in readings)),
            lines=plan.lines,
            refusals=tuple(refusals),
            published=len(written),
            stopped=plan.stopped,
            look_again_at_us=min(waiting) + rules.second_look_us if waiting else None,
        )
        metrics.RECONCILE_UNREAD.inc(report.unread)
        if asked.whole:
            hands.sights.save_last(last_of(report, hands.sights.last(), hands.now_us()))
    return report


def _wrong_topics(settings: Settings) -> str:
    """Why nothing may be published; empty text when the topic is as the table says. Blocks."""
    table = {named(topic, settings.topic_prefix): topic for topic in (RECEIVED, TENANTS)}
    seen = named(TENANTS, settings.topic_prefix)
    with TopicWatcher(settings.kafka, table, timeout_s=_ASK_S, only_read={seen}) as looking:
        found = looking.look()
    return "; ".join(judge(table, found, None).wrong.values())


def _judge_approval(given: str | None, wanted: str | None) -> None:
    """An approval is of one set of removals: where the run has another set, or none, nothing was approved."""
    if given is None or given == wanted:
        return
    what = "this run removes nobody" if wanted is None else f"the removals of this run are approved with {wanted}"
    raise Unusable(f"--approve: {given!r}: {what}; nothing was done. `lifecycle reconcile --dry-run` shows the plan")


async def sight(hands: RunResources, keys: Collection[Key]) -> None:
    """Look once whether Genesys lists these keys, so that their absence can mean something one day."""
    async with hands.sights.alone():
        known = organisations.load(hands.settings.orgs_dir).known
        orgs = sorted({key.partition(":")[0] for key in keys} & known.keys())
        readings = await asyncio.gather(*(hands.readers.listed(known[org_id]) for org_id in orgs))
        memory = hands.sights.load()
        hands.sights.save(seen((reading for reading in readings if isinstance(reading, Reading)), keys, memory))


def rules_of(hands: RunResources, began_us: int, approval: str | None = None) -> ReconcileRules:
    """The rules as they are now, of a run that began then."""
    second_look_us = int(hands.settings.reconcile_second_look_s * 1_000_000)
    return ReconcileRules(began_us, hands.now_us(), second_look_us, hands.configuration_key, approval)


async def _tenants(hands: RunResources) -> Mapping[Key, Tenant]:
    return await asyncio.to_thread(hands.view.catch_up, VIEW_TIMEOUT_S)


def _wanted(known: organisations.Organisations, tenants: Mapping[Key, Tenant], asked: RunRequest) -> list[str]:
    if asked.keys is not None:
        return sorted({key.partition(":")[0] for key in asked.keys})
    if asked.orgs is not None:
        return sorted({org_id.lower() for org_id in asked.orgs})
    held = {key.partition(":")[0] for key, tenant in tenants.items() if tenant.installed}
    return sorted(held | known.known.keys() | known.faults.keys())


async def _readings(
    hands: RunResources,
    known: organisations.Organisations,
    tenants: Mapping[Key, Tenant],
    asked: RunRequest,
) -> tuple[list[tuple[Reading, Organisation]], list[Refusal]]:
    wanted = _wanted(known, tenants, asked)

    async def one(org_id: str) -> Reading | str:
        organisation = known.known.get(org_id)
        if organisation is None:
            fault = known.faults.get(org_id)
            return NO_CREDENTIALS if fault is None else f"organisation file: {fault}"
        return await hands.readers.read(organisation, tenants, asked.keys)

    results = await asyncio.gather(*(one(org_id) for org_id in wanted))
    refusals = [Refusal(org_id, why) for org_id, why in zip(wanted, results, strict=True) if isinstance(why, str)]
    read = [(reading, known.known[reading.org_id]) for reading in results if isinstance(reading, Reading)]
    refusals += [Refusal(reading.org_id, f"{NOT_WHOLE}{reason}") for reading, _ in read for reason in reading.odd]
    metrics.RECONCILE_RUNS.labels(result="read").inc(len(read))
    metrics.RECONCILE_RUNS.labels(result="no_information").inc(len(results) - len(read))
    return read, refusals


async def _publish(hands: RunResources, plan: ReconcilePlan) -> tuple[dict[Key, Sight], list[Refusal]]:
    """Write the plan's observations; returns what to remember of those acknowledged, and what was not."""
    if plan.stopped is not None:
        return {}, []
    lines = [(line, line.observed) for line in plan.lines if line.observed is not None]
    results = await asyncio.gather(*(_write(hands, line, observation) for line, observation in lines))
    written, failed = {}, []
    for (line, observation), fault in zip(lines, results, strict=True):
        if fault is None:
            written[line.key] = remember(plan.memory[line.key], observation)
            metrics.RECONCILE_OBSERVATIONS.labels(cause=observation.cause).inc()
        else:
            failed.append(Refusal(line.key, f"{NOT_WRITTEN}{fault}"))
    return written, failed


async def _write(hands: RunResources, line: PlanLine, observation: Observed) -> str | None:
    message = codec.encode(
        observation,
        key=line.key,
        ce_id=f"{line.key}/r:{observation.read_at}",
        source=SOURCE,
        at_us=observation.read_at,
    )
    try:
        await hands.producer.acked(named(RECEIVED, hands.settings.topic_prefix), message)
    except KafkaError as error:
        return error.reason
    return None
