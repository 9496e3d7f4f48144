"""A record as Kafka keeps it, read back from a topic, and its form as a line of an exported file."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.times import rfc3339
from schemas.values import Instant


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One record as stored in the log.

    Attributes:
        topic: Full name, with the prefix of the installation.
        partition: Number of the partition.
        offset: Offset in the partition.
        at_us: The record's timestamp, microseconds UTC.
        key: As text; empty for a record without a key.
        value: The data; None is a tombstone.
        headers: As text; of several headers with one name the first.
    """

    topic: str
    partition: int
    offset: int
    at_us: int
    key: str
    value: bytes | None
    headers: dict[str, str]


class Misread(ValueError):
    """Raised for a line that is no exported record; the text names line and field, never a value."""


class _Line(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    partition: int
    offset: int
    at: Instant
    key: str
    headers: dict[str, str]
    value: str | None = None
    value_base64: str | None = None


def exported(record: StoredRecord) -> str:
    """Returns a record as a line of JSON, without the name of the topic.

    The text of `value` is the record's value to the byte. A value that is no UTF-8 stands as `value_base64`; a
    tombstone has neither.
    """
    line = {
        "partition": record.partition,
        "offset": record.offset,
        "at": rfc3339(record.at_us),
        "key": record.key,
        "headers": record.headers,
    }
    if record.value is not None:
        try:
            line["value"] = record.value.decode()
        except UnicodeDecodeError:
            line["value_base64"] = base64.b64encode(record.value).decode()
    return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


def imported(lines: Iterator[bytes], topic: str) -> Iterator[StoredRecord]:
    """Yields the records of an exported file.

    Args:
        lines: The lines of the file.
        topic: Name of the topic for the records.

    Raises:
        Misread: A line is not what `exported` writes.
    """
    for number, text in enumerate(lines, 1):
        try:
            line = _Line.model_validate_json(text)
            encoded = line.value_base64
            value = None if encoded is None else base64.b64decode(encoded, validate=True)
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            where = ".".join(map(str, fault["loc"])) or "line"
            raise Misread(f"line {number}: {where}: {fault['type']}") from None
        except ValueError:
            raise Misread(f"line {number}: value_base64: no base64") from None
        if line.value is not None:
            value = line.value.encode()
        yield StoredRecord(topic, line.partition, line.offset, line.at, line.key, value, line.headers)
