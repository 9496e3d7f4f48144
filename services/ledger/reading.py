"""From a record of Kafka to what the core decides about, or to a dead letter.

Rule: a record is read once, here; what cannot be read goes whole to the dead letters, once, under the name of its
place, so a replay writes the same letter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from aiokafka.partitioner import murmur2
from faust.types.tuples import Message as Arrived

from schemas import codec, webhook
from schemas.codec import Message, Unreadable
from schemas.event import Observed, Recheck
from schemas.outcome import Outcome
from schemas.topics import PARTITIONER
from schemas.webhook import Delivery, Malformed, UnknownEvent
from services.core.ledger.dead_letters import letter
from services.core.ledger.decisions import Received
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output

R = TypeVar("R", Delivery, Observed, Recheck, Received, Outcome)


@dataclass(frozen=True, slots=True)
class UnprocessableRecord:
    """A record that nobody can process.

    Attributes:
        reason: `malformed`, `unknown_event`, `unreadable` or `misplaced`.
        detail: Names a field and a rule, never a value.
    """

    reason: str
    detail: str


class PartitionRef(NamedTuple):
    """A partition, of how many."""

    partition: int
    partitions: int


def received(raw: Message, seat: PartitionRef) -> Received | UnprocessableRecord:
    """Read one record of `lifecycle.received`."""
    value = raw.value
    kind = codec.texts(raw.headers).get("ce_type")
    try:
        match kind:
            case webhook.CE_TYPE:
                record: Received = webhook.parse(value)
            case Observed.ce_type:
                record = codec.decode(Observed, value)
            case Recheck.ce_type:
                record = codec.decode(Recheck, value)
            case _:
                return UnprocessableRecord("unreadable", "ce_type: none of webhook, observation and re-check")
    except UnknownEvent as fault:
        return UnprocessableRecord("unknown_event", str(fault))
    except Malformed as fault:
        return UnprocessableRecord("malformed", str(fault))
    except Unreadable as fault:
        return UnprocessableRecord("unreadable", str(fault))
    return _under_its_key(record, raw, seat)


def outcome(raw: Message, seat: PartitionRef) -> Outcome | UnprocessableRecord:
    """Read one record of `lifecycle.outcomes`."""
    try:
        return _under_its_key(codec.decode(Outcome, raw.value), raw, seat)
    except Unreadable as fault:
        return UnprocessableRecord("unreadable", str(fault))


def _under_its_key(record: R, raw: Message, seat: PartitionRef) -> R | UnprocessableRecord:
    # The partition, and with it the row, follow from Kafka's key: another key inside would be another tenant's, and a
    # key in another partition would begin anew beside itself.
    if raw.key != record.key.encode():
        return UnprocessableRecord("unreadable", "key: is not that of the content")
    if _partition(raw.key, seat.partitions) != seat.partition:
        return UnprocessableRecord(
            "misplaced", f"key: belongs into another partition; write with the partitioner {PARTITIONER}"
        )
    return record


@lru_cache(maxsize=65_536)
def _partition(key: bytes, partitions: int) -> int:
    found: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return found


def untouched(arrived: Arrived) -> Message:
    """The record as it came."""
    headers = arrived.headers or ()
    return Message(
        arrived.key, arrived.value or b"", list(headers.items() if isinstance(headers, Mapping) else headers)
    )


def dead_letter(refused: UnprocessableRecord, raw: Message, place: RecordPosition) -> Output:
    """The refused record, whole, with the way back."""
    key = raw.key.decode("utf-8", "replace") if raw.key else None
    return letter(key, refused.reason, refused.detail, place, raw)
