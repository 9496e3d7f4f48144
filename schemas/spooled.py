"""One record as it waits on local disk: a line of numbers, a line of JSON, and the value as it came.

    spooled 1c291ae3 1 42 1785542400000000 613
    {"topic":"lifecycle.received","key":"org:integration","headers":[["ce_id","…"]]}
    {"event":"installed",…}

The numbers: CRC-32 of all that follows it, version, sequence number, time of receipt (µs UTC), bytes after the line.
Rule: the sum covers the number too, so a record under another's number is found; and nothing is believed before it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from zlib import crc32

from schemas.codec import Message

VERSION: Final = 1

_LINE: Final = re.compile(rb"spooled ([0-9a-f]{8}) (\d{1,9}) (\d{1,20}) (-?\d{1,20}) (\d{1,9})\n")
_SUMMED_FROM: Final = len(b"spooled 00000000")


class Corrupt(ValueError):
    """Not what was written under this number."""


class NewerFormat(ValueError):
    """Whole, but written by a later version of this program."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """What will go to Kafka.

    Attributes:
        topic: Its whole name.
        message: Key, value and headers.
        received_us: When the ingress had it, microseconds UTC.
    """

    topic: str
    message: Message
    received_us: int


def encode(number: int, record: Spooled) -> bytes:
    """Write one record under its sequence number. Bytes of key and headers become text as latin-1: none is lost."""
    message = record.message
    head = {
        "topic": record.topic,
        "key": None if message.key is None else message.key.decode("latin-1"),
        "headers": [(name, value.decode("latin-1")) for name, value in message.headers],
    }
    rest = json.dumps(head, separators=(",", ":")).encode() + b"\n" + message.value
    summed = b" %d %d %d %d\n%b" % (VERSION, number, record.received_us, len(rest), rest)
    return b"spooled %08x%b" % (crc32(summed), summed)


def received_us(number: int, raw: bytes) -> int:
    """When the record was received; proves that it is whole, without reading more of it.

    Raises:
        Corrupt: it is not what was written under this number.
        Newer: a later version wrote it.
    """
    found = _LINE.match(raw)
    if found is None or not _is_whole(found, raw, len(raw)):
        raise Corrupt(f"record {number}: its sum is not its own")
    if int(found[3]) != number:
        raise Corrupt(f"record {number}: it is number {int(found[3])}")
    if int(found[2]) > VERSION:
        raise NewerFormat(f"record {number}: version {int(found[2])}, and this program reads up to {VERSION}")
    return int(found[4])


def decode(number: int, raw: bytes) -> Spooled:
    """Read one record.

    Raises:
        Corrupt: it is not what was written under this number.
        Newer: a later version wrote it.
    """
    at_us = received_us(number, raw)
    try:
        _, head, value = raw.split(b"\n", 2)
        fields = json.loads(head)
        key = None if fields["key"] is None else fields["key"].encode("latin-1")
        headers = [(name, text.encode("latin-1")) for name, text in fields["headers"]]
        return Spooled(fields["topic"], Message(key, value, headers), at_us)
    except (ValueError, LookupError, TypeError, AttributeError):
        raise Corrupt(f"record {number}: its sum holds, its head cannot be read") from None


def carve(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Every whole record somewhere in `raw`, with its number, in the order met; of any version, repeats included.

    A sender cannot smuggle one in: its newlines may stand in no string of JSON, and its words nowhere else in it.
    """
    at = 0
    while (found := _LINE.search(raw, at)) is not None:
        end = found.end() + int(found[5])
        if end <= len(raw) and _is_whole(found, raw, end):
            yield int(found[3]), raw[found.start() : end]
            at = end
        else:
            at = found.end()


def _is_whole(line: re.Match[bytes], raw: bytes, end: int) -> bool:
    # The sum is compared as bytes: as a number, a letter with one bit flipped to upper case would be the same.
    summed = memoryview(raw)[line.start() + _SUMMED_FROM : end]
    return line.end() + int(line[5]) == end and b"%08x" % crc32(summed) == line[1]
