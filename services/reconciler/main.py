"""Process of the reconciler: an hourly run over all organisations, and early runs for keys and organisation files.

Audits are followed beside the runs (`audits`), and name further keys.

Several instances may run: the owner of a lease is active, the rest stands by and only follows the view
(docs/decisions/0045). A take-over begins like a start: with the files of the state folder and a run.

Rule: one run at a time. After a run with an unread organisation, or a run cut off by a fault, the next run follows
within seconds, then minutes, up to the interval. A fault of Kafka, Genesys or the disk is logged once and the work is
tried again; `_tick` is the only place that catches. The sealer of the audit trail works beside the runs (`sealer`).
"""

import asyncio
import random
import signal
from dataclasses import dataclass, field
from typing import Final

from schemas.rights import Service
from schemas.topics import RECONCILER_GROUP, TENANTS, named
from schemas.values import Key
from services.adapters.genesys.organisations_watch import OrganisationsWatch
from services.adapters.kafka.partition_lease import NotActive, PartitionLease
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.rights import RightsWatch
from services.adapters.process import clock, health, logs, metrics, tracing
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ReconcilerSettings
from services.adapters.secrets import keyring
from services.core.reconcile.observed_state import awaits_recheck
from services.core.reconcile.onboarding import OrganisationState
from services.core.reconcile.recheck_schedule import RECHECK_EVERY_US, due, unseen
from services.core.reconcile.reconcile import Action, Memory, Tenants, is_braked
from services.core.rulings import in_force
from services.reconciler.audits import AuditFollower
from services.reconciler.fresh_files import FreshFiles
from services.reconciler.memory import to_end
from services.reconciler.report import RunReport
from services.reconciler.run import RunRequest, RunResources, open_resources, rules_of, run, sight
from services.reconciler.sealer import TrailSealer

TICK_S: Final = 1.0
"""Seconds between two looks at clock and view: the delay until a flag or a second look is noticed."""
JITTER: Final = 0.1
"""Part of the interval by which runs are moved, so that installations do not ask Genesys in step."""
FIRST_RUN_MAX_S: Final = 5.0
"""Longest delay of the first run after the start, in seconds."""
AGAIN_FIRST_S: Final = 15.0
"""Seconds to the next run after a run with an unread organisation, or cut off by a fault; doubled after each further
one, up to the interval. Also the seconds between two tries of a first sight."""
TAKE_S: Final = 0.05
"""Seconds that a tick waits for new records of the view."""


@dataclass(slots=True)
class _State:
    """State of the loop between two ticks.

    Attributes:
        next_run_s: Time of the next hourly run, in seconds of the event loop's clock.
        audits: The audits of all organisations, followed beside the runs.
        again_s: Seconds from a run with an unread organisation, or a run cut off by a fault, to the next run.
        is_cut_off: True while the last run that read Genesys has not ended without a fault.
        fault: Text of the present fault for `/readyz`; empty while there is none.
        looked: Key to the time of the last early look, microseconds UTC.
        owed: Key to the time when the view first showed that a re-check is owed, microseconds UTC.
        sighted: Active keys already looked for, to have a first sight.
        next_sight_s: Earliest time of the next first sight, in seconds of the event loop's clock.
        fresh: Organisation files that wait for an early run.
    """

    next_run_s: float
    audits: AuditFollower
    again_s: float = AGAIN_FIRST_S
    is_cut_off: bool = False
    fault: str = "not yet running"
    looked: dict[Key, int] = field(default_factory=dict)
    owed: dict[Key, int] = field(default_factory=dict)
    sighted: set[Key] = field(default_factory=set)
    next_sight_s: float = 0.0
    fresh: FreshFiles = field(default_factory=FreshFiles)


def main(settings: ReconcilerSettings) -> int:
    """Runs the reconciler until SIGTERM or SIGINT.

    Args:
        settings: The environment.

    Returns:
        The exit status: 0 after a signal; 1 after the producer has failed for good, since only a new process can
        publish again.

    Raises:
        Unusable: brokers or key material are missing.
    """
    log = logs.configure("reconciler", settings.log_level)
    # Both are tried before anything is raised: a bad environment names all its faults at once.
    faults = []
    for needed in (lambda: settings.kafka, lambda: keyring.material(settings.keyring_file)):
        try:
            needed()
        except Unusable as fault:
            faults.append(str(fault))
    if faults:
        raise Unusable("\n".join(faults))
    with tracing.exporting("reconciler", settings):
        return asyncio.run(_serve(settings, log))


async def _serve(settings: ReconcilerSettings, log: logs.Logger) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    topic, group = named(TENANTS, settings.topic_prefix), settings.topic_prefix + RECONCILER_GROUP
    lease = PartitionLease(settings.kafka, topic=topic, group=group)
    resources = open_resources(settings, clock.now_us, lease.confirm)
    jitter = random.Random()  # noqa: S311 - jitter, not a secret
    turns = _Turns(resources, lease, jitter, log)
    sealer = TrailSealer(settings, resources.producer, clock.now_us, log)
    _register_gauges(resources, sealer)
    rights = RightsWatch(settings, Service.RECONCILER, log)
    watching = asyncio.create_task(rights.run(resources.producer), name="rights")
    stopping = asyncio.create_task(stop.wait(), name="stop")

    def checks() -> dict[str, str]:
        return {"view": turns.fault, "lease": lease.fault, "rights": rights.fault}

    def notes() -> dict[str, str]:
        return {} if lease.is_held or lease.fault else {"lease": "standing by: another instance is active"}

    lease.start()
    working = asyncio.create_task(turns.take(), name="reconcile")
    sealing = asyncio.create_task(sealer.run(jitter), name="seal")
    try:
        async with health.serve("reconciler", checks, notes, host=settings.host, port=settings.metrics_port) as port:
            log.info("started", port=port, interval_s=settings.reconcile_interval_s)
            await asyncio.wait((working, stopping, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # A run is cut off, because it may wait long for Genesys. An observation published but not yet stored may be
        # published again by the next run, and changes nothing then.
        working.cancel()
        sealing.cancel()
        stopping.cancel()
        # Read before the cancel: the watch ends by itself only when the producer has failed for good.
        failed = watching.done()
        watching.cancel()
        await asyncio.wait((working, sealing))
        # After the work: the next instance begins at once.
        await lease.close()
        await resources.close()
    if not working.cancelled():
        working.result()  # raises the fault that ended the loop
    log.info("stopped")
    return 1 if failed else 0


class _Turns:
    """The turns of one process at being active."""

    def __init__(self, resources: RunResources, lease: PartitionLease, jitter: random.Random, log: logs.Logger) -> None:
        self._resources, self._lease, self._jitter, self._log = resources, lease, jitter, log
        self.fault = "not yet running"
        """Text of the present fault for `/readyz`; empty while there is none."""

    async def take(self) -> None:
        """Works while the lease is held, and stands by in between; until cancelled."""
        while True:
            held = self._lease.is_held
            metrics.RECONCILER_ACTIVE.set(held)
            if held:
                self._log.info("active")
            else:
                self._log.info("standing by")
            working = asyncio.create_task(self._work() if held else self._stand_by())
            changing = asyncio.create_task(self._lease.until(held=not held))
            try:
                await asyncio.wait((working, changing), return_when=asyncio.FIRST_COMPLETED)
            finally:
                working.cancel()
                changing.cancel()
                await asyncio.wait((working, changing))
            if not working.cancelled():
                working.result()  # raises the fault that ended the loop

    async def _work(self) -> None:
        settings, now_s = self._resources.settings, asyncio.get_running_loop().time()
        first_s = self._jitter.uniform(0, min(FIRST_RUN_MAX_S, settings.reconcile_interval_s * JITTER))
        audits = AuditFollower(settings, self._resources.readers, clock.now_us, self._log)
        state = _State(now_s + first_s, audits)
        # In threads, here and below: a thousand files, or a look at 50,000 keys, would hold up `/metrics`.
        files = await to_end(OrganisationsWatch, settings.orgs_dir, self._log)
        async with asyncio.TaskGroup() as tasks:
            if settings.reconcile_audit_interval_s:
                tasks.create_task(audits.run(), name="audits")
            while True:
                await _tick(self._resources, files, state, self._jitter, self._log)
                self.fault = state.fault
                await asyncio.sleep(TICK_S)

    async def _stand_by(self) -> None:
        """Follows the view, so that a take-over need not read it, and every instance counts the same tenants."""
        _clear_gauges()
        while True:
            try:
                await asyncio.to_thread(self._resources.view.follow, TAKE_S)
            except KafkaError as error:
                if self.fault != (fault := in_words(error)):
                    self._log.warning("waiting", why=fault)
                self.fault = fault
            else:
                self.fault = ""
            await asyncio.sleep(TICK_S)


async def _tick(
    resources: RunResources, files: OrganisationsWatch, state: _State, jitter: random.Random, log: logs.Logger
) -> None:
    """Does the work that is due; a fault of Kafka, Genesys or the disk is kept in `state` and never raised."""
    try:
        await _work(resources, files, state, jitter, log)
    except (KafkaError, NotActive, OSError, Unusable) as error:
        fault = in_words(error) if isinstance(error, KafkaError) else str(error)
        if state.fault != fault:
            log.warning("waiting", why=fault)
        state.fault = fault
    else:
        # After a run cut off by a fault the fault stands until a run ends without one.
        state.fault = state.fault if state.is_cut_off else ""


async def _work(
    resources: RunResources, files: OrganisationsWatch, state: _State, jitter: random.Random, log: logs.Logger
) -> None:
    """Runs the hourly run if its time has come; else the organisations that are due; else first sights and due keys."""
    now_s = asyncio.get_running_loop().time()
    await _look_at_files(resources, files, state, now_s)
    tenants = await asyncio.to_thread(resources.view.follow, TAKE_S)
    # To its end: a thread that goes on after the lease is lost would set what a stand-by has cleared.
    await to_end(_set_gauges, resources, files, tenants)
    if now_s >= state.next_run_s:
        interval_s = resources.settings.reconcile_interval_s
        pause_s = min(interval_s, state.again_s)
        has_read = False

        def reading() -> None:
            nonlocal has_read
            has_read = state.is_cut_off = True
            state.again_s = 2 * pause_s

        began_us = resources.now_us()
        try:
            report = await run(resources, RunRequest(removals=state.audits.removals()), reading)
        finally:
            # A run that fails after Genesys was read must not be repeated every second. The pause counts from the end:
            # a run may wait for the lock, and read for longer than the first pauses.
            if has_read:
                state.next_run_s = asyncio.get_running_loop().time() + pause_s
        state.is_cut_off = False
        state.fresh.clear()
        if not report.unanswered:
            pause_s, state.again_s = interval_s, AGAIN_FIRST_S
        state.next_run_s = asyncio.get_running_loop().time() + pause_s * jitter.uniform(1 - JITTER, 1 + JITTER)
        # The whole run has also looked at the keys with an owed re-check.
        state.looked.update(dict.fromkeys((key for key in tenants if awaits_recheck(tenants[key])), resources.now_us()))
        _log_report(report, log, "hourly")
        await state.audits.was_read(report, None, began_us)
        return
    began_us = resources.now_us()
    if orgs := state.fresh.due(tenants, now_s):
        await _run_fresh(resources, state, orgs, log)
        return
    memory = await asyncio.to_thread(resources.sights.load)
    # Before the keys that are due: these may be due at every tick, and an absence counts only after the first sight.
    if now_s >= state.next_sight_s and (keys := await asyncio.to_thread(unseen, tenants, memory, state.sighted)):
        # Set before the sight; a sight without a fault, of organisations that all answer, lifts the pause.
        state.next_sight_s = now_s + AGAIN_FIRST_S
        unlisted = await sight(resources, keys)
        state.sighted |= keys - unlisted
        if not unlisted:
            state.next_sight_s = now_s
    keys = await asyncio.to_thread(_due, resources, state, tenants, memory, began_us)
    if keys := keys | state.audits.due(state.looked):
        # Marked before the run: a run that fails must not be repeated every second.
        state.looked.update(dict.fromkeys(keys, resources.now_us()))
        report = await run(resources, RunRequest(keys=keys, removals=state.audits.removals()))
        _log_report(report, log, "due")
        await state.audits.was_read(report, keys, began_us)


def _due(resources: RunResources, state: _State, tenants: Tenants, memory: Memory, began_us: int) -> frozenset[Key]:
    """Returns the keys to read now because of the view or the memory; the loop of the process waits meanwhile."""
    # Older looks bind nothing: the keys that hints have named must not fill the memory.
    state.looked = {key: at_us for key, at_us in state.looked.items() if began_us - at_us < RECHECK_EVERY_US}
    state.owed = {key: state.owed.get(key, began_us) for key, tenant in tenants.items() if awaits_recheck(tenant)}
    return due(tenants, memory, state.looked, state.owed, rules_of(resources, began_us))


async def _run_fresh(resources: RunResources, state: _State, orgs: frozenset[str], log: logs.Logger) -> None:
    """Runs over organisations with an added or changed file; a run that fails is due again (`FreshFiles.due`)."""
    began_us = resources.now_us()
    report = await run(resources, RunRequest(orgs=orgs, removals=state.audits.removals()))
    state.fresh.drop(orgs)
    _log_report(report, log, "file")
    await state.audits.was_read(report, None, began_us)
    if report.unanswered:
        state.next_run_s = min(state.next_run_s, asyncio.get_running_loop().time() + AGAIN_FIRST_S)


async def _look_at_files(resources: RunResources, files: OrganisationsWatch, state: _State, now_s: float) -> None:
    """Looks at the organisation files once; plans early runs and first sights, and forgets removed credentials."""
    changes = await asyncio.to_thread(files.look, now_s)
    state.fresh.note(changes, now_s)
    if touched := changes.added | changes.changed:
        # Other credentials may see what the former did not: the tenants are looked for once more.
        state.sighted = {key for key in state.sighted if key.partition(":")[0] not in touched}
    resources.readers.forget(changes.removed)


def _register_gauges(resources: RunResources, sealer: TrailSealer) -> None:
    """Registers the counts of the view and the age of what is unsealed, read at a scrape."""
    census = resources.census

    def by_stage() -> dict[tuple[str, ...], float]:
        return {(stage or "none", reason): number for (stage, reason), number in census.by_stage().items()}

    metrics.RECONCILER_UNSEALED_S.set_function(lambda: {(): sealer.unsealed_age_s})
    metrics.RECONCILER_TENANTS.set_function(by_stage)
    metrics.RECONCILER_FLAGGED.set_function(lambda: {(flag,): number for flag, number in census.flagged().items()})
    metrics.RECONCILER_OLDEST_TENANT_S.set_function(
        lambda: {(stage,): age_s for stage, age_s in census.oldest_s(resources.now_us()).items()}
    )


def _clear_gauges() -> None:
    """Sets the gauges of the state folder to 0: a stand-by's folder may be old, and boards take the greatest value."""
    for gauge in (
        metrics.RECONCILER_BRAKE,
        metrics.RECONCILER_HELD,
        metrics.RECONCILER_LAST_RUN,
        metrics.RECONCILER_LAST_SUCCESS,
        metrics.RECONCILER_UNREAD_KEYS,
        metrics.RECONCILER_AUDITED_KEYS,
        metrics.RECONCILER_OLDEST_SYNC_S,
        *(metrics.RECONCILER_ORGANISATIONS.labels(result=result) for result in ("read", "unanswered")),
        *(metrics.RECONCILER_FILES.labels(state=state) for state in ("usable", "broken")),
    ):
        gauge.set(0)


def _set_gauges(resources: RunResources, files: OrganisationsWatch, tenants: Tenants) -> None:
    """Sets the gauges from the state folder, so a run of another process is counted as well. Blocks."""
    last = resources.sights.last()
    metrics.RECONCILER_BRAKE.set(_is_braked(resources, tenants))
    # An organisation whose file was removed is not compared any more, so nothing waits for an approval.
    held = [
        org_id for org_id, admission in resources.sights.admissions().items() if admission is OrganisationState.HELD
    ]
    metrics.RECONCILER_HELD.set(len(files.known.intersection(held)))
    metrics.RECONCILER_LAST_RUN.set(last.ended_us / 1_000_000)
    metrics.RECONCILER_LAST_SUCCESS.set(last.succeeded_us / 1_000_000)
    metrics.RECONCILER_UNREAD_KEYS.set(last.unread)
    metrics.RECONCILER_ORGANISATIONS.labels(result="read").set(last.read)
    metrics.RECONCILER_ORGANISATIONS.labels(result="unanswered").set(last.unanswered)


def _is_braked(resources: RunResources, tenants: Tenants) -> bool:
    now_us = resources.now_us()
    return is_braked(tenants, resources.sights.load(), now_us, in_force(resources.sights.refusals(), now_us))


def _log_report(report: RunReport, log: logs.Logger, occasion: str) -> None:
    for line in report.lines:
        write = log.warning if line.action is Action.UNREAD else log.info
        write("line", key=line.key, action=line.action.value, why=line.reason)
    for refusal in report.refusals:
        org, _, integration = refusal.scope.partition(":")
        log.warning("no information", org=org, key=refusal.scope if integration else None, why=refusal.reason)
    if report.stopped is not None:
        stop = report.stopped
        log.error("stopped by the brake", absent=stop.absent, limit=stop.limit, approval=stop.approval)
    for one in report.held:
        log.error("first comparison held", org=one.org_id, newcomers=one.newcomers, approval=one.approval)
    log.info(
        "run",
        occasion=occasion,
        read=len(report.read),
        lines=len(report.lines),
        unread=report.unread,
        published=report.published,
    )
