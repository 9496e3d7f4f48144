"""The process: settings → keyring, producer, receiver, server; runs until SIGTERM.

Rule: it starts when its configuration can be used, also while Kafka is away (then it answers 503 and `/readyz` says
why); a configuration that cannot be used is refused with every fault at once.
"""

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, cast

import uvicorn
import uvloop
from starlette.applications import Starlette

from schemas.rights import Operation, Service
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from services.adapters.kafka.producer import Producer
from services.adapters.kafka.rights import RightsWatch
from services.adapters.process import clock, logs, metrics, open_files
from services.adapters.process.listening import listen
from services.adapters.process.settings import Settings, Unusable
from services.adapters.secrets.keyring_watch import KeyringWatch
from services.core.delivery.kafka_breaker import BreakerState
from services.ingress.app import Application
from services.ingress.drainer import Drainer, DrainerTopics
from services.ingress.endpoints import EndpointCredentials, endpoint_credentials
from services.ingress.http.asgi_bridge import operations_app
from services.ingress.http.connection import CONNECTIONS_MAX, Connection
from services.ingress.http.server import LifecycleHooks, Server
from services.ingress.kafka_watch import KafkaWatch
from services.ingress.receive import Receiver
from services.ingress.spools import SpoolLimits, Spools
from services.ingress.telemetry import Telemetry
from services.ingress.writer import FATAL, WriteLimits, Writer

_LINGER_MS: Final = 0.5
"""So long that what the writer hands over together travels together: without it the first record of a batch goes alone.
Beyond it nothing waits here; under load the writer gathers."""

_MESSAGE_TIMEOUT_MS: Final = 1500
"""Longer than our own wait for the report; librdkafka looks once a second."""

_IN_FLIGHT_MAX_BYTES: Final = 64 * 1024 * 1024

_BACKLOG: Final = 8192
_OTHER_FILES: Final = 1_000
"""Beside a file for each connection: spools, brokers, libraries."""

PLAIN: Final[dict[str, Any]] = {
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
}
"""What uvicorn shall leave out; a benchmark's bare servers leave out the same."""

_ANSWERS_S: Final = 3
"""What is owed when listening ends is answered within this: no answer takes longer than 2.7 s."""

_CLOSE_S: Final = 5.0
_SPARED: Final = frozenset({Operation.DESCRIBE_CONFIGS})
"""Without it topics are not compared with the table, and every delivery is taken."""


@dataclass(slots=True)
class _Health:
    """What `/readyz` says; empty text is well."""

    watch: KafkaWatch
    rights: RightsWatch
    draining: str = ""
    fatal: bool = False
    spools: Spools | None = None
    writer: Writer | None = None
    keyring: Callable[[], str] = str

    @property
    def _kafka(self) -> str:
        """Why a delivery would not be written to Kafka now."""
        failing = "" if self.writer is None else self.writer.failures.said(asyncio.get_running_loop().time())
        is_open = self.spools is not None and self.spools.breaker.state is not BreakerState.CLOSED
        fault = self.rights.fault or self.watch.fault
        return fault or failing or ("it was slow, or did not acknowledge in time" if is_open else "")

    def checks(self) -> dict[str, str]:
        """Faults that keep us from taking deliveries; with room in the spool a Kafka that is away is none."""
        spooling = self.spools is not None and self.spools.has_room
        return {"kafka": "" if spooling else self._kafka, "draining": self.draining}

    def notes(self) -> dict[str, str]:
        """What is not as it should be, and keeps nobody from taking deliveries."""
        notes = {"keyring": self.keyring(), "topics": self.watch.notes, "rights": self.rights.note}
        if (spools := self.spools) is not None:
            if (fault := self._kafka) and spools.has_room:
                notes["kafka"] = f"{fault}; deliveries go to the spool"
            if spools.fault or spools.stalled:
                notes["spool"] = f"takes no records: {spools.fault or 'its disk does not answer'}"
            elif spools.left:
                notes["spool"] = f"{spools.left} folders of former processes cannot be opened: the log says why"
            if spools.depth:
                notes["waiting"] = f"{spools.depth} spooled records, the oldest for {spools.oldest_age_s:.0f} s"
        return notes


def main(settings: Settings) -> int:
    """Run the ingress.

    Returns:
        Exit status: 0 after a clean end, 1 when the producer failed for good.

    Raises:
        Unusable: with every fault of the configuration.
    """
    log = logs.configure("ingress", settings.log_level)
    held = _usable(settings, log)
    # Of what uvicorn says, a parser's complaint about a stranger's bytes is no news: the answer is counted.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    if missing := open_files.raise_limit(CONNECTIONS_MAX + _OTHER_FILES):
        log.warning("too few files", why=missing)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, held, log))


def _usable(settings: Settings, log: logs.Logger) -> KeyringWatch[dict[str, EndpointCredentials]]:
    """The gates of the keyring as its file changes, once everything was checked."""
    faults, held = [], None
    try:
        held = KeyringWatch(settings.keyring_file, endpoint_credentials, log)
    except Unusable as unusable:
        faults.append(str(unusable))
    try:
        _ = settings.kafka
    except Unusable as unusable:
        faults.append(str(unusable))
    if settings.egress_fault:
        faults.append(settings.egress_fault)
    if held is None or faults:
        raise Unusable("\n".join(faults))
    return held


async def _serve(settings: Settings, held: KeyringWatch[dict[str, EndpointCredentials]], log: logs.Logger) -> int:
    watch, rights = KafkaWatch(settings, log), RightsWatch(settings, Service.INGRESS, log, _SPARED)
    health, telling = _Health(watch, rights, keyring=held.fault), Telemetry(log, held.newest)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)
    rules = _spool_rules(settings)
    # Before we listen: opening holds the process up, and what a former one left may be much.
    health.spools = spools = None if rules is None else await Spools.open(rules, telling, clock.now_us)
    await asyncio.gather(watch.first(), rights.first())
    server: Server

    def failed(reason: str) -> None:
        telling.unwritten(reason)
        if reason == FATAL and not rights.fault:  # else its successor would fail likewise
            health.fatal = server.should_exit = True

    limits = WriteLimits(settings.ack_timeout_s, settings.spool_timeout_s, settings.inflight_max, _IN_FLIGHT_MAX_BYTES)
    health.writer = writer = Writer(producer, limits, failed, spools)
    writer.topic_fault = watch.topic_fault
    receiver = Receiver(held.newest, writer, telling, topic_prefix=settings.topic_prefix, now_us=clock.now_us)
    listening = listen(settings.host, settings.port, setting="PORT", backlog=_BACKLOG)

    def started() -> None:
        port, endpoints = listening.getsockname()[1], sorted(held.newest())
        log.info("listening", host=settings.host, port=port, endpoints=endpoints, compiled=_is_compiled())
        settle_garbage()

    def drain() -> None:
        application.leaving = True
        health.draining = "draining"
        log.info("draining", in_flight=writer.pending)

    _measure(writer, spools)
    pages = operations_app(health.checks, health.notes)
    application = Application(receiver, pages, telling, clock.now_us)
    config = _server_config(application, pages, settings)
    server = Server(config, settings, LifecycleHooks(started, drain))
    tasks = [
        asyncio.create_task(watch.run(), name="kafka-check"),
        asyncio.create_task(held.run(), name="keyring-watch"),
        asyncio.create_task(rights.run(producer), name="rights"),
    ]
    if spools is not None:
        to = DrainerTopics(named(RECEIVED, settings.topic_prefix), named(DEAD_LETTERS, settings.topic_prefix))
        drainer = Drainer(spools, producer, telling, failed, to, clock.now_us)
        drainer.topic_fault = watch.topic_fault
        tasks.append(asyncio.create_task(drainer.run(), name="drainer"))
    for task in tasks:
        task.add_done_callback(partial(_must_not_end, log, health))
    with listening:
        await server.serve(sockets=[listening])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    unreported = await producer.close(_CLOSE_S)
    spooled = 0 if spools is None else spools.depth
    if spools is not None:
        await spools.end()
    log.info("ended", unreported=unreported, spooled=spooled, fatal=health.fatal)
    return 1 if health.fatal else 0


def _is_compiled() -> bool:
    """Whether a delivery's way is machine code here (docs/decisions/0017)."""
    return not str(sys.modules[Writer.__module__].__file__).endswith(".py")


def _must_not_end(log: logs.Logger, health: _Health, task: "asyncio.Task[None]") -> None:
    """A task of the whole process ends with it; an end of its own is a fault that must not pass in silence."""
    if not task.cancelled():
        health.fatal = True
        log.error("task ended", task=task.get_name(), exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


def _spool_rules(settings: Settings) -> SpoolLimits | None:
    if settings.spool_dir is None:
        return None
    age_us = round(settings.spool_max_age_s * 1_000_000)
    return SpoolLimits(settings.spool_dir, settings.spool_max_bytes, age_us, settings.spool_high_water)


def _measure(writer: Writer, spools: Spools | None) -> None:
    metrics.INGRESS_IN_FLIGHT.set_function(lambda: writer.in_flight)
    if spools is None:
        return
    metrics.INGRESS_SPOOL_RECORDS.set_function(lambda: spools.depth)
    metrics.INGRESS_SPOOL_BYTES.set_function(lambda: spools.size_bytes)
    metrics.INGRESS_SPOOL_AGE_S.set_function(lambda: spools.oldest_age_s)
    metrics.INGRESS_SPOOL_OPEN.set_function(lambda: spools.has_room)
    for state in BreakerState:
        metrics.INGRESS_BREAKER.labels(state).set_function(partial(_is_in, spools, state))


def _is_in(spools: Spools, state: BreakerState) -> bool:
    return spools.breaker.state is state


def _server_config(application: Application, pages: Starlette, settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        pages,
        **PLAIN,
        http=cast("type[asyncio.Protocol]", partial(Connection, application)),
        timeout_keep_alive=cast("int", settings.keep_alive_s),
        timeout_graceful_shutdown=_ANSWERS_S,
    )


def settle_garbage() -> None:
    """What is alive now lives as long as the process; the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
