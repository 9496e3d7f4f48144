"""Compares what senders were answered with what stands in Kafka.

Rule: an answer is a promise about one attempt. A 200 promises its bytes, with their key and the headers that this
attempt came with, in `lifecycle.received` or, where they say nothing that we know, in dead letters; 400 for its form
promises dead letters too. More than once is allowed, changed is not. What was forged stands nowhere.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import confluent_kafka

from schemas.dead_letter import DeadLetter
from schemas.times import rfc3339
from tests.faults.genesys_sender import Attempt, Kind
from tests.support.ingress_process import headers_of, key

_ALLOWED = {
    Kind.USUAL: {0, 200, 503},
    Kind.UNKNOWN: {0, 200, 503},
    Kind.MALFORMED: {0, 400, 503},
    Kind.FORGED: {0, 401, 503},
}
"""0: no answer, since the process died. 503 for a forger: it is refused for room before anything is looked at."""

_LATE = 408
"""A machine so busy that a request does not arrive within a second; the ingress may say so to anybody."""

_SHOWN = 5


@dataclass(frozen=True, slots=True)
class KillVerdict:
    """Findings after kills.

    Attributes:
        attempts: How many were made.
        answers: How many by status; 0 is none.
        said: How many by what a 200 said.
        promised: Deliveries that an answer promised: different bytes with their header.
        written: Records in `lifecycle.received`.
        buried: Records in dead letters.
        lost: Promises that were not kept.
        changed: Records that are not what was sent.
        odd: Answers that should not have been given.
        slowest_s: The longest that anybody waited for an answer.
    """

    attempts: int
    answers: Counter[int]
    said: Counter[str]
    promised: int
    written: int
    buried: int
    lost: list[str]
    changed: list[str]
    odd: list[str]
    slowest_s: float

    @property
    def deviations(self) -> list[str]:
        """Every deviation; a few of each sort."""
        return [
            f"{name}: {len(found)}, {'; '.join(found[:_SHOWN])}"
            for name, found in (("LOST", self.lost), ("CHANGED", self.changed), ("ODD", self.odd))
            if found
        ]

    def __str__(self) -> str:
        answers = ", ".join(f"{count} x {status or 'none'}" for status, count in sorted(self.answers.items()))
        said = ", ".join(f"{count} {word}" for word, count in sorted(self.said.items()))
        return (
            f"{self.attempts} attempts answered {answers}; 200 said {said}; {self.promised} promised, "
            f"{self.written} + {self.buried} records in Kafka, {len(self.lost)} lost, {len(self.changed)} changed, "
            f"{len(self.odd)} odd answers; slowest {self.slowest_s:.2f} s"
        )


def judge(
    attempts: Sequence[Attempt],
    received: "Iterable[confluent_kafka.Message]",
    buried: "Iterable[confluent_kafka.Message]",
) -> KillVerdict:
    """Judge a whole run.

    Args:
        attempts: All of them.
        received: Everything in `lifecycle.received`.
        buried: Everything in dead letters.
    """
    found: defaultdict[tuple[bytes, str], list[confluent_kafka.Message]] = defaultdict(list)
    for record in received:
        found[record.value() or b"", headers_of(record).get("event_timestamp_header", "")].append(record)
    letters = [DeadLetter.model_validate_json(record.value() or b"").body for record in buried]
    bodies = set(letters)
    values = {payload for payload, _ in found} | bodies
    lost, changed = [], []
    promised = set()
    for one in attempts:
        sent = one.payload, one.stated
        if one.kind is Kind.FORGED:
            lost += [f"forged and written: {_text(one)}"] if one.payload in values else []
        elif one.kind is Kind.USUAL and one.status == 200:
            promised.add(sent)
            if sent not in found:
                lost.append(_text(one))
            elif not any(_is_whole(one, record) for record in found[sent]):
                changed.append(f"{_text(one)}: {found[sent][0].key()!r} {headers_of(found[sent][0])}")
        elif one.kind in {Kind.UNKNOWN, Kind.MALFORMED} and one.status in {200, 400}:
            promised.add(sent)
            lost += [] if one.payload in bodies else [_text(one)]
    return KillVerdict(
        attempts=len(attempts),
        answers=Counter(one.status for one in attempts),
        said=Counter(one.said for one in attempts if one.status == 200),
        promised=len(promised),
        written=sum(map(len, found.values())),
        buried=len(letters),
        lost=lost,
        changed=changed,
        odd=[f"{one.status}: {_text(one)}" for one in attempts if one.status not in {*_ALLOWED[one.kind], _LATE}],
        slowest_s=max((one.took_s for one in attempts if one.status), default=0.0),
    )


def _is_whole(one: Attempt, record: "confluent_kafka.Message") -> bool:
    """True if a record has the attempt's key, the id of its bytes, and the instant of its first receipt."""
    headers = headers_of(record)
    return (
        record.key() == key(json.loads(one.payload)).encode()
        and headers["ce_id"] == hashlib.sha256(one.payload).hexdigest()
        and headers["ce_type"] == "genesys.webhook.v1"
        and headers["endpoint"] == "default"
        and headers["ce_time"] == headers["received_at"]
        and rfc3339(one.begun_us) <= headers["received_at"] <= rfc3339(one.ended_us)
    )


def _text(one: Attempt) -> str:
    return f"{one.kind} answered {one.status} {one.said} at {rfc3339(one.ended_us)}: {one.payload[:60]!r}"


def in_order(records: "Iterable[confluent_kafka.Message]", payloads: Sequence[bytes]) -> Iterator[int]:
    """Where each of these stands among them the last time: Kafka may have had a copy of some before they waited."""
    last = {record.value(): number for number, record in enumerate(records)}
    return (last[payload] for payload in payloads)
