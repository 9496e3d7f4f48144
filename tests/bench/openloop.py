"""The open-loop sender, a process of its own: `python -m tests.bench.openloop PLAN`.

Rule: a request is sent when it is due, whatever became of those before it, and timed from the instant it was due; one
that finds no free connection waits, and its clock runs. Nothing here but the standard library: what it costs is its
ceiling (`make bench-latency` measures that too).
"""

import gc
import json
import re
import select
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from schemas.times import rfc3339
from services.adapters.process.clock import now_us
from tests.bench.figures import BROKEN, UNANSWERED

BEGUN: Final = "begun"
"""Said on standard output when all connections are open and the clock starts."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_CLOSES: Final = re.compile(rb"\r\nconnection: *close\r\n", re.IGNORECASE)
_WORD: Final = re.compile(rb'"status": *"([a-z_]+)"')
_CONNECT_S: Final = 10.0
_OPEN_AT_ONCE: Final = 500
_OPEN_PAUSE_S: Final = 0.03
"""So that a server keeps up with accepting: its backlog is 4,096 on an untuned Linux."""

_FROM_ONE_ADDRESS: Final = 5_000
"""Linux has 28,000 ports for outgoing connections; when half of them are taken, finding another takes 0.5 ms."""

_IP_BIND_ADDRESS_NO_PORT: Final = 24
"""The port is chosen with the connection, see ip(7); the socket module names it since Python 3.12."""

_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that ends a connection without TIME_WAIT: 20,000 of those would leave no port for the next storm."""

_READ_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Plan:
    """The deliveries to send, with their instants.

    Attributes:
        port: Of the server, on 127.0.0.1.
        path: Where to post.
        deliveries: A file of `deliveries.write`.
        connections: How many are opened before the start.
        due_s: When each delivery is sent, seconds from the start, ascending.
        patience_s: How long after the last instant answers are waited for.
    """

    port: int
    path: str
    deliveries: str
    connections: int
    due_s: Sequence[float]
    patience_s: float


@dataclass(slots=True)
class Answers:
    """The results of a plan's deliveries, in their order.

    Attributes:
        waited_us: From the instant each was due to the end of its answer.
        said: Which of `words` its answer was.
        words: Status and, where the body has one, its word: `200 queued`.
        late_us: How much later than due each was sent.
        cpu_s: What sending and reading cost this process.
        lasted_s: From the start to the last answer.
    """

    waited_us: list[int]
    said: list[int]
    words: list[str] = field(default_factory=list)
    late_us: list[int] = field(default_factory=list)
    cpu_s: float = 0.0
    lasted_s: float = 0.0


def whole(read: bytes) -> bool:
    """Whether a response is complete."""
    head, mark, body = read.partition(b"\r\n\r\n")
    length = _LENGTH.search(head)
    return bool(mark) and len(body) >= (int(length[1]) if length else 0)


def word(read: bytes) -> str:
    """The meaning of a complete response."""
    found = _WORD.search(read)
    return " ".join([read[9:12].decode(), *([found[1].decode()] if found else [])])


def requests(plan: Plan, stated: str) -> list[bytes]:
    """Every request as bytes; `stated` is the sender's time."""
    start = f"POST {plan.path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    start += f"X-Genesys-Event-Timestamp: {stated}\r\nX-Genesys-Signature: "
    made = []
    with Path(plan.deliveries).open("rb") as file:
        for line in file:
            signature, _, body = line.rstrip(b"\n").partition(b"\t")
            made.append(b"%s%s\r\nContent-Length: %d\r\n\r\n%s" % (start.encode(), signature, len(body), body))
    return made[: len(plan.due_s)]


def run(plan: Plan) -> Answers:
    """Do what a plan says, in this process."""
    sender = _Sender(plan)
    try:
        return sender.run()
    finally:
        sender.close()


class _Line:
    """A connection, and the delivery whose answer it waits for."""

    __slots__ = ("number", "read", "socket")

    def __init__(self, port: int, opened: int) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(_CONNECT_S)
        self.socket.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        self.socket.bind((f"127.0.0.{1 + opened // _FROM_ONE_ADDRESS % 250}", 0))
        self.socket.connect(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.socket.setblocking(False)
        self.number = -1
        self.read = b""


class _Sender:
    """One run of one plan."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._requests = requests(plan, rfc3339(now_us()))
        self._epoll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._free: deque[_Line] = deque()
        self._numbers: dict[str, int] = {}
        self._known: dict[bytes, tuple[int, bool]] = {}
        self._opened = 0
        while self._opened < plan.connections:
            self._open()
            if self._opened % _OPEN_AT_ONCE == 0:
                time.sleep(_OPEN_PAUSE_S)

    def run(self) -> Answers:
        """Send, read, and give up on what is not answered in time."""
        due_s, count = self._plan.due_s, len(self._plan.due_s)
        found = Answers([-1] * count, [self._number(UNANSWERED)] * count, late_us=[0] * count)
        cpu_s, start = time.process_time(), time.perf_counter()
        sent = answered = 0
        end_s = due_s[-1] + self._plan.patience_s
        while answered < count and (now_s := time.perf_counter() - start) < end_s:
            while sent < count and due_s[sent] <= now_s and self._free:
                self._send(sent)
                now_s = time.perf_counter() - start
                found.late_us[sent] = int((now_s - due_s[sent]) * 1e6)
                sent += 1
            waits = sent < count and bool(self._free)
            until_s = due_s[sent] if waits else end_s
            for file, _ in self._ready(max(0.0, until_s - now_s)):
                line = self._lines[file]
                number = line.number
                said = self._read(line)
                if said is not None and number >= 0:
                    found.waited_us[number] = int((time.perf_counter() - start - due_s[number]) * 1e6)
                    found.said[number] = said
                    answered += 1
        found.lasted_s, found.cpu_s = time.perf_counter() - start, time.process_time() - cpu_s
        found.words = list(self._numbers)
        return found

    def close(self) -> None:
        """End every connection."""
        for line in self._lines.values():
            line.socket.close()
        self._epoll.close()

    def _ready(self, wait_s: float) -> list[tuple[int, int]]:
        """What can be read. epoll's own wait has a grain of a millisecond, select's has none that matters here."""
        ready = self._epoll.poll(0)
        if not ready and wait_s > 0:
            select.select([self._epoll], [], [], wait_s)
            ready = self._epoll.poll(0)
        return ready

    def _open(self) -> None:
        line = _Line(self._plan.port, self._opened)
        self._opened += 1
        self._lines[line.socket.fileno()] = line
        self._epoll.register(line.socket, select.EPOLLIN)
        self._free.append(line)

    def _send(self, number: int) -> None:
        line = self._free.popleft()
        line.number = number
        try:
            sent = line.socket.send(self._requests[number])
        except OSError:
            return  # the connection ended; reading will find that too
        assert sent == len(self._requests[number]), "a request is smaller than a socket's buffer"

    def _read(self, line: _Line) -> int | None:
        """What an answer says, once it is whole; the connection is free again then, or replaced when it ended."""
        try:
            data = line.socket.recv(_READ_BYTES)
        except OSError:
            data = b""
        if not data:
            self._replace(line)
            return self._number(BROKEN)
        read = line.read + data
        known = self._known.get(read)
        if known is None:
            if not whole(read):
                line.read = read
                return None
            known = self._known[read] = self._number(word(read)), bool(_CLOSES.search(read))
        said, closes = known
        if closes:
            self._replace(line)
        else:
            line.read, line.number = b"", -1
            self._free.append(line)
        return said

    def _replace(self, line: _Line) -> None:
        del self._lines[line.socket.fileno()]
        self._epoll.unregister(line.socket)
        line.socket.close()
        if line in self._free:
            self._free.remove(line)
        self._open()

    def _number(self, said: str) -> int:
        return self._numbers.setdefault(said, len(self._numbers))


def main(plan_file: str) -> None:
    """Do what a plan says, and print what became of it."""
    sender = _Sender(Plan(**json.loads(Path(plan_file).read_text())))
    gc.collect()
    gc.freeze()
    gc.disable()
    print(BEGUN, flush=True)
    print(json.dumps(asdict(sender.run())))


if __name__ == "__main__":
    main(sys.argv[1])
