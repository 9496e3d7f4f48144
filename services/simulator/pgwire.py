"""PostgreSQL's wire format, as much of it as a proxy must read to know what a session does.

Source: PostgreSQL 18 documentation, chapter 54 (message formats). Bytes only: nothing here opens a socket.
"""

import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from services.core.calls import Verb

SSL_REQUEST: Final = 80_877_103
GSS_REQUEST: Final = 80_877_104
CANCEL_REQUEST: Final = 80_877_102
_START_MAX_BYTES: Final = 10_000
_OPTION: Final = "lifecycle.call="


@dataclass(frozen=True, slots=True)
class Announced:
    """The call that a connection says it is for."""

    verb: Verb
    key: str
    generation: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message after the start: its type byte and its body."""

    kind: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """As it goes over the wire."""
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body

    @property
    def text(self) -> str:
        """The first zero-ended string of the body: a query, or a command tag."""
        return self.body.partition(b"\0")[0].decode("utf-8", "replace")

    @property
    def starts(self) -> str | None:
        """The statement that a client's message starts, None for any other message."""
        if self.kind == b"Q":
            return self.text
        return self.body.split(b"\0", 2)[1].decode("utf-8", "replace") if self.kind == b"P" else None

    @property
    def sqlstate(self) -> str:
        """The code of an ErrorResponse."""
        fields = self.body.split(b"\0")
        return next((field[1:].decode() for field in fields if field[:1] == b"C"), "XX000")


async def read_start(reader: StreamReader) -> tuple[int, bytes]:
    """Read one start packet: its code, and all of it as it came."""
    size = await reader.readexactly(4)
    length = struct.unpack("!I", size)[0]
    if not 8 <= length <= _START_MAX_BYTES:
        raise ValueError("not a start packet")
    body = await reader.readexactly(length - 4)
    return struct.unpack("!I", body[:4])[0], size + body


async def read_message(reader: StreamReader) -> Message:
    """Read one message after the start."""
    head = await reader.readexactly(5)
    return Message(head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4))


def announced(start: bytes) -> Announced | None:
    """The call that a start packet announces in its `options`, None where it announces none."""
    words = start[8:].split(b"\0")
    given = dict(zip(words[::2], words[1::2], strict=False))
    options = given.get(b"options", b"").decode("utf-8", "replace").split()
    text = next((word.partition(_OPTION)[2] for word in options if _OPTION in word), "")
    parts = text.split(":")
    try:
        verb, *key, generation, idempotency_key = parts
        return Announced(Verb(verb), unquote(":".join(key)), int(generation), unquote(idempotency_key))
    except ValueError:
        return None


def error(sqlstate: str, text: str) -> bytes:
    """An ErrorResponse, and ReadyForQuery outside a transaction."""
    fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode()
    return Message(b"E", fields).raw + Message(b"Z", b"I").raw
