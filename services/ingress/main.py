"""The process: settings → keyring, producer, receiver, server; runs until SIGTERM.

Rule: it starts when its configuration can be used, also while Kafka is away (then it answers 503 and `/readyz` says
why); a configuration that cannot be used is refused with every fault at once.
"""

import asyncio
import gc
import logging
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, cast

import uvicorn
import uvloop

from schemas.topics import DEAD_LETTERS, RECEIVED, named
from services.adapters import clock, keyring, logs, metrics
from services.adapters.kafka import KafkaError, Producer
from services.adapters.listening import listen
from services.adapters.settings import Settings, Unusable
from services.ingress.app import application
from services.ingress.gates import Gate, gates
from services.ingress.protocol import CONNECTIONS_MAX, Protocol
from services.ingress.receive import Receiver
from services.ingress.server import Server, Turns
from services.ingress.telling import Telling
from services.ingress.writer import FATAL, Limits, Writer

_LINGER_MS: Final = 0.5
"""Measured on a real broker: 0 costs a request a record, 2 costs a third of the throughput at 64 connections."""

_MESSAGE_TIMEOUT_MS: Final = 1500
"""Longer than our own wait for the report; librdkafka looks once a second."""

_IN_FLIGHT_MAX_BYTES: Final = 64 * 1024 * 1024

_BACKLOG: Final = 8192
_CHECK_S: Final = 2.0
_CLOSE_S: Final = 5.0


@dataclass(slots=True)
class _Health:
    """What `/readyz` says; empty text is well."""

    kafka: str = "not asked yet"
    draining: str = ""
    fatal: bool = field(default=False)

    def checks(self) -> dict[str, str]:
        return {"kafka": self.kafka, "keyring": "", "draining": self.draining}


def main(settings: Settings) -> int:
    """Run the ingress.

    Returns:
        Exit status: 0 after a clean end, 1 when the producer failed for good.

    Raises:
        Unusable: with every fault of the configuration.
    """
    log = logs.configure("ingress", settings.log_level)
    held = _usable(settings)
    # Of what uvicorn says, a parser's complaint about a stranger's bytes is no news: the answer is counted.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    _raise_file_limit()
    with (
        listen(settings.host, settings.port, setting="PORT", backlog=_BACKLOG) as listening,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        return runner.run(_serve(settings, held, listening, log))


def _usable(settings: Settings) -> dict[str, Gate]:
    """The gates of the keyring, once everything was checked."""
    faults, held = [], {}
    try:
        held = gates(keyring.load(settings.keyring_file))
        if not held:
            faults.append(f"KEYRING_FILE: {settings.keyring_file}: endpoints: empty; nobody could be believed")
    except Unusable as unusable:
        faults.append(str(unusable))
    try:
        _ = settings.kafka
    except Unusable as unusable:
        faults.append(str(unusable))
    if settings.egress_fault:
        faults.append(settings.egress_fault)
    if faults:
        raise Unusable("\n".join(faults))
    return held


def _raise_file_limit() -> None:
    """A connection is a file; the soft limit of many systems is 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + 1_000
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most))


async def _serve(settings: Settings, held: dict[str, Gate], listening: socket.socket, log: logs.Logger) -> int:
    health, telling = _Health(), Telling(log)
    producer = Producer(settings.kafka, linger_ms=_LINGER_MS, timeout_ms=_MESSAGE_TIMEOUT_MS)
    server: Server

    def failed(reason: str) -> None:
        telling.unwritten(reason)
        if reason == FATAL:
            health.fatal = server.should_exit = True

    writer = Writer(producer, Limits(settings.ack_timeout_s, settings.inflight_max, _IN_FLIGHT_MAX_BYTES), failed)
    receiver = Receiver(lambda: held, writer, telling, topic_prefix=settings.topic_prefix, now_us=clock.now_us)

    def started() -> None:
        log.info("listening", host=settings.host, port=listening.getsockname()[1], endpoints=sorted(held))
        _settle_garbage()

    def drain() -> None:
        receiver.draining = True
        health.draining = "draining"
        log.info("draining", in_flight=writer.in_flight)

    metrics.INGRESS_IN_FLIGHT.set_function(lambda: writer.in_flight)
    Protocol.on_refusal = staticmethod(lambda answer: telling.answered(answer, 0.0, None))
    config = _server_config(application(receiver, health.checks), settings)
    server = Server(config, settings, Turns(started, drain, lambda: writer.in_flight))
    checking = asyncio.create_task(_watch_kafka(producer, settings, health), name="kafka-check")
    await server.serve(sockets=[listening])
    checking.cancel()
    unreported = await producer.close(_CLOSE_S)
    log.info("ended", unreported=unreported, fatal=health.fatal)
    return 1 if health.fatal else 0


def _server_config(app: Callable[..., Any], settings: Settings) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=cast("int", settings.keep_alive_s),
        timeout_graceful_shutdown=3,
    )


def _settle_garbage() -> None:
    """What is alive now lives as long as the process; the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 50)


async def _watch_kafka(producer: Producer, settings: Settings, health: _Health) -> None:
    """Ask for the topics' metadata again and again; `/readyz` reads the last answer."""
    names = [named(topic, settings.topic_prefix) for topic in (RECEIVED, DEAD_LETTERS)]
    while True:
        try:
            found = [await asyncio.to_thread(producer.partitions, name, _CHECK_S) for name in names]
            missing = [name for name, count in zip(names, found, strict=True) if not count]
            health.kafka = f"{', '.join(missing)}: no such topic; `lifecycle topics apply`" if missing else ""
        except KafkaError as error:
            health.kafka = error.reason
        await asyncio.sleep(_CHECK_S)
