"""Between records and Kafka: CloudEvents 1.0 in binary mode, JSON values, one error.

Rule: the attributes are headers, the value is the data alone, the key is the key. Source: CloudEvents Kafka protocol
binding 1.0.2, section 3.2.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from pydantic import ValidationError

from schemas import webhook
from schemas.times import rfc3339
from schemas.values import Key, Record

Headers = list[tuple[str, bytes]]
R = TypeVar("R", bound=Record)

JSON_TYPE: Final = b"application/json"
_SPECVERSION: Final = ("ce_specversion", b"1.0")
_CONTENT_TYPE: Final = ("content-type", JSON_TYPE)
_INGRESS: Final = ("ce_source", b"/genesys-lifecycle/ingress")
_WEBHOOK: Final = ("ce_type", webhook.CE_TYPE.encode())


class Unreadable(ValueError):
    """A record that this version cannot read; the text names fields and rules, never values."""


class Message(NamedTuple):
    """What goes to Kafka, and what comes back.

    Attributes:
        key: `orgId:integrationId` as UTF-8, or None.
        value: The data.
        headers: CloudEvents attributes (`ce_*`), `content-type`, and what rides along.
    """

    key: bytes | None
    value: bytes
    headers: Sequence[tuple[str, bytes]] = ()


def attributes(*, ce_id: str, ce_type: str, source: str, at_us: int, extra: Mapping[str, str] | None = None) -> Headers:
    """The headers of one CloudEvent; `extra` are plain headers beside them (`traceparent`, `endpoint`, …)."""
    headers = [
        _SPECVERSION,
        ("ce_id", ce_id.encode()),
        ("ce_source", source.encode()),
        ("ce_type", ce_type.encode()),
        ("ce_time", rfc3339(at_us).encode()),
        _CONTENT_TYPE,
    ]
    if extra:
        headers += [(name, text.encode()) for name, text in extra.items()]
    return headers


def encode(
    record: Record,
    *,
    key: Key | None,
    ce_id: str,
    source: str,
    at_us: int,
    extra: Mapping[str, str] | None = None,
) -> Message:
    """Write one record of ours.

    Args:
        record: Its class names its `ce_type`.
        key: The Kafka key.
        ce_id: Unique per record; equal for a repeat of the same one.
        source: `/genesys-lifecycle/{service}`.
        at_us: When it happened, microseconds UTC.
        extra: Plain headers beside the attributes.
    """
    ce_type: str = type(record).ce_type  # type: ignore[attr-defined]  # every concrete record declares it
    headers = attributes(ce_id=ce_id, ce_type=ce_type, source=source, at_us=at_us, extra=extra)
    return Message(None if key is None else key.encode(), dump(record), headers)


def received(body: bytes, *, key: Key | None, ce_id: str, received_at_us: int, beside: Headers) -> Message:
    """Wrap one untouched delivery for `lifecycle.received`.

    Args:
        body: The raw bytes.
        key: The Kafka key.
        ce_id: Equal for equal bytes.
        received_at_us: When the ingress had it; stamped once. Becomes `ce_time` and the header `received_at`.
        beside: The other headers that ride along: `endpoint`, `event_timestamp_header`, `traceparent`.
    """
    time = rfc3339(received_at_us).encode()
    headers = [_SPECVERSION, ("ce_id", ce_id.encode()), _INGRESS, _WEBHOOK, ("ce_time", time), _CONTENT_TYPE]
    return Message(None if key is None else key.encode(), body, [*headers, *beside, ("received_at", time)])


def dump(record: Record) -> bytes:
    """The JSON of a record."""
    return record.model_dump_json(by_alias=True).encode()


def decode(model: type[R], value: bytes | None) -> R:
    """Read the JSON of a record.

    Raises:
        Unreadable: not JSON, or not this record.
    """
    if value is None:
        raise Unreadable(f"{model.__name__}: no value")
    try:
        return model.model_validate_json(value)
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault['type']}"
            for fault in error.errors(include_input=False, include_url=False, include_context=False)
        )
        raise Unreadable(f"{model.__name__}: {faults}") from None


def texts(headers: Sequence[tuple[str, Any]] | None) -> dict[str, str]:
    """Kafka's headers as text; of a repeated header the first counts, bytes that are not UTF-8 are replaced."""
    found: dict[str, str] = {}
    for name, value in headers or ():
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
        found.setdefault(name, text)
    return found
