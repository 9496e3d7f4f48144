"""Builds every dead letter: the refused record or delivery, the reason, and the origin.

Rule: the id of a dead letter follows from the origin, so a replay writes an equal dead letter. A dead letter always
fits into a Kafka record: of a larger body only the first MiB is kept, with the SHA-256 of the whole body. A refused
record stays in the original topic until the topic's retention ends.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from schemas import codec
from schemas.dead_letter import DeadLetter, DeadLetterReason
from schemas.values import UUID_PATTERN

# A dead letter too large for Kafka would fail at every attempt and stop the partition for good (docs/decisions/0018).

_BODY_MAX_BYTES: Final = 1_048_576
"""Greatest kept body: base64 grows the body by a third, and `RECORD_MAX_BYTES` leaves room for the remaining fields."""
_HEADERS_MAX_BYTES: Final = 65_536
"""Greatest size of the kept headers."""
_KEY: Final = re.compile(f"{UUID_PATTERN}:{UUID_PATTERN}")


class RefusedOrigin(NamedTuple):
    """The origin of a refused record or delivery.

    Attributes:
        id: Id of the dead letter; equal in every repetition.
        name: The topic, or `ingress`.
        partition: Partition of the topic; None for a delivery.
        offset: Offset in the partition; None for a delivery.
        at_us: Log time of the record or time of receipt, microseconds UTC.
    """

    id: str
    name: str
    partition: int | None
    offset: int | None
    at_us: int


def origin_of_record(topic: str, partition: int, offset: int, at_us: int) -> RefusedOrigin:
    """Returns the origin of a Kafka record."""
    return RefusedOrigin(f"{topic}/{partition}/{offset}", topic, partition, offset, at_us)


def origin_of_delivery(name: str, at_us: int) -> RefusedOrigin:
    """Returns the origin of a delivery that no topic holds.

    Args:
        name: Name of the delivery: the digest of its bytes.
        at_us: Time of receipt, microseconds UTC.
    """
    return RefusedOrigin(f"ingress/{name}", "ingress", None, None, at_us)


def dead_letter_of(
    origin: RefusedOrigin, key: str | None, reason: DeadLetterReason, detail: str, raw: codec.Message, *, source: str
) -> codec.Message:
    """Returns a dead letter as a message for `lifecycle.dead-letters`.

    Args:
        origin: The origin of the refused record or delivery.
        key: The key of the refused record; text of a different form gives a dead letter without a key.
        reason: The reason.
        detail: The field and the broken rule, never a value.
        raw: The untouched value with the headers to keep.
        source: Name of the writing service.
    """
    key = key if key is not None and _KEY.fullmatch(key) else None
    body = raw.value
    if len(body) > _BODY_MAX_BYTES:
        detail += f"; body: the first {_BODY_MAX_BYTES} of {len(body)} bytes, sha256 {sha256(body).hexdigest()}"
    record = DeadLetter(
        id=origin.id,
        key=key,
        reason=reason,
        detail=detail,
        origin=origin.name,
        origin_partition=origin.partition,
        origin_offset=origin.offset,
        at=origin.at_us,
        headers=_bounded(codec.texts(raw.headers)),
        body_base64=b64encode(body[:_BODY_MAX_BYTES]).decode("ascii"),
    )
    source, trace = f"/genesys-lifecycle/{source}", codec.traceparent(raw.headers)
    return codec.encode(record, key=key, ce_id=record.id, source=source, at_us=origin.at_us, trace=trace)


def _bounded(headers: Mapping[str, str]) -> dict[str, str]:
    """Returns the first headers within the size limit, in order."""
    # The size is of the decoded text: `texts` replaces an invalid byte by U+FFFD, which takes three bytes in UTF-8.
    kept, left = dict[str, str](), _HEADERS_MAX_BYTES
    for name, text in headers.items():
        left -= len(name.encode()) + len(text.encode())
        if left < 0:
            break
        kept[name] = text
    return kept
