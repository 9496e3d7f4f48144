"""Wires the ingress process: settings → keyring, producer, spools, receiver, server; runs until SIGTERM.

Rule: the process starts whenever its configuration is usable, also while Kafka is away: then deliveries go to the spool
or are answered 503, and `/readyz` shows why. An unusable configuration is refused with all of its faults at once.

The order of `_serve` matters at both ends. Spools are opened before the socket listens, since opening blocks the event
loop. At the end the server stops first, then the tasks, then the producer is flushed, then the spools are closed: each
may still hand records to the next.
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
from services.adapters.process import clock, logs, metrics, open_files, tracing
from services.adapters.process.errors import Unusable
from services.adapters.process.listening import listen
from services.adapters.process.settings import IngressSettings
from services.adapters.process.tracing import SpanKind
from services.adapters.secrets.keyring_watch import KeyringWatch
from services.core.delivery.kafka_breaker import BreakerState
from services.ingress.app import Application
from services.ingress.drainer import Drainer, DrainerTopics
from services.ingress.endpoints import Credentials, CredentialsByEndpoint, HintCredentialsByEndpoint, credentials
from services.ingress.hints import Hints
from services.ingress.http.asgi_bridge import operations_app
from services.ingress.http.connection import CONNECTIONS_MAX, Connection
from services.ingress.http.server import LifecycleHooks, Server
from services.ingress.kafka_watch import KafkaWatch
from services.ingress.receive import Receiver
from services.ingress.spools import SpoolLimits, Spools
from services.ingress.telemetry import Telemetry
from services.ingress.writer import FATAL, WriteLimits, Writer

_LINGER_MS: Final = 0.5
"""Long enough that librdkafka sends a batch of the writer as one request; with 0 the first record would go alone. The
writer makes the batches (services/ingress/writer.py)."""

_MESSAGE_TIMEOUT_MS: Final = 1500
"""Longer than the writer's wait for the report; librdkafka looks for expired messages once a second."""

_IN_FLIGHT_MAX_BYTES: Final = 64 * 1024 * 1024

_BACKLOG: Final = 8192
_OTHER_FILES: Final = 1_000
"""Open files beside one for each connection: spools, brokers, libraries."""

UVICORN_OPTIONS: Final[dict[str, Any]] = {
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
}
"""Features of uvicorn that are switched off; the bare servers of the benchmarks use the same options."""

_GRACE_S: Final = 3
"""Limit of answering open requests after listening has ended: no answer takes longer than 2.7 s."""

_CLOSE_S: Final = 5.0
_OPTIONAL: Final = frozenset({Operation.DESCRIBE_CONFIGS})
"""Rights that may be missing: without this one the settings of topics are not compared, and every delivery is taken."""


@dataclass(slots=True)
class _Health:
    """The content of `/readyz`: faults by name; an empty text is no fault.

    Attributes:
        watch: Looks at topics and leaders.
        rights: Looks at the rights of this principal.
        keyring: Returns the fault of the keyring file.
        writer: Knows the recent failures of writing.
        spools: None without a spool folder.
        draining: Not empty once the process is to end.
        fatal: True once the process must end with status 1.
    """

    watch: KafkaWatch
    rights: RightsWatch
    keyring: Callable[[], str]
    writer: Writer
    spools: Spools | None
    draining: str = ""
    fatal: bool = False

    @property
    def _kafka(self) -> str:
        """Returns why a delivery would not be written to Kafka now; the most definite reason first."""
        failing = self.writer.failures.said(asyncio.get_running_loop().time())
        is_open = self.spools is not None and self.spools.breaker.state is not BreakerState.CLOSED
        fault = self.rights.fault or self.watch.fault
        return fault or failing or ("it was slow, or did not acknowledge in time" if is_open else "")

    def checks(self) -> dict[str, str]:
        """Returns the faults for which no delivery can be taken; a fault of Kafka counts without room in the spool."""
        spooling = self.spools is not None and self.spools.has_room
        return {"kafka": "" if spooling else self._kafka, "draining": self.draining}

    def notes(self) -> dict[str, str]:
        """Returns the faults that an operator should know and that keep no delivery from being taken."""
        notes = {"keyring": self.keyring(), "topics": self.watch.notes, "rights": self.rights.note}
        if (spools := self.spools) is not None:
            if (fault := self._kafka) and spools.has_room:
                notes["kafka"] = f"{fault}; deliveries go to the spool"
            if spools.fault or spools.stalled:
                notes["spool"] = f"takes no records: {spools.fault or 'its disk does not answer'}"
            elif spools.unopened:
                notes["spool"] = f"{spools.unopened} folders of former processes cannot be opened: the log says why"
            if spools.depth:
                notes["waiting"] = f"{spools.depth} spooled records, the oldest for {spools.oldest_age_s:.0f} s"
        return notes


def main(settings: IngressSettings) -> int:
    """Runs the ingress until SIGTERM or SIGINT.

    Returns:
        Exit status: 0 after a clean end, 1 when the producer failed for good or a background task ended.

    Raises:
        Unusable: names every fault of the configuration.
    """
    log = logs.configure("ingress", settings.log_level)
    keyring = _keyring(settings, log)
    # uvicorn's lines below ERROR are about start and end, which `_serve` logs itself.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    if missing := open_files.raise_limit(CONNECTIONS_MAX + _OTHER_FILES):
        log.warning("too few files", why=missing)
    with tracing.exporting("ingress", settings), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, keyring, log))


def _keyring(settings: IngressSettings, log: logs.Logger) -> KeyringWatch[Credentials]:
    """Returns the watch of the keyring file, after checking the whole configuration.

    Raises:
        Unusable: names every fault of the configuration.
    """
    faults, keyring = [], None
    try:
        keyring = KeyringWatch(settings.keyring_file, credentials, log)
    except Unusable as unusable:
        faults.append(str(unusable))
    try:
        _ = settings.kafka
    except Unusable as unusable:
        faults.append(str(unusable))
    if settings.egress_fault:
        faults.append(settings.egress_fault)
    if keyring is None or faults:
        raise Unusable("\n".join(faults))
    return keyring


def _by_endpoint(
    keyring: KeyringWatch[Credentials],
) -> tuple[CredentialsByEndpoint, HintCredentialsByEndpoint]:
    """Returns the functions that return the credentials in force, of deliveries and of hints."""
    return lambda: keyring.newest().endpoints, lambda: keyring.newest().hints


async def _serve(settings: IngressSettings, keyring: KeyringWatch[Credentials], log: logs.Logger) -> int:
    endpoints, hint_endpoints = _by_endpoint(keyring)
    watch, rights = (
        KafkaWatch(settings, log, (RECEIVED, DEAD_LETTERS)),
        RightsWatch(settings, Service.INGRESS, log, _OPTIONAL),
    )
    telemetry = Telemetry(log, endpoints, tracing.roots(settings.traces_ratio, SpanKind.SERVER), hint_endpoints)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)
    spool_limits = _spool_limits(settings)
    # Before listening: opening blocks the event loop, and the folders of former processes may be large.
    spools = None if spool_limits is None else await Spools.open(spool_limits, telemetry, clock.now_us)
    await asyncio.gather(watch.look_once(), rights.look_once())
    server: Server

    def failed(reason: str) -> None:
        telemetry.unwritten(reason)
        # A new process gets a new producer. Missing rights would fail that one too, so the process stays and waits.
        # Not drained: every balancer tries a refused connection elsewhere, and not every balancer a 503
        # (docs/decisions/0028). Open requests are answered all the same.
        if reason == FATAL and not rights.fault:
            health.fatal = server.should_exit = True

    limits = WriteLimits(settings.ack_timeout_s, settings.spool_timeout_s, settings.inflight_max, _IN_FLIGHT_MAX_BYTES)
    writer = Writer(producer, limits, failed, spools, topic_fault=watch.topic_fault)
    health = _Health(watch, rights, keyring.fault, writer, spools)
    receiver = Receiver(endpoints, writer, telemetry, topic_prefix=settings.topic_prefix, now_us=clock.now_us)
    hints = Hints(hint_endpoints, writer, telemetry, topic_prefix=settings.topic_prefix, now_us=clock.now_us)
    listening = listen(settings.host, settings.port, setting="PORT", backlog=_BACKLOG)

    def started() -> None:
        port, names = listening.getsockname()[1], sorted([*endpoints(), *hint_endpoints()])
        log.info("started", host=settings.host, port=port, endpoints=names, compiled=_is_compiled())
        tune_garbage_collector()

    def drain() -> None:
        application.draining = True
        health.draining = "draining"
        log.info("draining", in_flight=writer.pending)

    _register_gauges(writer, spools)
    operations = operations_app(health.checks, health.notes)
    application = Application(receiver, hints, operations, telemetry, clock.now_us)
    config = _server_config(application, operations, settings)
    server = Server(config, settings, LifecycleHooks(started, drain))
    tasks = [
        asyncio.create_task(watch.run(), name="kafka-check"),
        asyncio.create_task(keyring.run(), name="keyring-watch"),
        asyncio.create_task(rights.run(producer), name="rights"),
    ]
    if spools is not None:
        topics = DrainerTopics(named(RECEIVED, settings.topic_prefix), named(DEAD_LETTERS, settings.topic_prefix))
        drainer = Drainer(spools, producer, telemetry, failed, topics, clock.now_us, topic_fault=watch.topic_fault)
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
    log.info("stopped", unreported=unreported, spooled=spooled, fatal=health.fatal)
    return 1 if health.fatal else 0


def _is_compiled() -> bool:
    """True if the modules that a delivery passes are compiled by mypyc (docs/decisions/0017)."""
    return not str(sys.modules[Writer.__module__].__file__).endswith(".py")


def _must_not_end(log: logs.Logger, health: _Health, task: "asyncio.Task[None]") -> None:
    """Ends the process, with status 1, when a background task ends without being cancelled."""
    if not task.cancelled():
        # The signal, and not `should_exit`: the server then drains, as at any end.
        health.fatal = True
        log.error("task ended", task=task.get_name(), exc_info=task.exception())
        signal.raise_signal(signal.SIGTERM)


def _spool_limits(settings: IngressSettings) -> SpoolLimits | None:
    if settings.spool_dir is None:
        return None
    age_us = round(settings.spool_max_age_s * 1_000_000)
    return SpoolLimits(settings.spool_dir, settings.spool_max_bytes, age_us, settings.spool_high_water)


def _register_gauges(writer: Writer, spools: Spools | None) -> None:
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


def _server_config(application: Application, operations: Starlette, settings: IngressSettings) -> uvicorn.Config:
    return uvicorn.Config(
        operations,
        **UVICORN_OPTIONS,
        http=cast("type[asyncio.Protocol]", partial(Connection, application)),
        timeout_keep_alive=cast("int", settings.keep_alive_s),
        timeout_graceful_shutdown=_GRACE_S,
    )


def tune_garbage_collector() -> None:
    """Exempts the objects made so far from garbage collection, and makes collections rarer."""
    # These objects live as long as the process, and looking at them again would only delay deliveries.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)
