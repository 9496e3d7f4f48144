"""The form of a record in the spool: a line of numbers, a line of JSON, and the untouched value.

    spooled 1c291ae3 1 42 1785542400000000 613
    {"topic":"lifecycle.received","key":"org:integration","headers":[["ce_id","…"]]}
    {"event":"installed",…}

The numbers: CRC-32 of every later byte, version, sequence number, time of receipt (µs UTC), bytes after the line.
Rule: the CRC is checked before any field is used. The CRC covers the sequence number, so a record stored under a
foreign number is detected.
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
    """Raised for damaged bytes, or for a record under a foreign sequence number."""


class NewerFormat(ValueError):
    """Raised for an intact record of a later format version."""


@dataclass(frozen=True, slots=True)
class Spooled:
    """A record on the way to Kafka.

    Attributes:
        topic: Full name of the topic, with the prefix of the installation.
        message: Key, value and headers.
        received_us: Time of receipt at the ingress, microseconds UTC.
    """

    topic: str
    message: Message
    received_us: int


def encode(number: int, record: Spooled) -> bytes:
    """Returns the bytes of a record under a sequence number."""
    # Latin-1 maps every byte to a character and back, so key and headers survive JSON whatever bytes they hold.
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
    """Returns the time of receipt in microseconds UTC, after checking the CRC, without parsing the JSON.

    Raises:
        Corrupt: The bytes are damaged or belong to a different sequence number.
        NewerFormat: A later version of the program wrote the record.
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
    """Returns the record of its bytes.

    Raises:
        Corrupt: The bytes are damaged or belong to a different sequence number.
        NewerFormat: A later version of the program wrote the record.
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
    """Yields every intact record within `raw` with its number: in order of position, of any version, with repeats.

    A sender cannot smuggle a record into a body: outside of JSON strings the word `spooled` is not valid JSON, and
    inside of JSON strings a newline is not.
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
    # The CRC is compared as bytes. Compared as numbers, a hex letter with a flipped bit (`a` to `A`) would pass
    # unnoticed.
    summed = memoryview(raw)[line.start() + _SUMMED_FROM : end]
    return line.end() + int(line[5]) == end and b"%08x" % crc32(summed) == line[1]
