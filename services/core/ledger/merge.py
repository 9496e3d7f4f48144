"""State is a function of the set of events: verdicts, registers and flags of one key, whatever came first.

Rule: nothing here looks at an order of arrival. Events sort by their version (τ, rank, uid); a verdict depends on the
events at or before its own time, the registers on the events judged new, the flags on both.

Theory. Without an id, a sender's retry with a new timestamp looks like a second event. An event whose hash equals that
of an earlier one at most 20 minutes before it is that one restamped, unless something that contradicts it lies between.
An unmarked one is then a new event. One marked as a retry is either a late retry of the first or a retry of a lost
second: nobody can know, so it is ambiguous and changes nothing until Genesys is asked.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from schemas.journal import VARIANTS_MAX, Aspect, Entry, Mark, ObservedTimes, Register, Registers, Verdict
from schemas.tenant import Flag
from schemas.values import EventType
from services.core.ledger.contradiction import Between

RETRY_SPAN_US: Final = 20 * 60 * 1_000_000
"""R: how long the sender retries (the guide, edge case 3)."""

RANK: Final = {
    EventType.UNINSTALLED: 0,
    EventType.ENABLED: 0,
    EventType.DISABLED: 1,
    EventType.INSTALLED: 2,
    EventType.CONFIGURATION_UPDATED: 3,
}
"""Who wins at one τ: being there over being gone, disabled over enabled, the newer word on the configuration."""

ASPECT: Final = {
    EventType.INSTALLED: Aspect.INSTALLED,
    EventType.UNINSTALLED: Aspect.INSTALLED,
    EventType.ENABLED: Aspect.ENABLED,
    EventType.DISABLED: Aspect.ENABLED,
    EventType.CONFIGURATION_UPDATED: Aspect.CONFIGURATION,
}


class Judged(NamedTuple):
    """Entries with their verdicts, and for each the index of the event it is a restamp of (its own, if it is none)."""

    entries: list[Entry]
    roots: list[int | None]
    """None where that event is in the journal no more."""


class MergedState(NamedTuple):
    """What follows from the registers; None is unknown."""

    installed: bool | None
    enabled: bool | None
    digest: str | None


def judge(entries: Sequence[Entry], since_us: int) -> Judged:
    """Give every entry that is not final its verdict.

    Args:
        entries: Sorted.
        since_us: Nothing changed below it, so verdicts below it stand.
    """
    between: Between | None = None
    judged: list[Entry] = []
    roots: list[int | None] = []
    newest: dict[str, int] = {}
    for index, entry in enumerate(entries):
        restampable = entry.uid.startswith("f:")
        twin = newest.get(entry.f) if restampable else None
        if twin is not None and entry.at_us - judged[twin].at_us > RETRY_SPAN_US:
            twin = None
        if not entry.frozen and entry.at_us >= since_us:
            between = between or Between(entries)
            verdict = _verdict(entry, None if twin is None else judged[twin], between)
            entry = entry if verdict is entry.verdict else entry._replace(verdict=verdict)  # noqa: PLW2901 - the same uid
        judged.append(entry)
        restamp = entry.verdict is Verdict.ABSORBED
        roots.append(index if not restamp else None if twin is None else roots[twin])
        if restampable:
            newest[entry.f] = index
    return Judged(judged, roots)


def _verdict(entry: Entry, twin: Entry | None, between: Between) -> Verdict:
    if twin is not None:
        if twin.verdict is not Verdict.AMBIGUOUS and not between.contradicts(entry, twin.at_us, orphan=False):
            return Verdict.ABSORBED
        return Verdict.AMBIGUOUS if entry.marked else Verdict.NEW
    if entry.marked and between.contradicts(entry, entry.at_us - RETRY_SPAN_US, orphan=True):
        return Verdict.AMBIGUOUS
    return Verdict.NEW


def fold(entries: Iterable[Entry], base: Registers) -> Registers:
    """Write the events judged new into the registers; the newest version wins.

    Args:
        entries: Sorted and judged.
        base: What was there before.
    """
    newest: dict[EventType, Entry] = {}
    configured = named = None
    for entry in entries:
        if entry.verdict is Verdict.NEW:
            newest[entry.event] = entry
            if entry.digest is not None:
                configured = entry
            if entry.event is EventType.INSTALLED and entry.tenant_id is not None:
                named = entry
    enabled, disabled = newest.get(EventType.ENABLED), newest.get(EventType.DISABLED)
    return Registers(
        _newer(base.installed, newest.get(EventType.INSTALLED), None),
        _newer(base.uninstalled, newest.get(EventType.UNINSTALLED), None),
        _newer(_newer(base.enabled, enabled, True), disabled, False),
        _newer(base.configuration, configured, None if configured is None else configured.digest),
        _newer(base.tenant, named, None if named is None else named.tenant_id),
    )


def _newer(held: Register | None, entry: Entry | None, value: Any) -> Register | None:
    if entry is None or (held is not None and held[:3] > entry[:3]):
        return held
    return Register(entry.at_us, entry.rank, entry.uid, value)


def view(registers: Registers) -> MergedState:
    """Read the registers: installed while N is above U; enablement and configuration count only above U."""
    installed, uninstalled, enabled, configuration, _ = registers
    if installed is None and uninstalled is None:
        return MergedState(None, None, None if configuration is None else configuration.value)
    if installed is None or (uninstalled is not None and uninstalled[:3] > installed[:3]):
        return MergedState(False, None, None)

    def counts(held: Register | None) -> bool:
        return held is not None and (uninstalled is None or held[:3] > uninstalled[:3])

    return MergedState(
        True,
        enabled.value if enabled is not None and counts(enabled) else True,
        configuration.value if configuration is not None and counts(configuration) else None,
    )


def marks(entries: Sequence[Entry], registers: Registers) -> list[Mark]:
    """Everything about these entries that is provisional.

    Args:
        entries: Sorted and judged.
        registers: With these entries folded in: a tie counts where a register holds its time.
    """
    found = _ties(entries, registers)
    for entry in entries:
        if entry.verdict is Verdict.AMBIGUOUS:
            found.append(Mark(Flag.AMBIGUOUS, ASPECT[entry.event], entry.at_us))
        if len(entry.variants) > 1:
            last_us = max(variant.at_us for variant in entry.variants)
            aspects = sorted({ASPECT[variant.event] for variant in entry.variants})
            found.extend(Mark(Flag.CONFLICT, aspect, last_us) for aspect in aspects)
            if len(entry.variants) >= VARIANTS_MAX:
                found.append(Mark(Flag.STORM, Aspect.INSTALLED, last_us))
    return found


def _ties(entries: Sequence[Entry], registers: Registers) -> list[Mark]:
    found = []
    installed, uninstalled = registers.installed, registers.uninstalled
    if installed is not None and uninstalled is not None and installed.at_us == uninstalled.at_us:
        found.append(Mark(Flag.TIE, Aspect.INSTALLED, installed.at_us))
    held_us = {register.at_us for register in registers[:4] if register is not None}
    for at_us, together in groupby((e for e in entries if e.at_us in held_us), key=lambda entry: entry.at_us):
        values: dict[Aspect, set[tuple[str | None, ...]]] = {}
        for entry in together:
            if entry.verdict is Verdict.NEW:
                values.setdefault(ASPECT[entry.event], set()).add(_value(entry))
        found.extend(Mark(Flag.TIE, aspect, at_us) for aspect, said in values.items() if len(said) > 1)
    return found


def _value(entry: Entry) -> tuple[str | None, ...]:
    """What an event writes, for comparison at one τ."""
    if entry.event is EventType.INSTALLED:
        return entry.event, entry.digest, entry.tenant_id
    return entry.event, entry.digest


def standing(found: Iterable[Mark], seen: ObservedTimes) -> tuple[Flag, ...]:
    """The flags that no observation has ended, in order of name."""
    return tuple(sorted({mark.flag for mark in found if mark.at_us > getattr(seen, mark.aspect)}))
