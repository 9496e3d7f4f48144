"""Codec between records and Kafka messages: CloudEvents 1.0 in binary mode, with JSON values.

Rule: the attributes of a CloudEvent are Kafka headers, the Kafka value is the data alone, and the Kafka key is the
tenant's key. `Unreadable` is the only error of decoding. Source: CloudEvents Kafka protocol binding 1.0.2, section 3.2.
"""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from schemas import webhook
from schemas.times import rfc3339
from schemas.values import Key, Record

# The headers are written by hand: the official library builds objects and dictionaries for every message, on the path
# of every delivery (docs/decisions/0010). A contract test lets the library read these messages and the other way round.

Headers = list[tuple[str, bytes]]
R = TypeVar("R", bound=Record)

JSON_TYPE: Final = b"application/json"
# Encoded once, not per message: `received` runs for every webhook.
_SPECVERSION: Final = ("ce_specversion", b"1.0")
_CONTENT_TYPE: Final = ("content-type", JSON_TYPE)
_INGRESS: Final = ("ce_source", b"/genesys-lifecycle/ingress")
_WEBHOOK: Final = ("ce_type", webhook.CE_TYPE.encode())
_TRACEPARENT: Final = "00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
TRACEPARENT_SHAPE: Final = re.compile(_TRACEPARENT.encode())
"""W3C Trace Context, level 1, version 00: an id of zeros alone is invalid."""
_TRACEPARENT_TEXT: Final = re.compile(_TRACEPARENT)


class Unreadable(ValueError):
    """Raised for a value beyond this version of the program; the text names fields and rules, never values."""


class Message(NamedTuple):
    """A Kafka message, before sending or after consuming.

    Attributes:
        key: `orgId:integrationId` as UTF-8, or None.
        value: The data of the CloudEvent.
        headers: CloudEvents attributes (`ce_*`), `content-type`, and plain headers (`traceparent`, `endpoint`, …).
    """

    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def attributes(*, ce_id: str, ce_type: str, source: str, at_us: int, trace: str | None = None) -> Headers:
    """Returns the headers of a CloudEvent.

    Args:
        ce_id: Unique per record, and equal in every repetition of the record.
        ce_type: Name and version of the record's form, as `lifecycle.event.v1`.
        source: `/genesys-lifecycle/{service}`.
        at_us: Time of the fact, microseconds UTC; becomes `ce_time`.
        trace: Value of the plain header `traceparent`; None for no such header.
    """
    headers = [
        _SPECVERSION,
        ("ce_id", ce_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_time", rfc3339(at_us).encode()),
        _CONTENT_TYPE,
    ]
    if trace is not None:
        headers.append(("traceparent", trace.encode()))
    return headers


def encode(
    record: Record,
    *,
    key: Key | None,
    ce_id: str,
    source: str,
    at_us: int,
    trace: str | None = None,
) -> Message:
    """Encodes a record as a Kafka message.

    Args:
        record: A record of a concrete class, which names the `ce_type`.
        key: The Kafka key; None for a message without a key.
        ce_id: Unique per record, and equal in every repetition of the record.
        source: `/genesys-lifecycle/{service}`.
        at_us: Time of the fact, microseconds UTC; becomes `ce_time`.
        trace: Value of the plain header `traceparent`; None for no such header.
    """
    ce_type: str = type(record).ce_type  # type: ignore[attr-defined]  # every concrete record declares it
    headers = attributes(ce_id=ce_id, ce_type=ce_type, source=source, at_us=at_us, trace=trace)
    return Message(None if key is None else key.encode(), dump(record), headers)


def received(body: bytes, *, key: Key | None, ce_id: str, received_at_us: int, beside: Headers) -> Message:
    """Wraps an untouched delivery for `lifecycle.received`.

    Args:
        body: The raw bytes of the request, as signed.
        key: The Kafka key; None for a message without a key.
        ce_id: Equal for equal bytes.
        received_at_us: Time of receipt at the ingress, microseconds UTC, stamped once. Becomes `ce_time` and the header
            `received_at`.
        beside: Plain headers: `endpoint`, `event_timestamp_header`, `traceparent`.
    """
    time = rfc3339(received_at_us).encode()
    headers = [_SPECVERSION, ("ce_id", ce_id.encode()), _INGRESS, _WEBHOOK, ("ce_time", time), _CONTENT_TYPE]
    return Message(None if key is None else key.encode(), body, [*headers, *beside, ("received_at", time)])


def dump(record: Record) -> bytes:
    """Returns the JSON of a record, with the field aliases as names."""
    return record.model_dump_json(by_alias=True).encode()


def decode(model: type[R], value: bytes | None) -> R:
    """Decodes the JSON of a record.

    Raises:
        Unreadable: The value is absent, is not JSON, or does not have the form of `model`.
    """
    if value is None:
        raise Unreadable(f"{model.__name__}: no value")
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        # The messages of pydantic may quote the input, and the input may hold secrets: only the path of the field and
        # the type of the fault are kept, and `from None` drops the original error with the rest.
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['type']}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise Unreadable(f"{model.__name__}: {faults}") from None


def texts(headers: Sequence[tuple[str, Any]] | None) -> dict[str, str]:
    """Returns Kafka's headers as text; of repeated headers the first counts, and invalid UTF-8 is replaced."""
    found: dict[str, str] = {}
    for name, value in headers or ():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
        found.setdefault(name, text)
    return found


def traceparent(headers: Sequence[tuple[str, Any]] | None) -> str | None:
    """Returns the header `traceparent` if well-formed, else None.

    Rows and later records repeat the text, and an unchecked header could have any size.
    """
    for name, value in headers or ():
        if name == "traceparent":
            return value.decode("ascii") if isinstance(value, bytes) and TRACEPARENT_SHAPE.fullmatch(value) else None
    return None


def readable_trace(text: str | None) -> str | None:
    """Returns a stored `traceparent` if well-formed, else None: a row may have been edited by hand."""
    return text if text is not None and _TRACEPARENT_TEXT.fullmatch(text) else None
