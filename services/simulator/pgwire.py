"""Parses the part of PostgreSQL's wire format that the proxy needs, and builds error responses.

After a start packet (length, code, body) every message has a type byte, a length and a body; lengths are big-endian and
include their own four bytes.

Source: PostgreSQL 18 documentation, chapter 54 (message formats). This module opens no socket.
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
_ANNOUNCEMENT: Final = re.compile(r"set_config\('lifecycle\.call',\s*'([^']*)',\s*true\)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Announced:
    """The call named by a transaction (`lifecycle.call`)."""

    verb: Verb
    key: str
    generation: int
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class PgMessage:
    """One message after the start packet: type byte and body."""

    kind: bytes
    body: bytes

    @property
    def raw(self) -> bytes:
        """The bytes of the message on the wire."""
        return self.kind + struct.pack("!I", len(self.body) + 4) + self.body

    @property
    def text(self) -> str:
        """The first zero-terminated string of the body: the query of a Query, the tag of a CommandComplete."""
        return self.body.partition(b"\0")[0].decode("utf-8", "replace")

    @property
    def starts(self) -> str | None:
        """The SQL of a client's Query or Parse message; None for a message of any further type."""
        if self.kind == b"Q":
            return self.text
        # Parse: the name of the prepared statement, then the SQL, each zero-terminated.
        return self.body.split(b"\0", 2)[1].decode("utf-8", "replace") if self.kind == b"P" else None

    @property
    def sqlstate(self) -> str:
        """The SQLSTATE of an ErrorResponse; XX000 (internal error) if the message has none."""
        fields = self.body.split(b"\0")
        return next((field[1:].decode() for field in fields if field[:1] == b"C"), "XX000")


async def read_start(reader: StreamReader) -> tuple[int, bytes]:
    """Reads a start packet; returns the code and the whole packet, for forwarding.

    Raises:
        ValueError: The length is impossible: the client does not speak PostgreSQL.
        asyncio.IncompleteReadError: The connection ended.
    """
    size = await reader.readexactly(4)
    length = struct.unpack("!I", size)[0]
    if not 8 <= length <= _START_MAX_BYTES:
        raise ValueError("not a start packet")
    body = await reader.readexactly(length - 4)
    return struct.unpack("!I", body[:4])[0], size + body


async def read_message(reader: StreamReader) -> PgMessage:
    """Reads one message after the start packet.

    Raises:
        asyncio.IncompleteReadError: The connection ended.
    """
    head = await reader.readexactly(5)
    return PgMessage(head[:1], await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4))


def announced(statement: str) -> Announced | None:
    """Returns the call named in a statement by `set_config('lifecycle.call', '…', true)`; None without a valid call."""
    match = _ANNOUNCEMENT.search(statement)
    if match is None:
        return None
    try:
        # VERB:KEY:GENERATION:IDEMPOTENCY_KEY. The colon inside of KEY is not encoded, so the middle is variable.
        verb, *key, generation, idempotency_key = match[1].split(":")
        return Announced(Verb(verb), unquote(":".join(key)), int(generation), unquote(idempotency_key))
    except ValueError:
        return None


def error(sqlstate: str, text: str, *, in_transaction: bool = False) -> bytes:
    """Returns an ErrorResponse, followed by the ReadyForQuery that ends the answer to a query.

    Args:
        sqlstate: Five characters.
        text: Message for a person.
        in_transaction: True reports a failed transaction, which the client must roll back; False reports idle.
    """
    fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0".encode()
    return PgMessage(b"E", fields).raw + PgMessage(b"Z", b"E" if in_transaction else b"I").raw
