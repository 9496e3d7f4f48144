"""The whole ingress but its socket and its producer, new for every input: bytes in, answers and records out.

Rule: an input alone decides what comes of it. The clock stands still and nothing is remembered from the input before,
so a finding is found again; and an exception that the parser would hide behind a 400 is shown.
"""

import asyncio
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Any, Final, cast

from uvicorn.server import ServerState

from schemas.codec import Message
from services.adapters.kafka.producer import OnReport, Producer
from services.adapters.process import logs
from services.core.delivery.binding import binding
from services.core.delivery.signature import Secrets
from services.ingress import app
from services.ingress.endpoints import EndpointCredentials
from services.ingress.hints import Hints
from services.ingress.http import asgi_bridge
from services.ingress.http.answers import TABLE
from services.ingress.http.connection import Connection
from services.ingress.http.request import Request
from services.ingress.receive import Receiver
from services.ingress.telemetry import Telemetry
from services.ingress.writer import WriteLimits, Writer
from tests.support.ingress_process import NARROW, ORG, PREVIOUS, SECRET
from tests.support.ingress_site import InstantProducer, Wire

NOW_US: Final = 1_705_329_130_000_000
"""Where the clock stands: 2024-01-15T14:32:10Z."""

BOUND: Final = {"default": "*", "rotated": "*", "expired": "*", "narrow": ORG}
"""Each endpoint, and the one organisation it may speak for."""

_TURNS: Final = 1_000
"""Turns of the loop within which everything must have been answered; the longest way takes about ten."""
_HOUR_US: Final = 3_600_000_000
_STATUS: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z '-]*")
_FIELD: Final = re.compile(rb"([a-z][a-z-]*): ([!-~](?:[ -~]*[!-~])?)")
_DATE: Final = re.compile(r"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT")
_NEXT: Final = b"HTTP/1.1 "
_ACCEPTED: Final = {
    answer.kept.partition(b"\r\n\r\n")[2]: answer.reason for answer in TABLE if answer.status == HTTPStatus.OK
}
"""Contents of the answers that say that something is durable."""


def gates(secret: str = SECRET) -> dict[str, EndpointCredentials]:
    """The usual endpoint, two that were rotated, and a narrow one."""
    current, previous = secret.encode(), PREVIOUS.encode()
    secrets = {
        "default": Secrets(current),
        "rotated": Secrets(current, previous, NOW_US + _HOUR_US),
        "expired": Secrets(current, previous, NOW_US),
        "narrow": Secrets(NARROW.encode()),
    }
    return {name: EndpointCredentials(secrets[name], binding([org], ["*"])) for name, org in BOUND.items()}


class SenderManner(StrEnum):
    """Behaviour of a sender after sending."""

    READS = "reads"
    CHOKES = "chokes"
    """It reads nothing until it has sent everything."""
    WAITS = "waits"
    """It sends each part when all before it is answered."""
    LEAVES = "leaves"
    """It is gone before anything is answered that takes a turn of the loop."""


@dataclass(frozen=True)
class WireAnswer:
    """One answer."""

    status: int
    fields: dict[str, str]
    content: bytes

    @property
    def word(self) -> str:
        """The name under which an answer is counted: the status, and the word for an accepted delivery."""
        return f"{self.status} {_ACCEPTED[self.content]}" if self.content in _ACCEPTED else str(self.status)

    @property
    def accepts(self) -> bool:
        """True if the answer promises durability."""
        return self.content in _ACCEPTED


@dataclass(frozen=True)
class Outcome:
    """All that came of one connection's bytes."""

    written: bytes
    told: list[WireAnswer]
    records: list[tuple[str, Message]]


class _Records(InstantProducer):
    """A producer that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[str, Message]] = []

    def send(self, topic: str, message: Message, on_report: OnReport) -> None:
        self.given.append((topic, message))
        super().send(topic, message, on_report)


class _Showing(Telemetry):
    """Tells of exceptions that became an answer."""

    def __init__(self, faults: list[BaseException]) -> None:
        super().__init__(logs.configure("ingress", "critical"))
        self._faults = faults

    def broken(self) -> None:
        fault = sys.exception()
        self._faults.append(fault or AssertionError("broken, and nothing was raised"))


class _Watched(app.Application):
    """Tells of exceptions while a head is judged; the parser makes them all a broken framing."""

    faults: "list[BaseException]"

    def on_headers(self, request: Request) -> None:
        try:
            super().on_headers(request)
        except Exception as fault:
            if not _is_about_the_target(fault):
                self.faults.append(fault)
            raise


def _is_about_the_target(fault: BaseException) -> bool:
    """`endpoint_of` may raise anything for what is no target at all."""
    names, frame = set(), fault.__traceback__
    while frame is not None:
        names.add(frame.tb_frame.f_code.co_name)
        frame = frame.tb_next
    return app.endpoint_of.__name__ in names


class FuzzSite:
    """One process' worth of ingress, for one input at a time."""

    def __init__(self, secret: str = SECRET) -> None:
        self._loop = asyncio.new_event_loop()
        self._faults: list[BaseException] = []
        self._loop.set_exception_handler(lambda _, context: self._faults.append(_fault(context)))
        self._gates = gates(secret)
        self._telling = _Showing(self._faults)
        self._site = asgi_bridge.operations_app(dict)
        self._producer, self._writer = self._loop.run_until_complete(self._build())

    async def _build(self) -> tuple[_Records, Writer]:
        records = _Records()
        limits = WriteLimits(10.0, 0.4, 1_000, 1 << 24)
        return records, Writer(cast("Producer", records), limits, self._telling.unwritten, topic_fault=lambda _: "")

    def exchange(self, *parts: bytes, sender: SenderManner = SenderManner.READS) -> Outcome:
        """The answers to these parts, after which the sender writes nothing more.

        Args:
            *parts: As they come.
            sender: Who sends them.

        Raises:
            AssertionError: it is not answered in well-formed HTTP, or something was raised on the way.
        """
        self._producer.given = []
        self._faults.clear()
        written = self._loop.run_until_complete(self._exchange(parts, sender))
        if self._faults:
            raise AssertionError(f"hidden: {self._faults}") from self._faults[0]
        return Outcome(written, answers_in(written, heads=b"HEAD" in b"".join(parts)), self._producer.given)

    async def _exchange(self, parts: Sequence[bytes], sender: SenderManner) -> bytes:
        receiver = Receiver(lambda: self._gates, self._writer, self._telling, topic_prefix="", now_us=lambda: NOW_US)
        hints = Hints(dict, self._writer, self._telling, topic_prefix="", now_us=lambda: NOW_US)
        application = _Watched(receiver, hints, self._site, self._telling, lambda: NOW_US)
        application.faults = self._faults
        connection, wire = Connection(application, server_state=ServerState()), Wire()
        connection.connection_made(wire)
        if sender is SenderManner.CHOKES:
            connection.pause_writing()
        for part in parts:
            connection.data_received(part)
            if sender is SenderManner.WAITS:
                await _until(lambda: self._writer.pending == 0)
        owed = connection.eof_received()
        if sender is SenderManner.CHOKES:
            connection.resume_writing()
        if sender is SenderManner.LEAVES:
            connection.connection_lost(None)
        stays = owed and sender is not SenderManner.LEAVES
        await _until(lambda: self._writer.pending == 0 and (wire.is_closing() or not stays))
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        if sender is not SenderManner.LEAVES:
            connection.connection_lost(None)
        assert application.held_bytes == 0, "bytes are held for nobody"
        return wire.written

    def close(self) -> None:
        self._loop.close()


async def _until(done: Callable[[], bool]) -> None:
    """Let the loop turn."""
    for _ in range(_TURNS):
        if done():
            return
        await asyncio.sleep(0)
    raise AssertionError("it is never answered")


def _fault(context: dict[str, Any]) -> BaseException:
    found: BaseException = context.get("exception") or AssertionError(context["message"])
    return found


def answers_in(written: bytes, *, heads: bool) -> list[WireAnswer]:
    """Every answer, read strictly.

    Args:
        written: All that was written to one sender.
        heads: Whether it may have asked with HEAD, whose answers are without content.

    Raises:
        AssertionError: it is not well-formed.
    """
    found: list[WireAnswer] = []
    while written:
        head, end, rest = written.partition(b"\r\n\r\n")
        assert end, f"no end of the head: {head!r}"
        line, *lines = head.split(b"\r\n")
        status = _STATUS.fullmatch(line)
        assert status, f"no status line: {line!r}"
        if status[1] == b"100":
            assert not lines, f"fields of a 100: {lines}"
            written = rest
            continue
        fields = _fields(lines)
        length = 0 if status[1] == b"204" else int(fields["content-length"])
        assert status[1] != b"204" or "content-length" not in fields, "a length of no content (RFC 9110, 8.6)"
        assert _DATE.fullmatch(fields["date"]), f"no date: {fields}"
        if heads and length and (not rest or rest.startswith(_NEXT)):
            length = 0
        assert len(rest) >= length, "less content than was said"
        assert not found or found[-1].fields.get("connection") != "close", "an answer behind the last one"
        found.append(WireAnswer(int(status[1]), fields, rest[:length]))
        assert found[-1].status < 500, f"a server error: {line!r}"
        written = rest[length:]
    return found


def _fields(lines: Sequence[bytes]) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in lines:
        field = _FIELD.fullmatch(line)
        assert field, f"no field: {line!r}"
        name = field[1].decode()
        assert name not in found, f"twice: {name}"
        found[name] = field[2].decode()
    return found
