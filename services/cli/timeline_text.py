"""Prints the timeline of a key: a line per entry, with the day said once if all entries share the day."""

from collections.abc import Sequence
from typing import Any

from schemas.times import rfc3339
from schemas.values import Key
from services.cli import show
from services.core.timeline import TimelineEntry


def entries_json(entries: Sequence[TimelineEntry]) -> list[dict[str, Any]]:
    """Returns the entries as JSON."""
    return [
        {"at": rfc3339(entry.at_us), "id": entry.id, "what": entry.what, "which": entry.which, "why": entry.why}
        for entry in entries
    ]


def print_timeline(key: Key, entries: Sequence[TimelineEntry]) -> None:
    """Prints the entries; in a pipe every time is printed in full."""
    day = _common_day(entries) if show.shows_results() else None
    lines = [(_time(entry, day), entry.what, entry.which, entry.why) for entry in entries]
    show.table(("at", "what", "which", "why"), lines, f"{key}\n{day} UTC" if day else None, whole=2)


def _common_day(entries: Sequence[TimelineEntry]) -> str | None:
    """Returns the day of all entries; None if the entries are of several days."""
    days = {rfc3339(entry.at_us)[:10] for entry in entries}
    return days.pop() if len(days) == 1 else None


def _time(entry: TimelineEntry, day: str | None) -> str:
    """Formats the time of an entry: in full, or as time of day in milliseconds if `day` is given."""
    text = rfc3339(entry.at_us)
    return text[11:23] if day else text
