"""The timeline of a key from the public topics: events, outcomes and audit lines, each once, cause before effect.

Rule: a record that this release cannot decode becomes an entry `unreadable`, and hides none of the further records.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.audit import Audit
from schemas.codec import Unreadable, decode
from schemas.event import Event
from schemas.outcome import Outcome
from schemas.stored import StoredRecord
from schemas.times import rfc3339
from schemas.topics import AUDIT, EVENTS, OUTCOMES, Topic
from services.core import reasons

TOPICS: Final = (EVENTS, OUTCOMES, AUDIT)
"""The topics of a timeline."""

_CAUSAL_RANKS: Final = {
    "event": 0, "delivery": 1, "audited": 1, "observation": 1, "recheck": 1, "retry": 2, "step": 3, "outcome": 4,
}  # fmt: skip
"""Order of entries with equal times: a cause before its effects."""
_RANK_LAST: Final = 5


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """An entry of a timeline.

    Attributes:
        at_us: Timestamp of the record, microseconds UTC.
        id: Identity of the record, equal in every repetition.
        what: `event`, `outcome`, `unreadable`, or the sort of an audit line (`Audit.what`).
        which: The event with its revision, the outcome, the verdict, or the position of an unreadable record.
        why: The reason in words; empty if the record gives none.
    """

    at_us: int
    id: str
    what: str
    which: str
    why: str


def timeline(records: Iterable[StoredRecord], topics: Mapping[str, Topic]) -> list[TimelineEntry]:
    """Returns the entries of one key in order of time; of repeated records the first counts.

    Args:
        records: The key's records; those of one topic in the order of its log.
        topics: The topic of each full name.
    """
    once: dict[str, StoredRecord] = {}
    for record in records:
        once.setdefault(_identity(record), record)
    entries = [_entry(record, identity, topics[record.topic]) for identity, record in once.items()]
    # `sorted` is stable: entries of one topic with equal times and ranks keep the order of its log.
    return sorted(entries, key=lambda entry: (entry.at_us, _CAUSAL_RANKS.get(entry.what, _RANK_LAST)))


def _identity(record: StoredRecord) -> str:
    # A crash of a service may publish a record twice; the id in its header is the same.
    return record.headers.get("ce_id") or f"{record.topic}/{record.partition}/{record.offset}"


def _entry(record: StoredRecord, identity: str, topic: Topic) -> TimelineEntry:
    try:
        what, which, why = _MEANINGS[topic.name](record)
    except Unreadable as fault:
        which = f"{record.topic} {record.partition}/{record.offset}"
        what, why = "unreadable", f"this release cannot read it: {fault}"
    return TimelineEntry(record.at_us, identity, what, which, why)


_Meaning = tuple[str, str, str]
"""The fields `what`, `which` and `why` of an entry."""


def _event(record: StoredRecord) -> _Meaning:
    event = decode(Event, record.value)
    which = f"{event.event} (revision {event.revision})"
    why = f"{event.source}, tenantId {event.tenant_id or '-'}, occurred {rfc3339(event.occurred_at)}"
    return "event", which, why


def _outcome(record: StoredRecord) -> _Meaning:
    """Returns direction and state of an outcome, and the failed step with the reason."""
    outcome = decode(Outcome, record.value)
    cause, words = (
        reasons.failure_text(outcome.step, outcome.error_class),
        reasons.reason_text(outcome.reason, record.at_us),
    )
    # The reason often repeats the failed step; then the cause alone would be said twice.
    parts = (words,) if words.startswith(cause) else (cause, words)
    why = "; ".join(filter(None, (f"bound to {outcome.tenant_id}" if outcome.tenant_id else "", *parts)))
    return "outcome", f"{outcome.direction} {outcome.state} (generation {outcome.generation})", why


def _audit(record: StoredRecord) -> _Meaning:
    line = decode(Audit, record.value)
    why = reasons.reason_text(line.why, line.at) if line.what == "stage" else line.why
    if line.act is not None:
        why = ", ".join(text for text in (why, f"by {line.act.by}", line.act.reason) if text)
    return line.what, line.verdict, why


_MEANINGS: Final[Mapping[str, Callable[[StoredRecord], _Meaning]]] = {
    EVENTS.name: _event,
    OUTCOMES.name: _outcome,
    AUDIT.name: _audit,
}
