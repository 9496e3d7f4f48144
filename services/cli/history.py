"""Reads the history of a key from the public topics: events, outcomes and audit lines, each once.

Rule: a record that this release cannot decode is listed as unreadable, and all further records are still read.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from schemas.audit import Audit
from schemas.codec import Unreadable, decode
from schemas.event import Event
from schemas.outcome import Outcome
from schemas.times import rfc3339
from schemas.topics import AUDIT, EVENTS, OUTCOMES, named
from schemas.values import Key
from services.adapters.kafka import reader
from services.cli import wording

if TYPE_CHECKING:
    from services.adapters.kafka.reader import StoredRecord
    from services.adapters.process.settings import Settings


_CAUSAL_RANKS: Final = {"event": 0, "delivery": 1, "observation": 1, "recheck": 1, "retry": 2, "step": 3, "outcome": 4}
"""Order of entries with equal times: a cause before its effects."""
_RANK_LAST: Final = 5


def read(key: Key, settings: "Settings") -> list[dict[str, Any]]:
    """Returns the history of a key in order of time; each entry has `at`, `id`, `what`, `which`, `why`.

    Raises:
        KafkaError: the topics cannot be read.
    """
    # `sorted` is stable: entries of one topic with equal times and ranks keep the order of its log.
    return sorted(_entries(key, settings), key=lambda one: (one["at"], _CAUSAL_RANKS.get(one["what"], _RANK_LAST)))


def common_day(entries: Sequence[dict[str, Any]]) -> str | None:
    """Returns the day of all entries; None if the entries are of several days."""
    days = {one["at"][:10] for one in entries}
    return days.pop() if len(days) == 1 else None


def format_time(entry: dict[str, Any], day: str | None) -> str:
    """Formats the time of an entry: in full, or as time of day in milliseconds if `day` is given."""
    text: str = entry["at"]
    return text[11:23] if day else text


def _entries(key: Key, settings: "Settings") -> Iterator[dict[str, Any]]:
    """Yields the entries of a key in the order of the topics' partitions."""
    names = {named(topic, settings.topic_prefix): topic for topic in (EVENTS, OUTCOMES, AUDIT)}
    seen: set[str] = set()
    for record in reader.present(settings.kafka, list(names)):
        # A crash of a service may publish a record twice; the id in its header is the same.
        name = record.headers.get("ce_id") or f"{record.topic}/{record.partition}/{record.offset}"
        if record.key != key or name in seen:
            continue
        seen.add(name)
        entry = {"at": rfc3339(record.at_us), "id": name}
        try:
            yield entry | _FORMATTERS[names[record.topic].name](record)
        except Unreadable as fault:
            which = f"{record.topic} {record.partition}/{record.offset}"
            yield entry | {"what": "unreadable", "which": which, "why": f"this release cannot read it: {fault}"}


def _event(record: "StoredRecord") -> dict[str, str]:
    """Formats an event."""
    event = decode(Event, record.value)
    which = f"{event.event} (revision {event.revision})"
    why = f"{event.source}, tenantId {event.tenant_id or '-'}, occurred {rfc3339(event.occurred_at)}"
    return {"what": "event", "which": which, "why": why}


def _outcome(record: "StoredRecord") -> dict[str, str]:
    """Formats an outcome: direction and state, and the failed step with the reason."""
    outcome = decode(Outcome, record.value)
    cause, words = wording.failure(outcome.step, outcome.error_class), wording.reason(outcome.reason, record.at_us)
    # The reason often repeats the failed step; then the cause alone would be said twice.
    parts = (words,) if words.startswith(cause) else (cause, words)
    why = "; ".join(filter(None, (f"bound to {outcome.tenant_id}" if outcome.tenant_id else "", *parts)))
    which = f"{outcome.direction} {outcome.state} (generation {outcome.generation})"
    return {"what": "outcome", "which": which, "why": why}


def _audit(record: "StoredRecord") -> dict[str, str]:
    """Formats an audit line."""
    line = decode(Audit, record.value)
    why = wording.reason(line.why, line.at) if line.what == "stage" else line.why
    return {"what": line.what, "which": line.verdict, "why": why}


_FORMATTERS = {EVENTS.name: _event, OUTCOMES.name: _outcome, AUDIT.name: _audit}
