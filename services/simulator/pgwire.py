"""PostgreSQL's wire format, as much of it as a proxy must read to know what a session does.

Source: PostgreSQL 18 documentation, chapter 54 (message formats). Bytes only: nothing here opens a socket.
"""

import re
import struct
from asyncio import StreamReader
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from services.core.saga.calls import Verb

SSL_REQUEST: Final = 80_877_103
GSS_REQUEST: Final = 80_877_104
CANCEL_REQUEST: Final = 80_877_102
_START_MAX_BYTES: Final = 10_000
_SAID: Final = re.compile(r"set_config\('lifecycle\.call',\s*'([^']*)',\s*true\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Announced:
    """The call that a transaction says it is for."""

    verb: Verb
    key: str
    generation: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class PgMessage:
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


async def read_message(reader: StreamReader) -> PgMessage:
    """Read one message after the start."""
    head = await reader.readexactly(5)
    return PgMessage(head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4))


def announced(statement: str) -> Announced | None:
    """The call that a statement names by `set_config('lifecycle.call', '…', true)`, None where it names none."""
    found = _SAID.search(statement)
    if found is None:
        return None
    try:
        verb, *key, generation, idempotency_key = found[1].split(":")
        return Announced(Verb(verb), unquote(":".join(key)), int(generation), unquote(idempotency_key))
    except ValueError:
        return None


def error(sqlstate: str, text: str, *, in_transaction: bool = False) -> bytes:
    """An ErrorResponse, and the ReadyForQuery after it."""
    fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode()
    return PgMessage(b"E", fields).raw + PgMessage(b"Z", b"E" if in_transaction else b"I").raw
