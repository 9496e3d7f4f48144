"""Sends webhooks as Genesys does, over real connections, and keeps what became of every attempt.

It gives up waiting after 3 s, takes any answer but 2xx as a failure, and tries again up to five times, with the same
bytes or with a retry mark and a new time (the guide's edge case 3). Its waits are shorter than the real ones.
"""

import contextlib
import json
import random
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from schemas.times import rfc3339
from schemas.values import EventType
from tests.support.ingress_process import Line, body, now_us, raw, request

TIMEOUT_S = 3.0
RETRIES = 5
_FIRST_WAIT_S = 0.05
"""Doubled each time: 1.6 s in all, longer than a restart of the ingress. The guide's own are up to 20 minutes."""

_INTEGRATIONS = 40
"""Few, so that one key has deliveries before, in and behind a spool."""

_FORGED = "forged-secret-0123456789-0123456789-abcdef"


class Kind(StrEnum):
    """The ingress' view of a delivery."""

    USUAL = "usual"
    UNKNOWN = "unknown"
    """Authentic, of an event that nobody knows."""
    MALFORMED = "malformed"
    """Authentic, and not the schema."""
    FORGED = "forged"


_WEIGHTS = {Kind.USUAL: 95, Kind.UNKNOWN: 3, Kind.MALFORMED: 1, Kind.FORGED: 1}


@dataclass(frozen=True, slots=True)
class Attempt:
    """One HTTP attempt.

    Attributes:
        kind: Of its delivery.
        payload: The raw body.
        stated: `X-Genesys-Event-Timestamp` as it was sent.
        begun_us: Our clock when the connection was asked for.
        ended_us: The same when the answer was there, or was given up.
        status: Of the answer; 0 when none came.
        said: `status` of the answer's body, where it has one.
        fields: The answer's headers.
    """

    kind: Kind
    payload: bytes
    stated: str
    begun_us: int
    ended_us: int
    status: int
    said: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def took_s(self) -> float:
        return (self.ended_us - self.begun_us) / 1e6


def attempt(port: int, payload: bytes, kind: Kind = Kind.USUAL, *, stated_us: int | None = None) -> Attempt:
    """One attempt on a connection of its own.

    Args:
        port: Of the ingress, on this machine.
        payload: The raw body; signed here.
        kind: A forged one is signed with a secret that is nobody's.
        stated_us: H; now unless said otherwise.
    """
    begun_us = now_us()
    at_us = begun_us if stated_us is None else stated_us
    how: dict[str, Any] = {"secret": _FORGED} if kind is Kind.FORGED else {}
    status, said, fields = 0, "", {}
    with contextlib.suppress(OSError), contextlib.closing(Line(port, TIMEOUT_S)) as line:
        line.write(request(payload, at_us=at_us, **how))
        if (reply := line.reply()) is not None:
            status, said, fields = reply.status, _status(reply.content), reply.fields
    return Attempt(kind, payload, rfc3339(at_us), begun_us, now_us(), status, said, fields)


def _status(content: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(content).get("status", ""))
    return ""


def together(port: int, payloads: Mapping[bytes, Kind] | list[bytes]) -> list[Attempt]:
    """One attempt for each at the same time."""
    kinds = payloads if isinstance(payloads, Mapping) else dict.fromkeys(payloads, Kind.USUAL)
    found: list[Attempt] = []

    def one(payload: bytes, kind: Kind) -> None:
        found.append(attempt(port, payload, kind))

    threads = [threading.Thread(target=one, args=item) for item in kinds.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@dataclass
class GenesysSender:
    """Sends one delivery after the other until it is told that it is over; finishes the one it is at."""

    port: int
    draw: random.Random
    pause_s: float
    attempts: list[Attempt] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)
    given_up: int = 0

    def run(self) -> None:
        """Until it is over."""
        while not self.over.is_set():
            self._deliver(self.draw.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0])
            self.over.wait(self.draw.uniform(0, 2 * self.pause_s))

    def _deliver(self, kind: Kind) -> None:
        for payload, wait_s in zip(self._payloads(kind), _waits(), strict=False):
            self.attempts.append(attempt(self.port, payload, kind))
            # A refusal for its form is retried like any other: the sender knows no better.
            if 200 <= self.attempts[-1].status < 300:
                return
            time.sleep(wait_s)
        self.given_up += 1

    def _payloads(self, kind: Kind) -> Iterator[bytes]:
        """The bytes of each attempt: the same again, or marked and with a new time."""
        told = self._told(kind)
        drifts = self.draw.random() < 0.5
        yield raw(told)
        for number in range(1, RETRIES + 1):
            if drifts:
                told["metadata"] = told["metadata"] | {"retryCount": number}
                told["eventTimestamp"] = rfc3339(now_us())
            yield raw(told)

    def _told(self, kind: Kind) -> dict[str, Any]:
        integration = str(uuid.UUID(int=self.draw.randrange(_INTEGRATIONS)))
        event = "upgraded" if kind is Kind.UNKNOWN else self.draw.choice(list(EventType)).value
        told = body(event=event, integrationId=integration)
        told["metadata"]["eventId"] = str(uuid.UUID(int=self.draw.getrandbits(128)))
        return told | ({"tenantId": ""} if kind is Kind.MALFORMED else {})


def _waits() -> Iterator[float]:
    for number in range(RETRIES + 1):
        yield _FIRST_WAIT_S * 2**number if number < RETRIES else 0.0
