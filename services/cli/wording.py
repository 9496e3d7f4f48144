"""Formats texts for terminals: short keys, relative times, summaries. Pure.

Rule: a short key names exactly one of the keys of its listing, so every command accepts it in place of the key.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from schemas.tenant import Stage, Tenant
from schemas.times import rfc3339
from schemas.values import Key

STYLES: Final[Mapping[str, str]] = {
    Stage.ACTIVE: "green",
    Stage.PENDING_INSTALL: "yellow",
    Stage.DEPROVISIONING: "yellow",
    Stage.DEPROVISIONED: "dim",
    Stage.PROVISIONING_ROLLED_BACK: "red",
    Stage.DEPROVISIONING_FAILED: "red",
}
"""Colour of a stage."""

_LENGTHS: Final = (8, 13, 18, 23, 36)
"""Characters of each id in a short key: a UUID up to one of its dashes."""

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def counted(count: int, one: str) -> str:
    """Returns a number with the noun: `1 saga`, `2 sagas`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def short_keys(keys: Collection[Key]) -> dict[Key, str]:
    """Shortens both ids of each key as far as the result still names one of `keys`."""
    found: dict[Key, str] = {}
    left = list(keys)
    for length in _LENGTHS:
        short = {key: _cut(key, length) for key in left}
        count = Counter(short.values())
        # A key that is ambiguous at this length is tried again at the next; at the full length every key is unique.
        found |= {key: text for key, text in short.items() if count[text] == 1 or length == _LENGTHS[-1]}
        left = [key for key in left if key not in found]
    return found


def span(us: int) -> str:
    """Formats a span of time in the greatest unit: `12 s`, `5 min`, `3 h`, `4 d`; never less than 0 s."""
    seconds = max(0, us) // 1_000_000
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"


def moment(at_us: int) -> str:
    """Formats an instant: date and time of day, UTC, whole seconds."""
    return rfc3339(at_us)[:19].replace("T", " ")


def summary(shown: Collection[Tenant], known: int, unwell: int) -> str:
    """Summarises a listing in one line: count, counts by stage, and count of the unwell.

    Args:
        shown: The listed tenants.
        known: Number of tenants without the filters.
        unwell: Number of unwell tenants among `shown`.
    """
    if not known:
        return "no tenants: nothing was ever installed here"
    of = f" of {known}" if len(shown) != known else ""
    count = Counter(tenant.stage for tenant in shown)
    stages = [f"{count[stage]} {stage or 'without a stage'}" for stage in (*Stage, None) if count[stage]]
    text = f"{len(shown)}{of} tenant{'' if known == 1 else 's'}"
    return ": ".join([text, ", ".join([*stages, f"{unwell} unwell"])]) if shown else text


def _cut(key: Key, length: int) -> str:
    """Cuts both ids of a key to a length."""
    org, _, integration = key.partition(":")
    return f"{org[:length]}:{integration[:length]}"
