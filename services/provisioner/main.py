"""The process: settings → registry, producer, consumer, kinds; intake, runner and outbox until SIGTERM.

Rule: it starts when its configuration can be used, also while Kafka or the registry is away: then `/readyz` says which,
nothing is lost, and work goes on when they are back. Intake may stop for good; sagas that are known go on.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import uvloop

from schemas.rights import Service
from schemas.topics import DESIRED, named
from services.adapters.kafka.group_consumer import Consumer, OffsetLoss
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.rights import RightsWatch
from services.adapters.process import clock, health, logs
from services.adapters.process.logs import Logger
from services.adapters.process.settings import Settings, Unusable, required
from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway, usable
from services.adapters.secrets import keyring
from services.adapters.secrets.sealing import Sealer
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan
from services.provisioner import kinds, unwell
from services.provisioner.bulkhead import SystemGates
from services.provisioner.caller import Caller, StepHandler
from services.provisioner.intake import Intake, Stopped
from services.provisioner.outbox import Outbox
from services.provisioner.plans import PlanBook, plan_text, settings_for_plans
from services.provisioner.recovery import GROUP, Recovery
from services.provisioner.runner import Runner, RunnerLimits
from services.provisioner.turn_planner import TurnPlanner

_LINGER_MS: Final = 5.0
_MESSAGE_TIMEOUT_MS: Final = 10_000
_AGAIN_S: Final = 2.0
_LOOK_S: Final = 0.1
_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class StepHandlers:
    """What carries the plan out.

    Attributes:
        kinds: By their names in the plan.
        secret: Kind to the names of its outputs that are sealed.
        plan: The text of the plan.
    """

    kinds: Mapping[str, StepHandler]
    secret: Mapping[str, frozenset[str]]
    plan: str


@dataclass(slots=True)
class _Parts:
    registry: Registry
    producer: Producer
    runner: Runner
    outbox: Outbox
    rights: RightsWatch
    intake_fault: str = "not started"
    intake: Intake | None = None
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def intake_is_well(self) -> None:
        self.intake_fault = ""

    def checks(self) -> dict[str, str]:
        return {
            "registry": self.runner.standing.fault,
            "intake": self.intake_fault,
            "outbox": self.outbox.fault,
            "rights": self.rights.fault,
        }


def main(settings: Settings, *, accept_older: bool = False) -> int:
    """Run the provisioner until SIGTERM or SIGINT.

    Args:
        settings: Of the process.
        accept_older: Go on with a registry that is older than what was said from it.

    Returns:
        0 after a clean stop, 1 when the producer failed for good.

    Raises:
        Unusable: with every fault of the configuration.
    """
    log = logs.configure("provisioner", settings.log_level)
    return uvloop.run(_main(settings, log, accept_older=accept_older))


async def _main(settings: Settings, log: Logger, *, accept_older: bool) -> int:
    built = kinds.build(settings, log)
    try:
        hands = StepHandlers(built, kinds.SECRET_OUTPUTS, plan_text(settings, built))
        return await serve(settings, hands, log, accept_older=accept_older)
    finally:
        for kind in built.values():
            await kind.close()


async def serve(settings: Settings, hands: StepHandlers, log: Logger, *, accept_older: bool = False) -> int:
    """Run with the given hands until SIGTERM or SIGINT.

    Raises:
        Unusable: with every fault of the configuration.
    """
    parts = _parts(settings, hands, log, accept_older=accept_older)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parts.stopping.set)
    async with health.serve(parts.checks, host=settings.host, port=settings.metrics_port) as port:
        log.info("listening", port=port)
        try:
            watching = asyncio.create_task(parts.rights.run(parts.producer), name="rights")
            # It ends only for a producer that will never write: ours is the next process.
            watching.add_done_callback(lambda _: parts.stopping.set())
            if await _registry_starts(parts, log):
                await _work(settings, parts, log)
        finally:
            failed = watching.done()
            watching.cancel()
            await parts.producer.close(_CLOSE_S)
            await parts.registry.close()
    log.info("stopped")
    return 1 if failed else 0


def _parts(settings: Settings, hands: StepHandlers, log: Logger, *, accept_older: bool) -> _Parts:
    registry = Registry(
        usable("DATABASE_URL", required(settings, "database_url", "kafka_bootstrap_servers")),
        schema=SCHEMA,
        lease_s=settings.lease_s,
        worker=f"{socket.gethostname()}/{os.getpid()}",
        org_limit=settings.org_sagas_at_once,
    )
    registry.unreadable = lambda key, why: log.error("row cannot be read", key=key, why=why)
    pace = Pace(
        first_s=settings.retry_first_s,
        most_s=settings.retry_most_s,
        unwell_s=settings.unwell_after_s,
        again_first_s=settings.provision_again_s,
    )
    material = keyring.material(settings.keyring_file)
    sealer, audit_key = Sealer(material.outputs), keyring.raw(material.audit[0])
    try:
        plans = PlanBook(
            registry, text=hands.plan, kinds=hands.kinds.keys(), settings=settings_for_plans(settings), pace=pace
        )
    except BadPlan as error:
        raise Unusable("\n".join(f"PLAN_FILE: {fault}" for fault in error.faults)) from None
    runner = Runner(
        registry,
        TurnPlanner(
            plans,
            Caller(hands.kinds, hands.secret, sealer, audit_key, log),
            SystemGates(settings.system_calls_at_once, time.monotonic, log, settings.retry_most_s),
            log,
        ),
        RunnerLimits(settings.sagas_at_once, settings.lease_s, pace),
        log=log,
    )
    recovery = Recovery(registry, plans, settings.kafka, prefix=settings.topic_prefix, accept=accept_older, log=log)
    recovery.is_stopping, recovery.tell = runner.is_stopping, runner.standing.note
    runner.standing.prove = recovery.prove
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)
    outbox = Outbox(registry, producer, prefix=settings.topic_prefix, log=log)
    outbox.may_publish = runner.standing.is_proved
    runner.on_outbox_written = outbox.wake
    return _Parts(registry, producer, runner, outbox, RightsWatch(settings, Service.PROVISIONER, log))


async def _registry_starts(parts: _Parts, log: Logger) -> bool:
    """Wait for the registry; False when asked to stop before it came."""
    while not parts.stopping.is_set():
        try:
            await parts.registry.start()
            await parts.runner.prepare()
        except RegistryAway as error:
            parts.runner.standing.note(str(error))
            log.warning("waiting for the registry", why=str(error))
            await _pause(parts.stopping, _AGAIN_S)
        else:
            return True
    return False


async def _work(settings: Settings, parts: _Parts, log: Logger) -> None:
    outbox = asyncio.create_task(parts.outbox.run(), name="outbox")
    runner = asyncio.create_task(parts.runner.run(), name="runner")
    intake = asyncio.create_task(_take_in(settings, parts, log), name="intake")
    stop = asyncio.create_task(parts.stopping.wait(), name="stop")
    watching = asyncio.create_task(unwell.watch(parts.registry, settings.unwell_after_s), name="unwell")
    await asyncio.wait({outbox, runner, intake, stop, watching}, return_when=asyncio.FIRST_COMPLETED)
    parts.stopping.set()
    watching.cancel()
    if parts.intake is not None:
        parts.intake.stop()
    parts.runner.stop()
    await asyncio.wait({runner, intake})
    parts.outbox.stop()
    await outbox
    runner.result()
    intake.result()
    if not watching.cancelled() and watching.done():
        watching.result()  # it ends only by an error that nobody foresaw


async def _take_in(settings: Settings, parts: _Parts, log: Logger) -> None:
    """Read until asked to stop, with a new consumer after a broker said no; not before the registry is proved."""
    while not (parts.runner.standing.is_proved() or parts.stopping.is_set()):
        await _pause(parts.stopping, _LOOK_S)
    while not parts.stopping.is_set():
        group = settings.topic_prefix + GROUP
        consumer = Consumer(
            settings.kafka,
            topic=named(DESIRED, settings.topic_prefix),
            group=group,
            # A fixed port is this process's own on its host, before a crash and after.
            member=f"{socket.gethostname()}-{settings.metrics_port}" if settings.metrics_port else None,
            session_timeout_s=settings.session_timeout_s,
        )
        intake = Intake(
            consumer, parts.registry, parts.producer, prefix=settings.topic_prefix, now_us=clock.now_us, log=log
        )
        intake.may_store = parts.runner.standing.is_proved
        intake.on_stored = parts.runner.wake
        intake.well = parts.intake_is_well
        parts.intake = intake
        try:
            await intake.run()
        except (Stopped, OffsetLoss) as error:
            parts.intake_fault = str(error)
            log.critical("intake stopped", why=str(error), group=group)
            break
        except KafkaError as error:
            parts.intake_fault = in_words(error)
            log.warning("intake begins anew", why=parts.intake_fault)
            await _pause(parts.stopping, _AGAIN_S)
        except RegistryAway:
            break
        finally:
            await consumer.close()
    await parts.stopping.wait()


async def _pause(stopping: asyncio.Event, at_most_s: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await stopping.wait()
