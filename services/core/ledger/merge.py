"""Merge: derives verdicts, registers and flags of a key from the set of events.

Rule: no function depends on the order of arrival. Events are sorted by order key (τ, rank, uid). The verdict on an
event depends on the events at or before the event's time, the registers depend on the events judged new, the flags on
both.
"""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple

from schemas.journal import VARIANTS_MAX, Aspect, Entry, Mark, ObservedTimes, Register, Registers, Verdict
from schemas.tenant import Flag
from schemas.values import EventType
from services.core.ledger.contradiction import ContradictionIndex
from services.core.ledger.identity import is_audited

# Theory. Without an id from the sender, a retry with a new timestamp looks like a second event. An event with the hash
# of an earlier event at most 20 minutes before (its twin) counts as the twin restamped and is absorbed, unless an event
# between both contradicts it. With a contradiction between, an unmarked event is new. A marked one is a late retry of
# the twin or the retry of a lost second event, and no data can decide between both: the verdict is ambiguous, without
# effect, and Genesys is asked.
#
# Example: enabled 0:00, disabled 0:01, enabled 0:02. Unmarked, the third is a new event; marked, it is ambiguous.
#
# The registers form a CRDT: each keeps the value with the greatest order key, so `fold` commutes. An order of arrival
# must never enter a verdict, or a replay after a crash would end in a different state.

RETRY_SPAN_US: Final = 20 * 60 * 1_000_000
"""R, the span of the sender's retries (the guide, edge case 3)."""

RANK: Final = {
    EventType.UNINSTALLED: 0,
    EventType.ENABLED: 0,
    EventType.DISABLED: 1,
    EventType.INSTALLED: 2,
    EventType.CONFIGURATION_UPDATED: 3,
}
"""Order of events at an equal τ; the greatest rank wins. Installed wins over uninstalled, so a tie never tears down;
disabled wins over enabled; `configuration_updated` wins over the configuration of an `installed`."""

ASPECT: Final = {
    EventType.INSTALLED: Aspect.INSTALLED,
    EventType.UNINSTALLED: Aspect.INSTALLED,
    EventType.ENABLED: Aspect.ENABLED,
    EventType.DISABLED: Aspect.ENABLED,
    EventType.CONFIGURATION_UPDATED: Aspect.CONFIGURATION,
}
"""The aspect of each event type."""


class Judged(NamedTuple):
    """Judged entries with the root of each: the index of the restamped event, or the entry's own index."""

    entries: list[Entry]
    roots: list[int | None]
    """None if the restamped event has left the journal."""


class MergedState(NamedTuple):
    """The state of a key by the registers; None means unknown."""

    installed: bool | None
    enabled: bool | None
    digest: str | None


def judge(entries: Sequence[Entry], since_us: int) -> Judged:
    """Judges the entries from `since_us` on, except frozen entries.

    Args:
        entries: The whole journal, sorted by order key.
        since_us: The earliest changed time, microseconds UTC; verdicts below this time stand.
    """
    contradictions: ContradictionIndex | None = None
    judged: list[Entry] = []
    roots: list[int | None] = []
    newest: dict[str, int] = {}
    for index, entry in enumerate(entries):
        # Only uids without an id of the sender (tier 3): an equal content under two ids is two events.
        restampable = entry.uid.startswith("f:")
        twin = newest.get(entry.f) if restampable else None
        if twin is not None and entry.at_us - judged[twin].at_us > RETRY_SPAN_US:
            twin = None
        if not entry.frozen and entry.at_us >= since_us:
            contradictions = contradictions or ContradictionIndex(entries)
            verdict = _verdict(entry, None if twin is None else judged[twin], contradictions)
            entry = entry if verdict is entry.verdict else entry._replace(verdict=verdict)  # noqa: PLW2901 - the same uid
        judged.append(entry)
        # The root of a restamp of a restamp is the first event of the chain.
        restamp = entry.verdict is Verdict.ABSORBED
        roots.append(index if not restamp else None if twin is None else roots[twin])
        if restampable:
            newest[entry.f] = index
    return Judged(judged, roots)


def _verdict(entry: Entry, twin: Entry | None, contradictions: ContradictionIndex) -> Verdict:
    """Returns the verdict by the table in docs/specification.md, section 3."""
    if twin is not None:
        # An ambiguous twin counts as a contradiction: its own origin is unknown.
        if twin.verdict is not Verdict.AMBIGUOUS and not contradictions.contradicts(entry, twin.at_us, orphan=False):
            return Verdict.ABSORBED
        return Verdict.AMBIGUOUS if entry.marked else Verdict.NEW
    if entry.marked and contradictions.contradicts(entry, entry.at_us - RETRY_SPAN_US, orphan=True):
        return Verdict.AMBIGUOUS
    return Verdict.NEW


def fold(entries: Iterable[Entry], base: Registers) -> Registers:
    """Returns the registers after the events judged new; per register the greatest order key wins.

    Args:
        entries: Judged entries, sorted by order key.
        base: The registers before.
    """
    # The entries are sorted, so the last one seen is the newest of each kind.
    newest: dict[EventType, Entry] = {}
    configured = named = removed = None
    for entry in entries:
        if entry.verdict is Verdict.NEW:
            newest[entry.event] = entry
            if entry.digest is not None:
                configured = entry
            if entry.event is EventType.INSTALLED and entry.tenant_id is not None:
                named = entry
            if entry.event is EventType.UNINSTALLED and not is_audited(entry.uid):
                removed = entry
    enabled, disabled = newest.get(EventType.ENABLED), newest.get(EventType.DISABLED)
    return Registers(
        _newer(base.installed, newest.get(EventType.INSTALLED), None),
        _uninstalled(base.uninstalled, newest.get(EventType.UNINSTALLED), removed),
        _newer(_newer(base.enabled, enabled, True), disabled, False),
        _newer(base.configuration, configured, None if configured is None else configured.digest),
        _newer(base.tenant, named, None if named is None else named.tenant_id),
    )


def _newer(held: Register | None, entry: Entry | None, value: Any) -> Register | None:
    """Returns the register with the greater order key; `[:3]` is the order key of both."""
    if entry is None or (held is not None and held[:3] > entry[:3]):
        return held
    return Register(entry.at_us, entry.rank, entry.uid, value)


def _uninstalled(held: Register | None, entry: Entry | None, removed: Entry | None) -> Register | None:
    """Returns the register U. The value of an audit's keeps the time of the newest uninstall from another source.

    Args:
        held: The register before.
        entry: The newest `uninstalled` of any source.
        removed: The newest `uninstalled` of a source other than audits.
    """
    newest = _newer(held, entry, None)
    if newest is None or not is_audited(newest.uid):
        return newest
    times = [time for time in (_removed_us(held), None if removed is None else removed.at_us) if time is not None]
    return newest._replace(value=max(times, default=None))


def _removed_us(uninstalled: Register | None) -> int | None:
    """Returns τ of the newest `uninstalled` of a source other than audits, microseconds UTC; None without one."""
    if uninstalled is None or is_audited(uninstalled.uid):
        return None if uninstalled is None else uninstalled.value
    return uninstalled.at_us


def is_removed_by_audits_alone(registers: Registers) -> bool:
    """True if the integration is not installed, and would be installed without the audits of its removal."""
    installed, uninstalled = registers.installed, registers.uninstalled
    if merged_state(registers).installed is not False or installed is None or uninstalled is None:
        return False
    removed_us = _removed_us(uninstalled)
    # At an equal time N wins, by the rank: such an uninstall removes nothing.
    return removed_us is None or removed_us <= installed.at_us


def merged_state(registers: Registers) -> MergedState:
    """Returns the state: installed if N is above U; enablement and configuration count only above U."""
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


def flag_marks(entries: Sequence[Entry], registers: Registers) -> list[Mark]:
    """Returns the flag marks of entries: ties, ambiguous events, conflicts, and too many bodies under a uid.

    Args:
        entries: Judged entries, sorted by order key.
        registers: The registers with these entries folded; a tie counts only at a time held by a register.
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
    """Returns a mark per tie: N and U at an equal time, or different values of an aspect at an equal time."""
    found = []
    installed, uninstalled = registers.installed, registers.uninstalled
    if installed is not None and uninstalled is not None and installed.at_us == uninstalled.at_us:
        found.append(Mark(Flag.TIE, Aspect.INSTALLED, installed.at_us))
    held_us = {register.at_us for register in registers[:4] if register is not None}  # N, U, E, C
    for at_us, together in groupby((e for e in entries if e.at_us in held_us), key=lambda entry: entry.at_us):
        values: dict[Aspect, set[tuple[str | None, ...]]] = {}
        for entry in together:
            # An audited install says less than a delivered one at the same time, and contradicts none. Against an
            # uninstall the registers themselves are compared, above.
            says_less = entry.event is EventType.INSTALLED and is_audited(entry.uid)
            if entry.verdict is Verdict.NEW and not says_less:
                values.setdefault(ASPECT[entry.event], set()).add(_value(entry))
        found.extend(Mark(Flag.TIE, aspect, at_us) for aspect, written in values.items() if len(written) > 1)
    return found


def _value(entry: Entry) -> tuple[str | None, ...]:
    """Returns the value written by an event, for the comparison of events at an equal τ."""
    if entry.event is EventType.INSTALLED:
        return entry.event, entry.digest, entry.tenant_id
    return entry.event, entry.digest


def standing_flags(found: Iterable[Mark], seen: ObservedTimes) -> tuple[Flag, ...]:
    """Returns the flags without a clearing observation, in order of name."""
    return tuple(sorted({mark.flag for mark in found if mark.at_us > getattr(seen, mark.aspect)}))
