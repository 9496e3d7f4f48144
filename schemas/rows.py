"""The ledger's two rows per key, and the packed form of a row in a changelog: version, schema number, JSON.

Rule: a packed row starts with the version as eight signed big-endian bytes, so the table adapter compares two rows
without parsing JSON. A row of an unknown schema raises `Unreadable` and is never read in part: the worker stops, and
the row stays as written.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from struct import Struct
from typing import Any, Final, TypeVar

from jiter import from_json

from schemas.codec import Unreadable
from schemas.journal import (
    Aspect,
    Entry,
    Mark,
    Move,
    ObservedTimes,
    Parted,
    Published,
    Register,
    Registers,
    Variant,
    Verdict,
)
from schemas.outcome import Direction, State
from schemas.tenant import Flag, Stage
from schemas.values import EventType, Key, Source

# Compatibility. A release reads rows of older and of newer releases with the same SCHEMA: `unpack` ignores unknown
# fields of a row and fills missing fields with the defaults. Only an incompatible change raises SCHEMA. Entries inside
# a row are JSON lists, read by position (see `schemas.journal`).

SCHEMA: Final = 1
"""Number of the JSON's form, the ninth byte of a packed row; a new field with a default needs no new number."""

_HEAD = Struct(">qB")
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_UPDATED: Final = b'"updated_at_us":'
_DIGITS: Final = re.compile(rb"\d+")
_NO_REGISTERS: Final = Registers()
_NOT_SEEN: Final = ObservedTimes()

__all__ = ["Entry", "StageRow", "TenantRow", "Verdict", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class TenantRow:
    """State of a key from `lifecycle.received`; times are microseconds UTC.

    Attributes:
        key: `orgId:integrationId`.
        version: 1 or more, raised by every change; 0 for an empty row without a record.
        offset: Offset of the newest record with a change of this row; -1 before the first.
        incarnation: Identity of the topic behind every offset in this row; empty if unknown.
        base: The registers from folded entries.
        now: `base` with the journal folded on top.
        entries: The journal, sorted by order key (τ, rank, uid).
        parted: Folded entries with offsets that Kafka may deliver again; only a replay reads these entries.
        texts: By digest: canonical JSON of every configuration in use by entries or registers.
        folded_to: The greatest τ of a folded entry; None before the first fold.
        folded_offset: The greatest offset of an entry dropped from `parted`.
        marks: Flag marks of folded entries.
        flags: All flags in force.
        seen: Time of the newest observation of each aspect.
        recheck_at_us: Time of a re-check without an answer; None if no re-check is open.
        revision: The last revision given.
        desired_version: Version of this row at the last publication of `desired`; 0 before the first.
        desired_at_us: Log time of the last publication of `desired`.
        trace: `traceparent` of the record behind the last publication of `desired`.
        turned: Version of this row at the last change of desired `installed`.
        ever: True if `installed` was desired at least once.
        updated_at_us: Log time of the last change.
        moves: The newest changes of stage.
    """

    key: Key
    version: int = 0
    offset: int = -1
    incarnation: str = ""
    base: Registers = _NO_REGISTERS
    now: Registers = _NO_REGISTERS
    entries: tuple[Entry, ...] = ()
    parted: tuple[Parted, ...] = ()
    texts: dict[str, str] | None = None
    folded_to: int | None = None
    folded_offset: int = -1
    marks: tuple[Mark, ...] = ()
    flags: tuple[Flag, ...] = ()
    seen: ObservedTimes = _NOT_SEEN
    recheck_at_us: int | None = None
    revision: int = 0
    desired_version: int = 0
    desired_at_us: int = 0
    trace: str | None = None
    turned: int = 0
    ever: bool = False
    updated_at_us: int = 0
    moves: tuple[Move, ...] = ()


@dataclass(frozen=True, slots=True)
class StageRow:
    """State of a key from `lifecycle.outcomes`: the last outcome, and facts about the outcome's generation.

    Attributes:
        key: `orgId:integrationId`.
        version: As in `TenantRow`.
        offset: Offset of the newest record with a change of this row; -1 before the first.
        incarnation: Identity of the topic behind the offsets; empty if unknown.
        seq: Sequence number of the last outcome; an outcome at or below this number changes nothing.
        desired_version: The desired version answered by the last outcome.
        generation: Generation of the last outcome.
        direction: Direction of the last outcome.
        state: State of the last outcome.
        step: Step of the last outcome.
        reason: Reason of the last outcome.
        tenant_id: The tenantId of the newest known binding; None if no outcome named a tenantId.
        bound: True if the last outcome names a tenantId and does not end the life.
        up_done: True if an `up` of this generation was done.
        down_began: True if a `down` of this generation began after the last finished `up`.
        updated_at_us: Log time of the last change, microseconds UTC.
        moves: The newest changes of stage.
    """

    key: Key
    version: int = 0
    offset: int = -1
    incarnation: str = ""
    seq: int = 0
    desired_version: int = 0
    generation: int = 0
    direction: Direction = Direction.UP
    state: State = State.WORKING
    step: str | None = None
    reason: str | None = None
    tenant_id: str | None = None
    bound: bool = False
    up_done: bool = False
    down_began: bool = False
    updated_at_us: int = 0
    moves: tuple[Move, ...] = ()


Row = TypeVar("Row", TenantRow, StageRow)


def pack(row: TenantRow | StageRow) -> bytes:
    """Returns the packed form of a row; equal rows have equal bytes."""
    body = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "version"}
    # The standard encoder writes a StrEnum member as the text it is; faster encoders call `.value` on every member.
    return _HEAD.pack(row.version, SCHEMA) + _ENCODER.encode(body).encode()


def unpack(form: type[Row], packed: bytes) -> Row:
    """Returns the row of a packed form.

    Raises:
        Unreadable: The bytes are no row of this class, or of a schema unknown to this program.
    """
    if len(packed) < _HEAD.size:
        raise Unreadable(f"{form.__name__}: {len(packed)} bytes")
    version, schema = _HEAD.unpack_from(packed)
    if schema != SCHEMA:
        raise Unreadable(f"{form.__name__}: schema {schema}, and this program reads {SCHEMA}")
    known = {field.name for field in fields(form)}
    try:
        body = from_json(packed[_HEAD.size :])
        values = {name: _READ.get(name, _same)(value) for name, value in body.items() if name in known}
        return form(**{**values, "version": version})
    except _DAMAGE as damage:
        raise Unreadable(f"{form.__name__}: {type(damage).__name__}") from None


def updated_at_us(packed: bytes) -> int:
    """Returns the log time of a packed row's last change, microseconds UTC, without parsing the JSON.

    Raises:
        Unreadable: The bytes are no row, or of a schema unknown to this program.
    """
    # The search cannot hit a value: a quote inside a JSON string is escaped, so no string contains these bytes.
    at = packed.rfind(_UPDATED)
    if at < 0 or packed[_HEAD.size - 1] != SCHEMA:
        raise Unreadable("not a row that this program reads")
    found = _DIGITS.match(packed, at + len(_UPDATED))
    return int(found[0]) if found else 0


_DAMAGE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""Errors of reading damaged or foreign JSON as a row."""


def _same(value: Any) -> Any:
    return value


def _registers(value: list[Any]) -> Registers:
    return Registers(*(None if held is None else Register(*held) for held in value))


_EVENTS: Final = {str(event): event for event in EventType}
_VERDICTS: Final = {str(verdict): verdict for verdict in Verdict}
_SOURCES: Final = {str(source): source for source in Source}


def _entry(value: list[Any]) -> Entry:
    # Numbers, not names, and the list is changed in place: this runs for every entry of every row that is read. The
    # numbers are the positions of the fields of `Entry`.
    value[3] = _EVENTS[value[3]]
    value[8] = _SOURCES[value[8]]
    value[10], value[11] = _VERDICTS[value[10]], _VERDICTS[value[11]]
    if value[16] is not None:
        event, at_us, tenant_id, digest, source = value[16]
        value[16] = Published(_EVENTS[event], at_us, tenant_id, digest, _SOURCES[source])
    value[17] = tuple(Variant(f, _EVENTS[event], *rest) for f, event, *rest in value[17])
    return Entry._make(value)


def _move(value: list[Any]) -> Move:
    offset, version, before, after, reason, at_us = value
    first, second = (None if stage is None else Stage(stage) for stage in (before, after))
    return Move(offset, version, first, second, reason, at_us)


_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "base": _registers,
    "now": _registers,
    "entries": lambda value: tuple(map(_entry, value)),
    "parted": lambda value: tuple(Parted(offset, _entry(entry)) for offset, entry in value),
    "marks": lambda value: tuple(Mark(Flag(flag), Aspect(aspect), at_us) for flag, aspect, at_us in value),
    "flags": lambda value: tuple(map(Flag, value)),
    "seen": lambda value: ObservedTimes(*value),
    "moves": lambda value: tuple(map(_move, value)),
    "direction": Direction,
    "state": State,
}
"""By field: the function from JSON back to the field's type, for the types without a JSON form of their own."""
