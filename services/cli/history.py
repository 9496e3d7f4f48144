"""Reads the history of one key from the public topics: events, outcomes and audit lines, each once.

Rule: a record of the key that this release cannot read is shown as such, and hides none of the others.
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


_RANKS: Final = {"event": 0, "delivery": 1, "observation": 1, "recheck": 1, "retry": 2, "step": 3, "outcome": 4}
_LAST: Final = 5


def of(key: Key, settings: "Settings") -> list[dict[str, Any]]:
    """Returns the history of a key in order of time: `at`, `id`, `what`, `which`, `why`.

    Raises:
        KafkaError: the topics cannot be read.
    """
    # Of one instant, causes come before what they lead to; of one topic, as its log has them.
    return sorted(_each(key, settings), key=lambda one: (one["at"], _RANKS.get(one["what"], _LAST)))


def day(happened: Sequence[dict[str, Any]]) -> str | None:
    """Returns the one day of a history; None where it spans several."""
    days = {one["at"][:10] for one in happened}
    return days.pop() if len(days) == 1 else None


def at(happening: dict[str, Any], of_day: str | None) -> str:
    """Formats the time of an entry; without the day, and in milliseconds, where all entries are of one day."""
    text: str = happening["at"]
    return text[11:23] if of_day else text


def _each(key: Key, settings: "Settings") -> Iterator[dict[str, Any]]:
    names = {named(topic, settings.topic_prefix): topic for topic in (EVENTS, OUTCOMES, AUDIT)}
    seen: set[str] = set()
    for record in reader.present(settings.kafka, list(names)):
        name = record.headers.get("ce_id") or f"{record.topic}/{record.partition}/{record.offset}"
        if record.key != key or name in seen:
            continue
        seen.add(name)
        told = {"at": rfc3339(record.at_us), "id": name}
        try:
            yield told | _TELLERS[names[record.topic].name](record)
        except Unreadable as fault:
            which = f"{record.topic} {record.partition}/{record.offset}"
            yield told | {"what": "unreadable", "which": which, "why": f"this release cannot read it: {fault}"}


def _event(record: "StoredRecord") -> dict[str, str]:
    event = decode(Event, record.value)
    which = f"{event.event} (revision {event.revision})"
    why = f"{event.source}, tenantId {event.tenant_id or '-'}, occurred {rfc3339(event.occurred_at)}"
    return {"what": "event", "which": which, "why": why}


def _outcome(record: "StoredRecord") -> dict[str, str]:
    outcome = decode(Outcome, record.value)
    cause, words = wording.failure(outcome.step, outcome.error_class), wording.reason(outcome.reason, record.at_us)
    said = (words,) if words.startswith(cause) else (cause, words)
    why = "; ".join(filter(None, (f"bound to {outcome.tenant_id}" if outcome.tenant_id else "", *said)))
    which = f"{outcome.direction} {outcome.state} (generation {outcome.generation})"
    return {"what": "outcome", "which": which, "why": why}


def _audit(record: "StoredRecord") -> dict[str, str]:
    line = decode(Audit, record.value)
    why = wording.reason(line.why, line.at) if line.what == "stage" else line.why
    return {"what": line.what, "which": line.verdict, "why": why}


_TELLERS = {EVENTS.name: _event, OUTCOMES.name: _outcome, AUDIT.name: _audit}
