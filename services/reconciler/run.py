"""One reconciliation run: reads the organisations, compares with the view, publishes differences, stores the sights.

Rule: the plan is complete before anything is published, and a dry run ends with the plan. The order of a run:

    1. lock the state folder, so that only one process runs
    2. check the topics: a misconfigured topic takes no observation
    3. read Genesys, and release the configurations that agree with the view
    4. read the view (again) and the memory, and compare; hold organisations with too many newcomers
    5. ask the broker whether this instance is still the active one
    6. save the memory, publish the observations, save the memory with the published observations

The view is read after Genesys, because an event that arrived meanwhile must not look like a difference. The memory is
saved before and after publishing: a crash in between may publish an observation twice, and never skips a second look.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from schemas import codec
from schemas.event import Observed
from schemas.genesys import Organisation, Reading
from schemas.rights import Service
from schemas.tenant import Tenant
from schemas.topics import RECEIVED, TENANTS, Topic, named
from schemas.values import Key
from services.adapters.genesys import organisations
from services.adapters.genesys.answers import NoInformation, Unanswered
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.tenant_view import TenantView
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process import metrics, tracing
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ReconcilerSettings
from services.adapters.process.tracing import Attribute, Roots, SpanKind
from services.adapters.secrets import keyring
from services.core.delivery.topic_rules import judge
from services.core.reconcile.audit_gaps import removals
from services.core.reconcile.observed_state import released
from services.core.reconcile.onboarding import HeldOrganisation, OrganisationStates, admissions_after, held_back
from services.core.reconcile.reconcile import (
    Action,
    Memory,
    PlanLine,
    ReconcilePlan,
    ReconcileRules,
    Removals,
    Sight,
    by_organisation,
    compare,
    remember,
    seen,
)
from services.core.reconcile.tenant_census import TenantCensus
from services.core.rulings import in_force, without_keys
from services.reconciler.audit_memory import AuditMemory
from services.reconciler.memory import Sights, to_end
from services.reconciler.reading import Readers
from services.reconciler.report import NO_CREDENTIALS, NOT_WHOLE, NOT_WRITTEN, Refusal, RunReport, last_of

SOURCE: Final = "/genesys-lifecycle/reconciler"
"""CloudEvents source of the observations."""
LINGER_MS: Final = 5
PUBLISH_TIMEOUT_MS: Final = 30_000
VIEW_TIMEOUT_S: Final = 60.0
"""Seconds to read the topic of the view up to its end."""
_TOPICS_TIMEOUT_S: Final = 5.0
"""Seconds for the broker's answer about the topics."""


@dataclass(frozen=True, slots=True)
class RunResources:
    """Long-lived objects of the runs in one process.

    Attributes:
        settings: The environment.
        configuration_key: Key of `configuration_mac`.
        view: The view of the tenants; its calls block and run in a thread.
        census: Counts of the view, for the metrics.
        sights: The memory in the state folder.
        readers: The API clients of the organisations.
        producer: Producer of the observations.
        now_us: Our clock, microseconds UTC.
        roots: Begins the traces of the observations; None while traces are off.
        confirm: Raises `NotActive` if another instance of the service is active; an operator's run needs no lease.
    """

    settings: ReconcilerSettings
    configuration_key: bytes
    view: TenantView
    census: TenantCensus
    sights: Sights
    readers: Readers
    producer: Producer
    now_us: Callable[[], int]
    roots: Roots | None
    confirm: Callable[[], Awaitable[None]]

    async def close(self) -> None:
        """Closes the connections to Genesys and Kafka; waits up to `PUBLISH_TIMEOUT_MS` for unacknowledged records."""
        await self.readers.close()
        await asyncio.to_thread(self.view.close)
        await self.producer.close(PUBLISH_TIMEOUT_MS / 1000)


class OtherSet(Unusable):
    """The approval of a run names another set than the run has; nothing was published or stored."""


@dataclass(frozen=True, slots=True)
class ApprovedSet:
    """The set of keys that an operator's approval names.

    Attributes:
        org_id: The organisation whose newcomers are approved; None for removals.
        keys: The keys to create or to remove, sorted.
    """

    org_id: str | None
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class RunRequest:
    """Scope and mode of one run.

    Attributes:
        dry_run: True to end with the plan: nothing is published or stored.
        orgs: Only these organisations; None for all.
        keys: Only these keys; None for all.
        approval: An operator's approval of one set of removals or of one organisation's newcomers, or None.
        on_approved: Called with the approved set before anything of the set is published or stored; an exception ends
            the run. None if no approval is given.
        named: Keys that an operator named: the report says so if such a key exists nowhere.
        removals: The audit of each key that its newest audit calls removed.
    """

    dry_run: bool = False
    orgs: Collection[str] | None = None
    keys: Collection[Key] | None = None
    approval: str | None = None
    on_approved: Callable[[ApprovedSet], Awaitable[None]] | None = None
    named: Collection[Key] = ()
    removals: Removals = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """True if the run reads every organisation and key, and publishes the differences."""
        return not self.dry_run and self.orgs is None and self.keys is None


async def run_once(
    settings: ReconcilerSettings,
    *,
    now: Callable[[], int],
    dry_run: bool,
    orgs: Collection[str] | None = None,
    keys: Collection[Key] | None = None,
    approval: str | None = None,
    on_approved: Callable[[ApprovedSet], Awaitable[None]] | None = None,
) -> RunReport:
    """Runs once, with resources of its own: `lifecycle reconcile`.

    Args:
        settings: Environment: Kafka, keyring, ORGS_DIR, Genesys, state folder.
        now: Our clock, microseconds UTC.
        dry_run: True to end with the plan: nothing is published or stored.
        orgs: Only these organisations; None for all.
        keys: Only these keys; None for all.
        approval: `stopped.approval` of an earlier report, to remove exactly the keys of that plan; or the approval of
            an organisation in `held`, to create exactly its tenants; or None.
        on_approved: As of `RunRequest`.

    Raises:
        Unusable: brokers or key material are missing.
        OtherSet: `approval` is of no set of this run.
        KafkaError: the view cannot be read, or a topic is misconfigured.
        OSError: the state folder cannot be read or written.
    """
    resources = open_resources(settings, now, _unleased)
    try:
        # As in the service, or an operator would be told of another set of removals than the service holds.
        cursors = await asyncio.to_thread(AuditMemory(settings.state_dir).load)
        # While no service reads audits, a removal in the file may have been followed by a restore.
        of_audits = removals(cursors.values()) if settings.reconcile_audit_interval_s else {}
        request = RunRequest(dry_run, orgs, keys, approval, on_approved, named=keys or (), removals=of_audits)
        return await run(resources, request)
    finally:
        await resources.close()


async def _unleased() -> None:
    """Confirms always: the lock of the state folder is all that an operator's run waits for."""


def open_resources(
    settings: ReconcilerSettings, now_us: Callable[[], int], confirm: Callable[[], Awaitable[None]]
) -> RunResources:
    """Returns the resources of a process; the caller closes them.

    Args:
        settings: The environment.
        now_us: Our clock, microseconds UTC.
        confirm: Raises `NotActive` if another instance of the service is active.

    Raises:
        Unusable: brokers or key material are missing.
    """
    key = keyring.raw(keyring.material(settings.keyring_file).configuration)
    census = TenantCensus()
    return RunResources(
        settings=settings,
        configuration_key=key,
        view=TenantView(settings.kafka, settings.topic_prefix, census.replace),
        census=census,
        sights=Sights(settings.state_dir),
        readers=Readers(settings, now_us),
        producer=Producer(settings.kafka, linger_ms=LINGER_MS, timeout_ms=PUBLISH_TIMEOUT_MS),
        now_us=now_us,
        roots=tracing.roots(settings.traces_ratio, SpanKind.PRODUCER),
        confirm=confirm,
    )


async def run(resources: RunResources, request: RunRequest, on_reading: Callable[[], None] = lambda: None) -> RunReport:
    """Runs once, in the order given at the top of this file; waits while another process runs.

    Args:
        resources: The resources of the process.
        request: Scope and mode of the run.
        on_reading: Called before Genesys is read.

    Raises:
        KafkaError: the view cannot be read, or a topic is misconfigured.
        OtherSet: the approval does not match the plan; nothing was published or stored.
        OSError: the state folder cannot be read or written.
        NotActive: another instance is active; nothing was published or stored.
    """
    async with resources.sights.hold_lock():
        if wrong := await asyncio.to_thread(wrong_topics, resources.settings, RECEIVED, TENANTS):
            raise KafkaError(wrong)
        began_us = resources.now_us()
        known = await asyncio.to_thread(organisations.load, resources.settings.orgs_dir)
        tenants = await _tenants(resources)
        on_reading()
        readings, refusals = await _readings(resources, known, tenants, request)
        # The view again: an event that arrived while Genesys was read must not look like a difference.
        tenants = await _tenants(resources)
        memory = await asyncio.to_thread(resources.sights.load)
        # After both reads, because `now_us` of the rules promises that no answer of this run is newer.
        rules = await asyncio.to_thread(rules_of, resources, began_us, request.approval)
        # In a thread: a comparison of 50,000 keys would hold up `/metrics` and the audits for seconds.
        plan = await asyncio.to_thread(
            compare, readings, tenants, memory, rules, request.keys, request.named, request.removals
        )
        admissions: OrganisationStates = await asyncio.to_thread(resources.sights.admissions)
        over = await asyncio.to_thread(held_back, readings, tenants, admissions)
        approved = _approved(request.approval, plan, over)
        if approved is not None and request.on_approved is not None:
            await request.on_approved(approved)
        held = tuple(one for one in over if one.approval != request.approval)
        written: dict[Key, Sight] = {}
        if not request.dry_run:
            # A process that was paused while it read may have been replaced by another one.
            await resources.confirm()
            # Before publishing: a crash while Kafka is slow must not lose the first sights of this run.
            memory = {**memory, **plan.memory}
            admissions = await to_end(_keep_sights, resources, memory, admissions, held)
            written, failed = await _publish(resources, plan, held)
            refusals += failed
            unwritten = {refusal.scope.partition(":")[0] for refusal in failed}
            published = set() if plan.stopped is not None else {reading.org_id for reading, _ in readings} - unwritten
            outcome = _Outcome({**memory, **written}, held, published, _removed(approved, written))
            await to_end(_keep_outcome, resources, outcome, admissions)
        waiting = [sight.doubt.since_us for sight in {**plan.memory, **written}.values() if sight.doubt is not None]
        report = RunReport(
            dry_run=request.dry_run,
            read=tuple(sorted(reading.org_id for reading, _ in readings)),
            plan=plan,
            refusals=tuple(refusals),
            published=len(written),
            held=held,
            look_again_at_us=min(waiting) + rules.second_look_us if waiting else None,
            tenants=tenants,
        )
        metrics.RECONCILER_UNREAD.inc(report.unread)
        # A partial run says nothing about the organisations left out and must not move the time of the last success.
        if request.whole:
            await to_end(_save_last, resources, report)
    return report


def wrong_topics(settings: ReconcilerSettings, *topics: Topic) -> str:
    """Returns why nothing may be published; empty if the topics are as the topic table declares. Blocks."""
    table = {named(topic, settings.topic_prefix): topic for topic in topics}
    only_read = {name for name, topic in table.items() if Service.RECONCILER not in topic.writers}
    with TopicWatcher(settings.kafka, table, timeout_s=_TOPICS_TIMEOUT_S, only_read=only_read) as watcher:
        found = watcher.look()
    return "; ".join(judge(table, found, None).wrong.values())


def _keep_sights(
    resources: RunResources, memory: Memory, admissions: OrganisationStates, held: tuple[HeldOrganisation, ...]
) -> OrganisationStates:
    """Saves the memory and the held organisations of a run; returns the states of the organisations."""
    resources.sights.save(memory)
    # Likewise: a held organisation must not pass for one with tenants once a webhook makes the first of them.
    return _remember_admissions(resources, admissions, held, set())


@dataclass(frozen=True, slots=True)
class _Outcome:
    """Outcome of a run's publication, to be stored.

    Attributes:
        memory: The memory of all keys.
        held: Organisations held by the run.
        published: Organisations read by the run, with every difference published.
        approved: Removed keys that an operator approved.
    """

    memory: Memory
    held: tuple[HeldOrganisation, ...]
    published: set[str]
    approved: frozenset[Key]


def _removed(approved: ApprovedSet | None, written: Mapping[Key, Sight]) -> frozenset[Key]:
    """Returns the approved removals that were published."""
    return (
        frozenset()
        if approved is None or approved.org_id is not None
        else frozenset(written).intersection(approved.keys)
    )


def _keep_outcome(resources: RunResources, outcome: _Outcome, admissions: OrganisationStates) -> None:
    """Saves the outcome of a run."""
    resources.sights.save(outcome.memory)
    # After publishing: an approval is honoured once, and a crash before this line asks the operator again.
    _remember_admissions(resources, admissions, outcome.held, outcome.published)
    # An approval outweighs an earlier refusal for good: else the next absence of a key would stay refused.
    if outcome.approved:
        _forget_refusals(resources, outcome.approved)


def _save_last(resources: RunResources, report: RunReport) -> None:
    resources.sights.save_last(last_of(report, resources.sights.last(), resources.now_us()))


def _remember_admissions(
    resources: RunResources,
    before: OrganisationStates,
    held: tuple[HeldOrganisation, ...],
    published: set[str],
) -> OrganisationStates:
    """Saves the states of the organisations if a state has changed, and returns the states."""
    after = admissions_after(before, held, published)
    if after != before:
        resources.sights.save_admissions(after)
    return after


def _forget_refusals(resources: RunResources, keys: frozenset[Key]) -> None:
    before = resources.sights.refusals()
    after = without_keys(before, keys, resources.now_us())
    if after != before:
        resources.sights.save_refusals(after)


def _approved(given: str | None, plan: ReconcilePlan, over: tuple[HeldOrganisation, ...]) -> ApprovedSet | None:
    """Returns the set that the operator approved: the removals, or one organisation's newcomers, of this plan.

    Args:
        given: The operator's approval, or None.
        plan: The plan.
        over: Organisations with too many newcomers.

    Raises:
        OtherSet: the approval is for another set, which may have changed since the operator saw the plan.
        Unusable: the approval is of newcomers, and the brake holds the run.
    """
    if given is None:
        return None
    if given == plan.approval:
        return ApprovedSet(None, plan.offered)
    for one in over:
        if given == one.approval and plan.stopped is not None:
            raise Unusable(
                f"--approve: {given!r}: the brake holds this run: rule on its removals first; nothing was done"
            )
        if given == one.approval:
            return ApprovedSet(one.org_id, one.keys)
    wanted = [] if plan.approval is None else [f"the removals of this run are approved with {plan.approval}"]
    if kept := sum(line.action is Action.KEEP for line in plan.lines):
        wanted.append(f"{kept} removals were refused, and are approved by KEY alone")
    wanted += [f"the {one.newcomers} new tenants of {one.org_id} are approved with {one.approval}" for one in over]
    what = "; ".join(wanted) or "this run removes nobody and holds no new tenants"
    raise OtherSet(f"--approve: {given!r}: {what}; nothing was done. `lifecycle reconcile --report` shows all")


async def sight(resources: RunResources, keys: frozenset[Key]) -> frozenset[Key]:
    """Reads the listings of the keys' organisations once, and stores the first sight of each listed key.

    Without a first sight the absence of a key never counts (docs/decisions/0001).

    Args:
        resources: The resources of the process.
        keys: Active keys without a sight.

    Returns:
        The keys of organisations that gave no listing: such a key is still to be looked for.
    """
    async with resources.sights.hold_lock():
        known = (await asyncio.to_thread(organisations.load, resources.settings.orgs_dir)).known
        orgs = sorted({key.partition(":")[0] for key in keys} & known.keys())
        readings = await asyncio.gather(*(resources.readers.listed(known[org_id]) for org_id in orgs))
        listed = [reading for reading in readings if isinstance(reading, Reading)]
        await to_end(_save_seen, resources, listed, keys)
    unlisted = set(orgs) - {reading.org_id for reading in listed}
    return frozenset(key for key in keys if key.partition(":")[0] in unlisted)


def _save_seen(resources: RunResources, listed: list[Reading], keys: frozenset[Key]) -> None:
    resources.sights.save(seen(listed, keys, resources.sights.load()))


def rules_of(resources: RunResources, began_us: int, approval: str | None = None) -> ReconcileRules:
    """Returns the rules of a run, with the present time as the end of the reads. Blocks.

    Args:
        resources: The resources of the process.
        began_us: Our clock before the first read, microseconds UTC.
        approval: An operator's approval of one set of removals, or None.
    """
    second_look_us, now_us = int(resources.settings.reconcile_second_look_s * 1_000_000), resources.now_us()
    refused = in_force(resources.sights.refusals(), now_us)
    return ReconcileRules(began_us, now_us, second_look_us, resources.configuration_key, approval, refused)


async def _tenants(resources: RunResources) -> Mapping[Key, Tenant]:
    return await asyncio.to_thread(resources.view.catch_up, VIEW_TIMEOUT_S)


def _orgs_to_read(known: organisations.Organisations, tenants: Mapping[Key, Tenant], request: RunRequest) -> list[str]:
    if request.keys is not None:
        return sorted({key.partition(":")[0] for key in request.keys})
    if request.orgs is not None:
        return sorted({org_id.lower() for org_id in request.orgs})
    held = {key.partition(":")[0] for key, tenant in tenants.items() if tenant.installed}
    # Also organisations without a usable file: the report must name each of them.
    return sorted(held | known.known.keys() | known.faults.keys())


async def _readings(
    resources: RunResources,
    known: organisations.Organisations,
    tenants: Mapping[Key, Tenant],
    request: RunRequest,
) -> tuple[list[tuple[Reading, Organisation]], list[Refusal]]:
    """Reads the organisations of a run at once; returns the complete readings, and why the rest has none.

    Of the configurations that agree with the view only the MACs are returned (`released`).
    """
    wanted = _orgs_to_read(known, tenants, request)
    own = by_organisation(tenants)

    async def read_organisation(org_id: str) -> Reading | NoInformation:
        organisation = known.known.get(org_id)
        if organisation is None:
            fault = known.faults.get(org_id)
            why = NO_CREDENTIALS if fault is None else f"organisation file: {fault}"
            return NoInformation(why, sort=Unanswered.NO_CREDENTIALS)
        reading = await resources.readers.read(organisation, own.get(org_id, {}), request.keys)
        if isinstance(reading, NoInformation):
            return reading
        # At once, and in a thread: the hashes of an organisation take milliseconds, its configurations most of the
        # memory of a run.
        return await asyncio.to_thread(
            released, reading, organisation, own.get(org_id, {}), resources.configuration_key
        )

    results = await asyncio.gather(*(read_organisation(org_id) for org_id in wanted))
    unanswered = [
        (org_id, none) for org_id, none in zip(wanted, results, strict=True) if isinstance(none, NoInformation)
    ]
    refusals = [Refusal(org_id, none.reason) for org_id, none in unanswered]
    read = [(reading, known.known[reading.org_id]) for reading in results if isinstance(reading, Reading)]
    refusals += [Refusal(reading.org_id, f"{NOT_WHOLE}{reason}") for reading, _ in read for reason in reading.odd]
    metrics.RECONCILER_READS.labels(result="read").inc(len(read))
    for _, none in unanswered:
        metrics.RECONCILER_READS.labels(result=none.sort).inc()
    return read, refusals


async def _publish(
    resources: RunResources, plan: ReconcilePlan, held: tuple[HeldOrganisation, ...]
) -> tuple[dict[Key, Sight], list[Refusal]]:
    """Publishes the observations of a plan except those of held organisations, and none while the brake holds.

    Returns:
        The new memory of each key with an acknowledged observation, and a refusal for each observation that failed.
    """
    if plan.stopped is not None:
        return {}, []
    waiting = {one.org_id for one in held}
    lines = [
        (line, line.observed)
        for line in plan.lines
        if line.observed is not None and line.key.partition(":")[0] not in waiting
    ]
    results = await asyncio.gather(*(_write(resources, line, observation) for line, observation in lines))
    written, failed = {}, []
    for (line, observation), fault in zip(lines, results, strict=True):
        if fault is None:
            written[line.key] = remember(plan.memory[line.key], observation)
            metrics.RECONCILER_OBSERVATIONS.labels(cause=observation.cause).inc()
        else:
            failed.append(Refusal(line.key, f"{NOT_WRITTEN}{fault}"))
    return written, failed


async def _write(resources: RunResources, line: PlanLine, observation: Observed) -> str | None:
    """Publishes one observation; returns None after the delivery report, or why Kafka did not acknowledge."""
    # Like the uid in the ledger, made of the time of the read and not of the time of writing.
    ce_id, began_us = f"{line.key}/r:{observation.read_at}", resources.now_us()
    roots = resources.roots
    trace = None if roots is None else roots.begin(sha256(ce_id.encode()).digest(), began_us)
    message = codec.encode(
        observation,
        key=line.key,
        ce_id=ce_id,
        source=SOURCE,
        at_us=observation.read_at,
        trace=None if trace is None else trace.decode("ascii"),
    )
    try:
        await resources.producer.send_and_wait(named(RECEIVED, resources.settings.topic_prefix), message)
    except KafkaError as error:
        return error.reason
    if roots is not None and trace is not None and roots.is_sampled(trace):
        took_s = (resources.now_us() - began_us) / 1_000_000
        roots.end(trace, f"send {RECEIVED.name}", took_s, None, _details(line.key, observation))
    return None


def _details(key: Key, observation: Observed) -> dict[str, Attribute]:
    return {
        "lifecycle.key": key,
        "lifecycle.cause": observation.cause,
        "messaging.system": "kafka",
        "messaging.operation.type": "send",
        "messaging.destination.name": RECEIVED.name,
    }
