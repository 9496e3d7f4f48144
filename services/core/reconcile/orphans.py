"""Orphans: resources outside that belong to ended lives, remembered from their first sight on.

Rule: an orphan is removed only by an operator's act about exactly the orphans seen twice, one second look apart. A look
that does not find an orphan ends the wait: the next sight is a first one again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from schemas.values import Key
from services.core.reconcile.three_views import Orphan


def sighted(
    found: Iterable[Orphan], before: Mapping[str, int], has: Callable[[Key], bool], now_us: int
) -> tuple[tuple[Orphan, ...], dict[str, int]]:
    """Returns the orphans of a look with their first sights, and the first sights to store.

    Args:
        found: The orphans that the look found.
        before: Name to first sight, microseconds UTC, as stored.
        has: True for the keys of the look; the orphans of every other key stay remembered.
        now_us: Our clock, microseconds UTC.
    """
    orphans = tuple(replace(one, first_seen_us=before.get(one.name, now_us)) for one in found)
    others = {name: at_us for name, at_us in before.items() if not has(name.partition(" ")[0])}
    return orphans, others | {one.name: one.first_seen_us for one in orphans}


def seen_twice(orphans: Iterable[Orphan], now_us: int, second_look_us: int) -> tuple[Orphan, ...]:
    """Returns the orphans that an operator may let remove, sorted by name.

    Args:
        orphans: Orphans of this look, with their first sights.
        now_us: Our clock, microseconds UTC.
        second_look_us: Microseconds from the first sight to the second.
    """
    ripe = (one for one in orphans if one.removable and now_us - one.first_seen_us >= second_look_us)
    return tuple(sorted(ripe, key=lambda one: one.name))
