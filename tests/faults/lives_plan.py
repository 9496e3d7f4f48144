"""Plans the lives of integrations and the misbehaviour of Genesys from a seed: changes, deliveries, faults.

Rule: a plan is a pure function of its seed and size. Times are seconds from the beginning of the day. The plan names no
clock, so two runs of a seed differ by the speed of the machine alone.

The adversary is fair: reads show the former state for less than a second look, as the platform does for 30 s of the 10
minutes. Reads that are stale again and again at just the two looks are an adversary that no reader sees through.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final
from uuid import UUID

from schemas.values import EventType, Json, Key

DROPPED: Final = 0.3
"""Share of the webhooks that are never sent."""
HINTED: Final = 0.5
"""Share of the changes that EventBridge tells of."""
_BIG: Final = 105
"""Integrations of the first organisation: more than a page of the listing."""
_FEW: Final = 5


@dataclass(frozen=True, slots=True)
class LifeSize:
    """Size of a run.

    Attributes:
        orgs: Organisations.
        integrations: Integrations in all; the first organisation has more than half of them.
        day_s: Length of the scaled day, seconds.
        second_look_s: RECONCILE_SECOND_LOOK_S of the run.
        changes: Mean number of changes of an integration beside its first install.
    """

    orgs: int = 20
    integrations: int = 200
    day_s: float = 60.0
    second_look_s: float = 2.0
    changes: float = 2.5


@dataclass(frozen=True, slots=True)
class Delivery:
    """One attempt to tell of a change.

    Attributes:
        after_s: Seconds from the change to the attempt.
        is_hint: True for an audit by EventBridge, False for a webhook.
        restamped: True if `eventTimestamp` is the time of the attempt, False if it is that of the change.
        retry: Number of earlier attempts that the body tells of; 0 tells of none.
    """

    after_s: float
    is_hint: bool = False
    restamped: bool = False
    retry: int = 0


@dataclass(frozen=True, slots=True)
class PlannedChange:
    """A change in Genesys.

    Attributes:
        at_s: Time of the change.
        key: The integration.
        event: The event of the change; of a restored integration `installed`.
        restores: True if a removed integration is restored instead of installed anew.
        enabled: Enablement after the change; None where Genesys does not tell (RESTORED).
        configuration: Configuration after the change.
        deliveries: The attempts to tell of it.
    """

    at_s: float
    key: Key
    event: EventType
    restores: bool
    enabled: bool | None
    configuration: Json
    deliveries: tuple[Delivery, ...]


@dataclass(frozen=True, slots=True)
class LifePlan:
    """Plan of a day.

    Attributes:
        first: An install of each organisation, before the day; these are told for certain.
        changes: All changes of the day, in order.
        faults: Time and body of each fault of the API, in order.
    """

    first: tuple[PlannedChange, ...]
    changes: tuple[PlannedChange, ...]
    faults: tuple[tuple[float, dict[str, Any]], ...]


@dataclass(slots=True)
class _Life:
    """State of an integration while its life is planned."""

    key: Key
    installed: bool = False
    enabled: bool | None = True
    was_enabled: bool = True
    removed: bool = False
    configuration: Json = field(default_factory=dict)
    number: int = 0


def plan(seed: int, size: LifeSize) -> LifePlan:
    """Returns the plan of a seed."""
    draw = random.Random(seed)
    orgs = [str(UUID(int=draw.getrandbits(128), version=4)) for _ in range(size.orgs)]
    rest = max(0, size.integrations - size.orgs)
    big = min(_BIG - 1, rest - (size.orgs - 1) * (_FEW - 1)) if size.orgs > 1 else rest
    counts = [1 + max(0, big), *([1 + max(0, rest - max(0, big)) // max(1, size.orgs - 1)] * (size.orgs - 1))]
    lives = [
        [_Life(f"{org}:{UUID(int=draw.getrandbits(128), version=4)}") for _ in range(count)]
        for org, count in zip(orgs, counts, strict=True)
    ]
    first = tuple(_change(own[0], 0.0, draw, certain=True) for own in lives)
    changes = [change for own in lives for life in own for change in _life(life, size, draw)]
    return LifePlan(first, tuple(sorted(changes, key=lambda one: one.at_s)), tuple(_faults(orgs, size, draw)))


def _life(life: _Life, size: LifeSize, draw: random.Random) -> Iterator[PlannedChange]:
    count = 1 + min(12, int(draw.expovariate(1 / size.changes)))
    times = sorted(draw.uniform(0, size.day_s) for _ in range(count))
    for at_s, next_s in pairwise([*times, size.day_s]):
        yield _change(life, at_s, draw)
        # A reinstall at once: the road on which late news is most dangerous.
        if not life.installed and draw.random() < 0.4:
            again_s = at_s + draw.uniform(0.05, 2.0)
            if again_s < next_s:
                yield _change(life, again_s, draw)


def _change(life: _Life, at_s: float, draw: random.Random, *, certain: bool = False) -> PlannedChange:
    restores = False
    life.number += 1
    if not life.installed:
        restores = life.removed and draw.random() < 0.3
        life.installed, event = True, EventType.INSTALLED
        life.enabled = None if restores else True
        if not restores:
            life.configuration, life.was_enabled = _configuration(life.number), True
    else:
        chance = draw.random()
        if chance < 0.3:
            event, life.installed, life.removed = EventType.UNINSTALLED, False, True
        elif chance < 0.65:
            life.was_enabled = not life.was_enabled
            life.enabled = life.was_enabled
            event = EventType.ENABLED if life.enabled else EventType.DISABLED
        else:
            event, life.configuration = EventType.CONFIGURATION_UPDATED, _configuration(life.number)
    deliveries = (Delivery(0.0),) if certain else (*_webhooks(draw), *_hints(draw))
    return PlannedChange(at_s, life.key, event, restores, life.enabled, dict(life.configuration), deliveries)


def _configuration(number: int) -> Json:
    return {
        "crmEndpoint": "https://acme.salesforce.com",
        "syncInterval": f"PT{number}M",
        "featureFlags": ["voice_routing"] if number % 2 else [],
    }


def _webhooks(draw: random.Random) -> Iterator[Delivery]:
    if draw.random() < DROPPED:
        return
    first_s = draw.choices((draw.uniform(0, 0.3), min(15.0, draw.expovariate(1 / 3))), (6, 4))[0]
    attempts = draw.choices((1, 2, 3, 4), (55, 25, 12, 8))[0]
    restamps, marks = draw.choices(((False, True), (True, True), (True, False), (False, False)), (3, 4, 1, 2))[0]
    # Where the first attempt is lost, a retry is all that is heard.
    lost_first = attempts > 1 and draw.random() < 0.3
    at_s = first_s
    for retry in range(attempts):
        if not (retry == 0 and lost_first):
            yield Delivery(at_s, restamped=restamps and retry > 0, retry=retry if marks else 0)
        at_s += draw.uniform(0.1, 5.0)


def _hints(draw: random.Random) -> Iterator[Delivery]:
    if draw.random() < HINTED:
        for _ in range(draw.choice((1, 1, 2))):
            yield Delivery(min(10.0, draw.expovariate(1 / 2)), is_hint=True)


_ALL_DAY: Final = ("error", "down", "unauthorized", "refuse", "rate_limited", "blank", "empty", "missing_page")
_ODD: Final = ("wrong_total", "shifted_page", "flapping", "unknown_values", "lost_answer")
_BY_COUNT: Final = {"clock_skew": (5.0, 45.0, 3600.0), "slow": (0.5, 3.0), "over_minted": (None,), "silent": (None,)}
"""Faults whose `seconds` are no lifetime, or that last for a number of requests: to their seconds."""
_PATHS: Final = (None, None, "/integrations", "/audits", "/organizations", "/config")


def _faults(orgs: list[str], size: LifeSize, draw: random.Random) -> Iterator[tuple[float, dict[str, Any]]]:
    found: list[tuple[float, dict[str, Any]]] = []
    for _ in range(int(size.day_s / 3)):
        at_s, kind, path = draw.uniform(0, size.day_s), draw.choice((*_ALL_DAY, *_ODD)), draw.choice(_PATHS)
        fault = {
            "fault": kind,
            # A request about one integration has its key, so a fault of an organisation would spare it.
            "key": None if path == "/config" else draw.choice((None, draw.choice(orgs))),
            "path": path,
            "share": draw.choice((1.0, 0.5, 0.2)),
            "seconds": draw.uniform(0.5, size.day_s / 8),
        }
        found.append((at_s, fault))
    for kind, seconds in _BY_COUNT.items():
        times = 1 if kind == "silent" else draw.randrange(1, 30)
        fault = {"fault": kind, "key": draw.choice(orgs), "seconds": draw.choice(seconds), "times": times}
        found.append((draw.uniform(0, size.day_s), fault))
    stale: dict[str, Any] = {"fault": "stale", "seconds": size.second_look_s * 0.4}
    # Of everybody, reads by id too: so far apart that every organisation is read as it is in between.
    found += [(size.day_s * draw.uniform(*part), stale) for part in ((0.05, 0.25), (0.65, 0.95))]
    found += [(draw.uniform(0, size.day_s), stale | {"key": org}) for org in orgs]
    for at_s, fault in sorted(found, key=lambda one: one[0]):
        yield at_s, {"system": "genesys", **{name: value for name, value in fault.items() if value is not None}}
