"""Measured figures as values; `--json` writes them unchanged."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Name(StrEnum):
    """The servers that are compared."""

    ASGI = "bare ASGI"
    STARLETTE = "bare Starlette"
    UNWRITTEN = "ingress, no Kafka"
    ACKED = "ingress, acked"
    SOURCE = "ingress, acked, not compiled"
    SPOOLED = "ingress, spool"
    KAFKA = "Kafka alone"
    GUIDE = "the guide's design"


UNANSWERED: Final = "no answer"
"""What a storm was told where nothing came before its patience ended."""

BROKEN: Final = "connection broken"
"""The same where the connection ended instead."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One server under full load for a moment.

    Attributes:
        requests: Answered ones.
        seconds: How long.
        refused: Answers that were not 2xx.
        broken: Requests that had no answer.
        repeated: Deliveries that the server had seen before: its file was too short.
        p50_ms: Closed-loop waiting: connections ÷ throughput, no service level.
        p99_ms: Likewise.
        cpu_us: CPU of the server's process tree per request.
        beside_us: CPU of its broker or Redis per request.
        rss_bytes: Resident memory of the server's process tree afterwards.
        strangers_cores: What others used meanwhile.
    """

    round: int
    server: str
    connections: int
    requests: int
    seconds: float
    refused: int
    broken: int
    repeated: int
    p50_ms: float
    p99_ms: float
    cpu_us: float
    beside_us: float
    rss_bytes: int
    strangers_cores: float

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Storm:
    """One server under an open-loop plan once.

    Attributes:
        case: Which plan.
        p50_ms: From the instant a request was due to the end of its answer.
        p99_ms: Likewise.
        max_ms: Likewise.
        said: How many answers said what.
        connections: How many there were.
        late_p99_ms: How much later than due a request was sent.
        sender_cores: What the sender itself used of its core.
        per_s: Requests ÷ the time from the start to the last answer.
        strangers_cores: What others used meanwhile.
    """

    round: int
    server: str
    case: str
    requests: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    said: Mapping[str, int]
    connections: int
    late_p99_ms: float
    sender_cores: float
    per_s: float
    strangers_cores: float


@dataclass(frozen=True, slots=True)
class Stop:
    """The cost of a broker that stood still for a while.

    Attributes:
        storm: What senders saw.
        promised: How many were answered 200.
        lost: How many of those are not in the topic.
        there_s: When the last of them was there, seconds after the broker went on.
    """

    storm: Storm
    promised: int
    lost: int
    there_s: float
