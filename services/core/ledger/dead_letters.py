"""The one builder of dead letters behind Kafka: a record, whole, with the reason and the way back.

Rule: a letter is named by the place of its record, so a replay writes the same letter. A letter always fits into one
record of Kafka: of what is larger than that its beginning is kept, and its hash; the record itself stands where it was.
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

_BODY_MAX_BYTES: Final = 1_048_576
"""Base64 makes four thirds of it, which leaves room for the rest of the letter (`RECORD_MAX_BYTES`)."""
_HEADERS_MAX_BYTES: Final = 65_536
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
    """Write one dead letter.

    Args:
        key: Whom the record speaks of; where that is no key, the letter has none.
        reason: One word.
        detail: Names a field and a rule, never a value.
        place: Where the record stands.
        raw: The record untouched.
        source: The service that writes it.
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
    """As many headers as fit, in their order; a byte that is no UTF-8 takes three."""
    kept, left = dict[str, str](), _HEADERS_MAX_BYTES
    for name, text in headers.items():
        left -= len(name.encode()) + len(text.encode())
        if left < 0:
            break
        kept[name] = text
    return kept
