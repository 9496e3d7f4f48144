"""Process of the provisioner: builds the parts from the settings and runs them until SIGTERM or SIGINT.

One event loop runs the intake (Kafka to registry), the runner (sagas), the outbox (registry to Kafka), a census of
the registry, a watch of the Kafka rights, and the health endpoints.

Rule: the process starts with any usable configuration, also while Kafka or the registry is away. `/readyz` names the
missing dependency, nothing is lost, and work goes on once the dependency is back. Intake may stop for good; known
sagas go on. The intake reads, and the outbox publishes, only after the registry guard has proved the registry: both
would hide a registry older than its published outcomes.
"""

import asyncio
import os
import signal
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Final

import uvloop

from schemas.rights import Service
from schemas.topics import DESIRED, named
from services.adapters.kafka.group_consumer import Consumer, OffsetLoss
from services.adapters.kafka.producer import KafkaError, Producer
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.rights import RightsWatch
from services.adapters.postgres.url import usable
from services.adapters.process import clock, health, logs, tracing
from services.adapters.process.errors import Unusable
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings, required
from services.adapters.registry.registry import SCHEMA, Registry, RegistryAway
from services.adapters.registry.types import RemovalRules
from services.adapters.secrets import keyring
from services.adapters.secrets.sealing import Sealer
from services.adapters.system_gates import SystemGates
from services.adapters.tenant_file import TenantFile
from services.core.saga.kind_traits import KindTraits
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan
from services.core.saga.system_breaker import SystemBreaker
from services.provisioner import kinds
from services.provisioner.caller import Caller, StepHandler
from services.provisioner.census import CensusWatch
from services.provisioner.confirmation import Confirmation
from services.provisioner.intake import Intake, IntakeHooks, Stopped
from services.provisioner.outbox import Outbox
from services.provisioner.plans import PlanBook, settings_for_plans, text_and_plan
from services.provisioner.recovery import GROUP, Recovery
from services.provisioner.registry_guard import RegistryGuard
from services.provisioner.removals import RemovalGate
from services.provisioner.runner import Runner, RunnerLimits
from services.provisioner.telemetry import show_circuits
from services.provisioner.turn_planner import TurnPlanner

_LINGER_MS: Final = 5.0
_MESSAGE_TIMEOUT_MS: Final = 10_000
"""Shorter than the registry's time limit for an idle transaction: the outbox waits for delivery reports inside one."""
_RETRY_S: Final = 2.0
_PROOF_POLL_S: Final = 0.1
_CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class StepHandlers:
    """Handlers of the plan's steps, with the plan.

    Attributes:
        kinds: Kind in the plan to step handler.
        traits: Kind in the plan to traits.
        plan: Text of the plan, TOML.
    """

    kinds: Mapping[str, StepHandler]
    traits: Mapping[str, KindTraits]
    plan: str


@dataclass(slots=True)
class _Parts:
    registry: Registry
    registry_guard: RegistryGuard
    producer: Producer
    outbox: Outbox
    runner: Runner
    rights: RightsWatch
    census: CensusWatch
    confirmation: Confirmation | None
    stopping: asyncio.Event
    intake_fault: str = "not started"
    intake: Intake | None = None

    def clear_intake_fault(self) -> None:
        self.intake_fault = ""

    def checks(self) -> dict[str, str]:
        """Returns the checks of `/readyz`: dependency to fault; empty text without a fault."""
        return {
            "registry": self.registry_guard.fault,
            "intake": self.intake_fault,
            "outbox": self.outbox.fault,
            "rights": self.rights.fault,
        }


def main(settings: ProvisionerSettings, *, accept_older: bool = False) -> int:
    """Runs the provisioner until SIGTERM or SIGINT.

    Args:
        settings: Settings of the process.
        accept_older: True to recover and use a registry older than its published outcomes.

    Returns:
        0 after a clean stop, 1 if the producer failed for good.

    Raises:
        Unusable: the configuration cannot be used; the text names the faults found.
    """
    log = logs.configure("provisioner", settings.log_level)
    with tracing.exporting("provisioner", settings):
        return uvloop.run(_main(settings, log, accept_older=accept_older))


async def _main(settings: ProvisionerSettings, log: Logger, *, accept_older: bool) -> int:
    built = kinds.build(settings, log)
    try:
        text, plan = text_and_plan(settings, kinds.TRAITS)
        if faults := await kinds.faults_of(built, plan):
            raise Unusable("\n".join(f"PLAN_FILE: {settings.plan_file}: {fault}" for fault in faults))
        step_handlers = StepHandlers(built, kinds.TRAITS, text)
        return await serve(settings, step_handlers, log, accept_older=accept_older)
    finally:
        for kind in built.values():
            await kind.close()


async def serve(
    settings: ProvisionerSettings, step_handlers: StepHandlers, log: Logger, *, accept_older: bool = False
) -> int:
    """Runs the provisioner with the given step handlers until SIGTERM or SIGINT.

    Args:
        settings: Settings of the process.
        step_handlers: Handlers and plan; the caller closes the handlers.
        log: Logger of the service.
        accept_older: True to recover and use a registry older than its published outcomes.

    Returns:
        0 after a clean stop, 1 if the producer failed for good.

    Raises:
        Unusable: the configuration cannot be used; the text names the faults found.
    """
    parts = _build(settings, step_handlers, log, accept_older=accept_older)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, parts.stopping.set)
    async with health.serve("provisioner", parts.checks, host=settings.host, port=settings.metrics_port) as port:
        log.info("started", port=port)
        try:
            rights_watch = asyncio.create_task(parts.rights.run(parts.producer), name="rights")
            # The watch ends only for a producer that failed for good: only a new process can write again.
            rights_watch.add_done_callback(lambda _: parts.stopping.set())
            if await _start_registry(parts, log):
                await _work(settings, parts, log)
        finally:
            # Read before `cancel`, which would make the task done as well.
            failed = rights_watch.done()
            rights_watch.cancel()
            await parts.producer.close(_CLOSE_S)
            if parts.confirmation is not None:
                await parts.confirmation.close()
            await parts.registry.close()
    log.info("stopped")
    return 1 if failed else 0


def _build(settings: ProvisionerSettings, step_handlers: StepHandlers, log: Logger, *, accept_older: bool) -> _Parts:
    """Builds the parts, each after the parts it calls; the registry is not connected yet.

    Raises:
        Unusable: a setting, the keyring or the plan cannot be used.
    """
    registry = Registry(
        usable("DATABASE_URL", required(settings, "database_url", "kafka_bootstrap_servers")),
        schema=SCHEMA,
        lease_s=settings.lease_s,
        worker=f"{socket.gethostname()}/{os.getpid()}",
        on_unreadable=lambda key, why: log.error("row cannot be read", key=key, why=why),
        org_limit=settings.org_sagas_at_once,
    )
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
            registry,
            text=step_handlers.plan,
            kinds=step_handlers.traits,
            settings=settings_for_plans(settings),
            pace=pace,
        )
    except BadPlan as error:
        raise Unusable("\n".join(f"PLAN_FILE: {fault}" for fault in error.faults)) from None
    stopping, tenant_file = asyncio.Event(), TenantFile(settings.tenants_file, log)
    recovery = Recovery(
        registry,
        plans,
        tenant_file,
        settings.kafka,
        prefix=settings.topic_prefix,
        accept_older=accept_older,
        is_stopping=stopping.is_set,
        log=log,
    )
    # The runner has the registry proved before a claim. Outbox and intake only ask for the result.
    registry_guard = RegistryGuard(registry, recovery.prove, log)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)
    outbox = Outbox(registry, producer, may_publish=registry_guard.is_proved, prefix=settings.topic_prefix, log=log)
    new_breaker = partial(SystemBreaker, settings.retry_most_s)
    gates = SystemGates(settings.system_calls_at_once, new_breaker, time.monotonic, log)
    show_circuits(plans.steps, gates.away, gates.refusing)
    rules = RemovalRules(settings.removals_at_once, settings.removals_percent, settings.removals_window_s)
    confirms = settings.confirm_removals
    confirmation = None if confirms == "off" else Confirmation(settings, clock.now_us, log)
    runner = Runner(
        registry,
        registry_guard,
        TurnPlanner(
            plans,
            Caller(step_handlers.kinds, step_handlers.traits, sealer, audit_key, log),
            RemovalGate(registry, rules, confirmation, needs_answer=confirms == "always"),
            gates,
            tenant_file,
            log,
        ),
        RunnerLimits(settings.sagas_at_once, settings.lease_s, pace),
        on_outbox_written=outbox.wake,
        log=log,
    )
    rights = RightsWatch(settings, Service.PROVISIONER, log)
    census = CensusWatch(registry, settings.unwell_after_s, rules, log)
    return _Parts(registry, registry_guard, producer, outbox, runner, rights, census, confirmation, stopping)


async def _start_registry(parts: _Parts, log: Logger) -> bool:
    """Starts the registry and stores the plan, with retries; returns False if the process is to stop before."""
    while not parts.stopping.is_set():
        try:
            await parts.registry.start()
            await parts.runner.prepare()
        except RegistryAway as error:
            parts.registry_guard.note_fault(str(error))
            log.warning("waiting for the registry", why=str(error))
            await _pause(parts.stopping, _RETRY_S)
        else:
            return True
    return False


async def _work(settings: ProvisionerSettings, parts: _Parts, log: Logger) -> None:
    """Runs the tasks until a stop is requested or one of them ends by an unexpected error, which is raised."""
    outbox = asyncio.create_task(parts.outbox.run(), name="outbox")
    runner = asyncio.create_task(parts.runner.run(), name="runner")
    intake = asyncio.create_task(_run_intake(settings, parts, log), name="intake")
    stop = asyncio.create_task(parts.stopping.wait(), name="stop")
    census_watch = asyncio.create_task(parts.census.run(), name="census")
    await asyncio.wait({outbox, runner, intake, stop, census_watch}, return_when=asyncio.FIRST_COMPLETED)
    parts.stopping.set()
    census_watch.cancel()
    if parts.intake is not None:
        parts.intake.stop()
    parts.runner.stop()
    # The outbox stops last: the final turns of the runner write outcomes, and one further batch publishes them.
    await asyncio.wait({runner, intake})
    parts.outbox.stop()
    await outbox
    # Raise the errors of the tasks.
    runner.result()
    intake.result()
    if not census_watch.cancelled() and census_watch.done():
        census_watch.result()


async def _run_intake(settings: ProvisionerSettings, parts: _Parts, log: Logger) -> None:
    """Runs the intake until the process stops, with a new consumer after each error of the broker.

    An intake that stopped for good (`Stopped`, `OffsetLoss`) is not started again, and the process stays up for its
    known sagas; `/readyz` has the reason.
    """
    hooks = IntakeHooks(
        may_store=parts.registry_guard.is_proved, on_polled=parts.clear_intake_fault, on_stored=parts.runner.wake
    )
    while not (parts.registry_guard.is_proved() or parts.stopping.is_set()):
        await _pause(parts.stopping, _PROOF_POLL_S)
    while not parts.stopping.is_set():
        group = settings.topic_prefix + GROUP
        consumer = Consumer(
            settings.kafka,
            topic=named(DESIRED, settings.topic_prefix),
            group=group,
            # Static membership: a restarted process gets its partitions back without a rebalance. The name must be
            # unique in the group and equal after a crash, as host and fixed port are.
            member=f"{socket.gethostname()}-{settings.metrics_port}" if settings.metrics_port else None,
            session_timeout_s=settings.session_timeout_s,
        )
        intake = Intake(
            consumer, parts.registry, parts.producer, hooks, prefix=settings.topic_prefix, now_us=clock.now_us, log=log
        )
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
            await _pause(parts.stopping, _RETRY_S)
        except RegistryAway:
            break  # raised only after `Intake.stop`
        finally:
            await consumer.close()
    # An end of this task would stop the process: see `_work`.
    await parts.stopping.wait()


async def _pause(stopping: asyncio.Event, at_most_s: float) -> None:
    """Waits for `at_most_s` seconds, less if the process is to stop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await stopping.wait()
