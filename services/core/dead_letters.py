"""The one builder of the ledger's dead letters: a record of Kafka, whole, with the reason and the way back.

Rule: a letter is named by the place of its record, so a replay writes the same letter.
"""

from base64 import b64encode

from schemas import codec
from schemas.dead_letter import DeadLetter
from schemas.topics import DEAD_LETTERS
from schemas.values import Key
from services.core.journal import Place
from services.core.views import Output


def letter(key: Key | None, reason: str, detail: str, place: Place, raw: codec.Message | None) -> Output:
    """Write one dead letter.

    Args:
        key: Whom the record speaks of; None where it does not say.
        reason: One word.
        detail: Names a field and a rule, never a value.
        place: Where the record stands.
        raw: The record untouched.
    """
    record = DeadLetter(
        id=f"{place.topic}/{place.partition}/{place.offset}",
        key=key,
        reason=reason,
        detail=detail,
        origin=place.topic,
        at=place.log_time_us,
        headers={} if raw is None else codec.texts(raw.headers),
        body_base64=b64encode(b"" if raw is None else raw.value).decode(),
    )
    source = "/genesys-lifecycle/ledger"
    return Output(DEAD_LETTERS, codec.encode(record, key=key, ce_id=record.id, source=source, at_us=place.log_time_us))
