"""The whole ingress but its socket and its producer: bytes in, answers out, in one process; for fuzzers.

The producer says at the next turn of the loop that every replica has the record, and keeps nothing.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from uvicorn.server import ServerState

from schemas.codec import Message
from services.adapters.kafka.producer import Ack, OnReport, Producer
from services.adapters.process import logs
from services.adapters.process.tracing import Roots
from services.core.delivery.binding import binding
from services.core.delivery.hint_rule import hint_binding
from services.core.delivery.signature import Secrets
from services.ingress.app import Application
from services.ingress.endpoints import EndpointCredentials, HintCredentials
from services.ingress.hints import Hints
from services.ingress.http.asgi_bridge import operations_app
from services.ingress.http.connection import Connection
from services.ingress.receive import Receiver
from services.ingress.telemetry import Telemetry
from services.ingress.writer import WriteLimits, Writer


class InstantProducer:
    """Acknowledges at the next turn of the loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        del topic, message
        self._loop.call_soon(on_report, Ack(None))

    def run_callbacks(self) -> None:
        """Nothing is kept back."""


class Wire(asyncio.Transport):
    """The other end of one connection: what was written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self._closing = False

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self._closing = True

    def abort(self) -> None:
        self._closing = True

    async def until(self, predicate: Callable[[], bool]) -> None:
        """Let the loop turn until it is so."""
        async with asyncio.timeout(20):
            while not predicate():
                await asyncio.sleep(0)

    def pause_reading(self) -> None:
        """It is given everything all the same."""

    def resume_reading(self) -> None:
        """See above."""


class Site:
    """One process' worth of ingress. Use inside its loop."""

    def __init__(
        self,
        secret: bytes,
        now_us: Callable[[], int],
        producer: Producer | None = None,
        prefix: str = "",
        roots: Roots | None = None,
    ) -> None:
        telling = Telemetry(logs.configure("ingress", "error"), roots=roots)
        writer = Writer(
            producer or InstantProducer(),
            WriteLimits(10.0, 0.4, 1_000, 1 << 24),
            telling.unwritten,
            topic_fault=lambda _: "",
        )
        gates: Mapping[str, EndpointCredentials] = {
            "default": EndpointCredentials(Secrets(secret), binding(["*"], ["*"]))
        }
        receiver = Receiver(lambda: gates, writer, telling, topic_prefix=prefix, now_us=now_us)
        hinted = {"audit": HintCredentials(Secrets(secret), hint_binding(["*"], ["*"]))}
        hints = Hints(lambda: hinted, writer, telling, topic_prefix=prefix, now_us=now_us)
        self.application = Application(receiver, hints, operations_app(dict), telling, now_us)
        self._state = ServerState()

    async def exchange(self, *parts: bytes) -> bytes:
        """Everything that is answered to these parts, after which the sender writes nothing more."""
        wire = Wire()
        connection = Connection(self.application, server_state=self._state)
        connection.connection_made(wire)
        for part in parts:
            connection.data_received(part)
        if connection.eof_received():
            await wire.until(wire.is_closing)
        connection.connection_lost(None)
        return wire.written


def statuses(written: bytes) -> list[int]:
    """The status of each answer, in order; answers carry a length, so nothing is guessed."""
    found = []
    while written:
        head, _, rest = written.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        found.append(int(status.split()[1]))
        lengths = [int(field.partition(b":")[2]) for field in fields if field.lower().startswith(b"content-length:")]
        written = rest[sum(lengths) :]
    return found
