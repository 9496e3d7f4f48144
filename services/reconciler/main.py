"""The reconciler's process: an hourly run over everybody, and at once the keys that are owed a look.

Rule: one run at a time. A run that left an organisation unread is followed by another within seconds, then minutes.
What fails is said once and tried again; the loop is the only place that catches.
"""

import asyncio
import random
import signal
from dataclasses import dataclass, field
from typing import Final

from schemas.rights import Service
from schemas.values import Key
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.rights import RightsWatch
from services.adapters.process import clock, health, logs, metrics
from services.adapters.process.settings import Settings, Unusable
from services.adapters.secrets import keyring
from services.core.reconcile.recheck_schedule import due, unseen
from services.core.reconcile.reconcile import Action, Tenants, braked, is_asked
from services.reconciler.report import RunReport
from services.reconciler.run import RunRequest, RunResources, made, rules_of, run, sight

TICK_S: Final = 1.0
"""How soon a flag or a second look is noticed."""
JITTER: Final = 0.1
"""Part of the interval by which runs are moved, so that installations do not ask Genesys in step."""
FIRST_RUN_MAX_S: Final = 5.0
AGAIN_FIRST_S: Final = 15.0
"""After a run that left an organisation unread; doubled after each further one, up to the interval."""
TAKE_S: Final = 0.05


@dataclass(slots=True)
class _State:
    """What the loop knows between two ticks."""

    next_run_s: float
    again_s: float = AGAIN_FIRST_S
    fault: str = "not yet running"
    looked: dict[Key, int] = field(default_factory=dict)
    """When a key was looked at because it was owed a look."""
    sighted: set[Key] = field(default_factory=set)
    """Active keys that were looked for, to have seen them once."""


def main(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT.

    Raises:
        Unusable: brokers or key material are missing.
    """
    log = logs.configure("reconciler", settings.log_level)
    faults = []
    for needed in (lambda: settings.kafka, lambda: keyring.material(settings.keyring_file)):
        try:
            needed()
        except Unusable as fault:
            faults.append(str(fault))
    if faults:
        raise Unusable("\n".join(faults))
    return asyncio.run(_serve(settings, log))


async def _serve(settings: Settings, log: logs.Logger) -> int:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    hands = made(settings, clock.now_us)
    chance = random.Random()  # noqa: S311 - jitter, not a secret
    first_s = chance.uniform(0, min(FIRST_RUN_MAX_S, settings.reconcile_interval_s * JITTER))
    state = _State(asyncio.get_running_loop().time() + first_s)
    rights = RightsWatch(settings, Service.RECONCILER, log)
    watching = asyncio.create_task(rights.run(hands.producer), name="rights")
    stopping = asyncio.create_task(stop.wait(), name="stop")

    def checks() -> dict[str, str]:
        return {"view": state.fault, "rights": rights.fault}

    working = asyncio.create_task(_loop(hands, state, chance, log), name="reconcile")
    try:
        async with health.serve(checks, host=settings.host, port=settings.metrics_port) as port:
            log.info("started", metrics_port=port, interval_s=settings.reconcile_interval_s)
            await asyncio.wait((working, stopping, watching), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # A run may wait long for Genesys. What it published and did not remember is published again, and is the same.
        working.cancel()
        stopping.cancel()
        failed = watching.done()
        watching.cancel()
        await asyncio.wait((working,))
        await hands.close()
    if not working.cancelled():
        working.result()
    log.info("stopped")
    return 1 if failed else 0


async def _loop(hands: RunResources, state: _State, chance: random.Random, log: logs.Logger) -> None:
    while True:
        await _tick(hands, state, chance, log)
        await asyncio.sleep(TICK_S)


async def _tick(hands: RunResources, state: _State, chance: random.Random, log: logs.Logger) -> None:
    """One look at the clock and the view; never raises for what Kafka, Genesys or the disk may do."""
    try:
        await _work(hands, state, chance, log)
    except (KafkaError, OSError, Unusable) as error:
        fault = in_words(error) if isinstance(error, KafkaError) else str(error)
        if state.fault != fault:
            log.warning("waiting", fault=fault)
        state.fault = fault
    else:
        state.fault = ""


async def _work(hands: RunResources, state: _State, chance: random.Random, log: logs.Logger) -> None:
    now_s = asyncio.get_running_loop().time()
    tenants = await asyncio.to_thread(hands.view.follow, TAKE_S)
    _show(hands, tenants)
    if now_s >= state.next_run_s:
        report = await run(hands, RunRequest())
        interval_s = hands.settings.reconcile_interval_s
        if report.unanswered:
            interval_s = min(interval_s, state.again_s)
            state.again_s = 2 * interval_s
        else:
            state.again_s = AGAIN_FIRST_S
        state.next_run_s = asyncio.get_running_loop().time() + interval_s * chance.uniform(1 - JITTER, 1 + JITTER)
        state.looked.update(dict.fromkeys((key for key in tenants if is_asked(tenants[key])), hands.now_us()))
        _tell(report, log, "hourly")
        return
    memory = hands.sights.load()
    if keys := due(tenants, memory, state.looked, rules_of(hands, hands.now_us())):
        state.looked.update(dict.fromkeys(keys, hands.now_us()))
        _tell(await run(hands, RunRequest(keys=keys)), log, "due")
    elif keys := unseen(tenants, memory, state.sighted):
        state.sighted |= keys
        await sight(hands, keys)


def _show(hands: RunResources, tenants: Tenants) -> None:
    """Sets the gauges from what the state folder says, whichever process of it wrote that."""
    last = hands.sights.last()
    metrics.RECONCILE_STOPPED.set(braked(tenants, hands.sights.load(), hands.now_us()))
    metrics.RECONCILE_ENDED.set(last.ended_us / 1_000_000)
    metrics.RECONCILE_AGE.set(last.succeeded_us / 1_000_000)
    metrics.RECONCILE_UNREAD_KEYS.set(last.unread)
    metrics.RECONCILE_ORGANISATIONS.labels(result="read").set(last.read)
    metrics.RECONCILE_ORGANISATIONS.labels(result="unanswered").set(last.unanswered)


def _tell(report: RunReport, log: logs.Logger, occasion: str) -> None:
    for line in report.lines:
        told = log.warning if line.action is Action.UNREAD else log.info
        told("line", key=line.key, action=line.action.value, reason=line.reason)
    for refusal in report.refusals:
        log.warning("no information", scope=refusal.scope, reason=refusal.reason)
    if report.stopped is not None:
        stop = report.stopped
        log.error("stopped by the brake", absent=stop.absent, limit=stop.limit, approval=stop.approval)
    counts = {"read": len(report.read), "lines": len(report.lines), "unread": report.unread}
    log.info("run", occasion=occasion, **counts, published=report.published)
