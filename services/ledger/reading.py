"""From a record of Kafka to what the core decides about, or to a dead letter.

Rule: a record is read once, here; what cannot be read goes whole to the dead letters, once, under the name of its
place, so a replay writes the same letter.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from faust.types.tuples import Message as Arrived

from schemas import codec, webhook
from schemas.codec import Message, Unreadable
from schemas.event import Observed, Recheck
from schemas.outcome import Outcome
from schemas.values import UUID_PATTERN
from schemas.webhook import Delivery, Malformed, UnknownEvent
from services.core.dead_letters import letter
from services.core.ledger import Output, Place, Received

R = TypeVar("R", Delivery, Observed, Recheck, Received, Outcome)

_KEY = re.compile(f"{UUID_PATTERN}:{UUID_PATTERN}".encode(), re.ASCII)


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that nobody can process.

    Attributes:
        reason: `malformed`, `unknown_event` or `unreadable`.
        detail: Names a field and a rule, never a value.
    """

    reason: str
    detail: str


def received(raw: Message) -> Received | Refused:
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
                return Refused("unreadable", "ce_type: none of webhook, observation and re-check")
    except UnknownEvent as fault:
        return Refused("unknown_event", str(fault))
    except Malformed as fault:
        return Refused("malformed", str(fault))
    except Unreadable as fault:
        return Refused("unreadable", str(fault))
    return _under_its_key(record, raw)


def outcome(raw: Message) -> Outcome | Refused:
    """Read one record of `lifecycle.outcomes`."""
    try:
        return _under_its_key(codec.decode(Outcome, raw.value), raw)
    except Unreadable as fault:
        return Refused("unreadable", str(fault))


def _under_its_key(record: R, raw: Message) -> R | Refused:
    # The partition, and with it the row, follow from Kafka's key: another key inside would be another tenant's.
    return record if raw.key == record.key.encode() else Refused("unreadable", "key: is not that of the content")


def untouched(arrived: Arrived) -> Message:
    """The record as it came."""
    headers = arrived.headers or ()
    return Message(
        arrived.key, arrived.value or b"", list(headers.items() if isinstance(headers, Mapping) else headers)
    )


def dead_letter(refused: Refused, raw: Message, place: Place) -> Output:
    """The refused record, whole, with the way back."""
    key = raw.key.decode() if raw.key is not None and _KEY.fullmatch(raw.key) else None
    return letter(key, refused.reason, refused.detail, place, raw)
