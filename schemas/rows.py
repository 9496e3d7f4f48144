"""The ledger's two rows per key, and their bytes in a changelog: version, schema, JSON.

Rule: a packed row starts with its version as eight big-endian bytes, signed, so that a table keeps the newest row
without reading it. A row of a newer schema is refused, never read half: its worker stops and damages nothing.
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

SCHEMA: Final = 1
"""Of the JSON behind the first nine bytes; new fields with defaults need no new number."""

_HEAD = Struct(">qB")
_ENCODER = json.JSONEncoder(ensure_ascii=False, check_circular=False, separators=(",", ":"))
_UPDATED: Final = b'"updated_at_us":'
_DIGITS: Final = re.compile(rb"\d+")
_NO_REGISTERS: Final = Registers()
_NOT_SEEN: Final = ObservedTimes()

__all__ = ["Entry", "StageRow", "TenantRow", "Verdict", "pack", "unpack"]


@dataclass(frozen=True, slots=True)
class TenantRow:
    """What `lifecycle.received` made of a key.

    Attributes:
        key: `orgId:integrationId`.
        version: 1 or more; raised by every change. 0: there is no row yet.
        offset: Of the newest record that changed it; -1 before the first.
        incarnation: Identity of the topic that its offsets belong to; empty where nobody says.
        base: What folded.
        now: `base` with the journal on top.
        entries: The journal, sorted.
        parted: Entries that folded and whose offsets may still be delivered again; only a replay looks at them.
        texts: Canonical JSON of every configuration that something here refers to, by digest.
        folded_to: The greatest τ folded.
        folded_offset: The greatest offset that an entry came from of which nothing is kept.
        marks: Flags that outlived their entries.
        flags: All flags that stand now.
        seen: What was observed up to when.
        recheck_at_us: A re-check asked and not answered yet.
        revision: The last one given.
        desired_version: The version at which desired was last published; 0 before the first time.
        desired_at_us: Log time of that.
        trace: `traceparent` of the record that caused that.
        turned: The version at which desired `installed` last changed.
        ever: Installed was desired at least once.
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
    """What `lifecycle.outcomes` made of a key: its last outcome, and two facts about the generation of that.

    Attributes:
        key: `orgId:integrationId`.
        version: As in `TenantRow`.
        offset: Of the newest record that changed it.
        incarnation: Identity of the topic that its offset belongs to.
        seq: Of the last outcome; one that is not above it changes nothing.
        desired_version: The desired version that the last outcome answered.
        generation: Of the last outcome.
        direction: Of the last outcome.
        state: Of the last outcome.
        step: Of the last outcome.
        reason: Of the last outcome.
        tenant_id: The tenantId that its newest known life is or was bound to; None where no outcome told one.
        bound: True if that life is not over.
        up_done: In this generation `up` was done.
        down_began: In this generation `down` was heard of since.
        updated_at_us: Log time of the last change.
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
    """Write a row; equal rows give equal bytes."""
    body = {field.name: getattr(row, field.name) for field in fields(row) if field.name != "version"}
    # The standard encoder writes enums as the text they are; faster ones ask each for its value.
    return _HEAD.pack(row.version, SCHEMA) + _ENCODER.encode(body).encode()


def unpack(form: type[Row], packed: bytes) -> Row:
    """Read a row.

    Raises:
        Unreadable: not a row of this form, or of a schema this program does not know.
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
    """When a packed row was last changed, without reading the rest of it.

    Raises:
        Unreadable: not a row, or of a schema this program does not know.
    """
    # No text of the JSON can hold these bytes: a quote inside one is escaped.
    at = packed.rfind(_UPDATED)
    if at < 0 or packed[_HEAD.size - 1] != SCHEMA:
        raise Unreadable("not a row that this program reads")
    found = _DIGITS.match(packed, at + len(_UPDATED))
    return int(found[0]) if found else 0


_DAMAGE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)


def _same(value: Any) -> Any:
    return value


def _registers(value: list[Any]) -> Registers:
    return Registers(*(None if held is None else Register(*held) for held in value))


_EVENTS: Final = {str(event): event for event in EventType}
_VERDICTS: Final = {str(verdict): verdict for verdict in Verdict}
_SOURCES: Final = {str(source): source for source in Source}


def _entry(value: list[Any]) -> Entry:
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
"""How a field comes back from JSON, where JSON does not say it all."""
