"""Parses Kafka records into the values that `services.core.ledger` decides about, or into dead letters.

Rule: a record is parsed once, here. An unprocessable record goes whole to the dead letters, once; the letter is named
by the record's position, so a replay writes the same letter.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeVar

from aiokafka.partitioner import murmur2
from faust.types.tuples import Message as FaustMessage

from schemas import codec, hint, webhook
from schemas.codec import Message, Unreadable
from schemas.dead_letter import DeadLetterReason
from schemas.event import Observed, Recheck
from schemas.hint import IntegrationAudit
from schemas.outcome import Outcome
from schemas.topics import PARTITIONER
from schemas.webhook import Delivery, Malformed, UnknownEvent
from services.adapters.tables.app import headers_of
from services.core.delivery.audited_events import audited_event
from services.core.ledger import projections
from services.core.ledger.decisions import Received
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output

R = TypeVar("R", Delivery, IntegrationAudit, Observed, Recheck, Received, Outcome)


@dataclass(frozen=True, slots=True)
class UnprocessableRecord:
    """The reason for which a record cannot be processed.

    Attributes:
        reason: The reason.
        detail: Names a field and a rule, never a value.
    """

    reason: DeadLetterReason
    detail: str


class PartitionRef(NamedTuple):
    """A partition of a topic.

    Attributes:
        partition: Number of the partition.
        partitions: Partition count of the topic.
    """

    partition: int
    partitions: int


def received(raw: Message, read_from: PartitionRef) -> Received | UnprocessableRecord:
    """Parses a record of `lifecycle.received`.

    Args:
        raw: The record, untouched.
        read_from: The partition of the record.
    """
    value = raw.value
    kind = codec.texts(raw.headers).get("ce_type")
    try:
        match kind:
            case webhook.CE_TYPE:
                record: Received = webhook.parse(value)
            case hint.CE_TYPE:
                record = _audit(value)
            case Observed.ce_type:
                record = codec.decode(Observed, value)
            case Recheck.ce_type:
                record = codec.decode(Recheck, value)
            case _:
                return UnprocessableRecord(
                    DeadLetterReason.UNREADABLE, "ce_type: none of webhook, audit, observation and re-check"
                )
    except UnknownEvent as fault:  # a kind of Malformed, so this clause comes first
        return UnprocessableRecord(DeadLetterReason.UNKNOWN_EVENT, str(fault))
    except Malformed as fault:
        return UnprocessableRecord(DeadLetterReason.MALFORMED, str(fault))
    except Unreadable as fault:
        return UnprocessableRecord(DeadLetterReason.UNREADABLE, str(fault))
    return _under_its_key(record, raw, read_from)


def _audit(value: bytes) -> IntegrationAudit:
    """Parses an envelope that counts as an event.

    Raises:
        Malformed: The body is no audit of an integration, or states no event.
    """
    found = hint.audit(hint.parse(value))
    if audited_event(found) is None:
        raise Malformed("detail.eventBody.action", "states no event")
    return found


def outcome(raw: Message, read_from: PartitionRef) -> Outcome | UnprocessableRecord:
    """Parses a record of `lifecycle.outcomes`.

    Args:
        raw: The record, untouched.
        read_from: The partition of the record.
    """
    try:
        return _under_its_key(codec.decode(Outcome, raw.value), raw, read_from)
    except Unreadable as fault:
        return UnprocessableRecord(DeadLetterReason.UNREADABLE, str(fault))


def _under_its_key(record: R, raw: Message, read_from: PartitionRef) -> R | UnprocessableRecord:
    # Kafka's key decides the partition, and so the row. A different key inside would change another tenant's row. A key
    # in a partition that is not its own would begin a second row beside the first (docs/decisions/0018).
    if raw.key != record.key.encode():
        return UnprocessableRecord(DeadLetterReason.UNREADABLE, "key: is not that of the content")
    if _partition(raw.key, read_from.partitions) != read_from.partition:
        return UnprocessableRecord(
            DeadLetterReason.MISPLACED, f"key: belongs into another partition; write with the partitioner {PARTITIONER}"
        )
    return record


@lru_cache(maxsize=65_536)
def _partition(key: bytes, partitions: int) -> int:
    # As Kafka's own partitioner: the sign bit is dropped before the remainder is taken.
    found: int = (murmur2(key) & 0x7FFFFFFF) % partitions
    return found


def message_of(faust_message: FaustMessage) -> Message:
    """Returns the record of a Faust message, untouched."""
    return Message(faust_message.key, faust_message.value or b"", headers_of(faust_message))


def dead_letter(refused: UnprocessableRecord, raw: Message, position: RecordPosition) -> Output:
    """Returns the dead letter of an unprocessable record: the whole record, the reason and the position."""
    key = raw.key.decode("utf-8", "replace") if raw.key else None
    return projections.dead_letter(key, refused.reason, refused.detail, position, raw)
