"""Builds the dead letters of the services behind Kafka: the refused record, the reason, and the record's position.

Rule: the id of a dead letter is the position of the refused record, so a replay writes an equal dead letter. A dead
letter always fits into a Kafka record: of a larger body only the first MiB is kept, with the SHA-256 of the whole body.
The refused record stays in the original topic until the topic's retention ends.
"""

import re
from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

from schemas import codec
from schemas.dead_letter import DeadLetter
from schemas.topics import DEAD_LETTERS
from schemas.values import UUID_PATTERN
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import Output

# A dead letter too large for Kafka would fail at every attempt and stop the partition for good (docs/decisions/0018).

_BODY_MAX_BYTES: Final = 1_048_576
"""Greatest kept body: base64 grows the body by a third, and `RECORD_MAX_BYTES` leaves room for the remaining fields."""
_HEADERS_MAX_BYTES: Final = 65_536
"""Greatest size of the kept headers."""
_KEY: Final = re.compile(f"{UUID_PATTERN}:{UUID_PATTERN}")


def letter(
    key: str | None,
    reason: str,
    detail: str,
    place: RecordPosition,
    raw: codec.Message | None,
    *,
    source: str = "ledger",
) -> Output:
    """Returns a dead letter as a message for `lifecycle.dead-letters`.

    Args:
        key: The key of the refused record; text of a different form gives a dead letter without a key.
        reason: The reason in a word, as `unreadable`.
        detail: The field and the broken rule, never a value.
        place: The position of the refused record.
        raw: The untouched record; None for an empty body.
        source: Name of the writing service.
    """
    key = key if key is not None and _KEY.fullmatch(key) else None
    body = b"" if raw is None else raw.value
    if len(body) > _BODY_MAX_BYTES:
        detail += f"; body: the first {_BODY_MAX_BYTES} of {len(body)} bytes, sha256 {sha256(body).hexdigest()}"
    record = DeadLetter(
        id=f"{place.topic}/{place.partition}/{place.offset}",
        key=key,
        reason=reason,
        detail=detail,
        origin=place.topic,
        at=place.log_time_us,
        headers={} if raw is None else _bounded(codec.texts(raw.headers)),
        body_base64=b64encode(body[:_BODY_MAX_BYTES]).decode(),
    )
    source = f"/genesys-lifecycle/{source}"
    return Output(DEAD_LETTERS, codec.encode(record, key=key, ce_id=record.id, source=source, at_us=place.log_time_us))


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
