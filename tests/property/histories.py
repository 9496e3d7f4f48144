"""Random histories of one key: what a sender may deliver, and when it arrives."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from schemas.event import Recheck
from schemas.values import EventType
from schemas.webhook import Delivery
from services.core.ledger.decisions import Received
from tests.support.deliveries import KEY, NOON_US, audited, observed

MINUTE = 60_000
HOUR = 3_600_000
CONFIGURED = ("installed", "configuration_updated")


class Arrival(NamedTuple):
    """One delivery and the log time of its arrival, in milliseconds after noon."""

    delivery: Delivery
    arrived: int


def attempt(event: str, at: int, configuration: str, event_id: str | None, *, marked: bool) -> Delivery:
    """A delivery at `at` milliseconds after noon; other events than two carry no configuration."""
    configured = {"crmEndpoint": configuration} if event in CONFIGURED else {}
    return Delivery(
        body={"tenantId": "tenant_acme_corp", "configuration": configured},
        key=KEY,
        event=EventType(event),
        at_us=NOON_US + at * 1000,
        event_id=event_id,
        sequence=None,
        marked=marked,
    )


CLOSE = st.sampled_from([0, 1, MINUTE, 5 * MINUTE, 19 * MINUTE, 20 * MINUTE, 21 * MINUTE])
"""Times that collide, that lie within a retry span of each other, and that lie beyond."""

FAR = st.builds(lambda hours, near: hours * HOUR + near, st.integers(0, 60), CLOSE)


def attempts(times: st.SearchStrategy[int]) -> st.SearchStrategy[Delivery]:
    """One delivery; ids are few, so that they are told again and clash."""
    return st.builds(
        attempt,
        st.sampled_from(sorted(EventType)),
        times,
        st.sampled_from("AB"),
        st.sampled_from([None, None, None, "1", "2", "3"]),
        marked=st.booleans(),
    )


def burst(most: int = 10) -> st.SearchStrategy[list[Delivery]]:
    """A history within half an hour: nothing freezes."""
    return st.lists(attempts(CLOSE), min_size=1, max_size=most)


def _arrival(delivery: Delivery, delay: int) -> Arrival:
    return Arrival(delivery, (delivery.at_us - NOON_US) // 1000 + delay)


DELAYS = st.sampled_from([*(half * MINUTE // 2 for half in range(40)), 9 * HOUR, 25 * HOUR, 30 * HOUR])


def _in_order(records: list[Any]) -> list[Any]:
    return sorted(records, key=lambda record: int(record.arrived))


def days(most: int = 14) -> st.SearchStrategy[list[Arrival]]:
    """A history over three days in order of arrival, most of it within minutes and some of it many hours late."""
    return st.lists(st.builds(_arrival, attempts(FAR), DELAYS), min_size=1, max_size=most).map(_in_order)


def arrivals(most: int = 14) -> st.SearchStrategy[list[Arrival]]:
    """A history over days, or one dense enough that restamps of restamps lie among what contradicts them."""
    dense = burst(most).map(lambda told: [Arrival(delivery, 30 * MINUTE) for delivery in told])
    return st.one_of(days(most), dense)


class Record(NamedTuple):
    """Anything in `lifecycle.received`, and the log time of its arrival in milliseconds after noon."""

    record: Received
    arrived: int


OBSERVATIONS = st.builds(
    lambda at, **fields: observed(at // 1000, **fields),
    FAR,
    installed=st.booleans(),
    enabled=st.sampled_from([None, True, False]),
    configuration=st.sampled_from([None, {"crmEndpoint": "A"}, {"crmEndpoint": "B"}]),
    tenant_id=st.sampled_from([None, "tenant_acme_corp"]),
)


AUDITS = st.builds(
    lambda action, at, name: audited(action, at / 1000, name),
    st.sampled_from(["Create", "Delete", "Enable", "Disable"]),
    FAR,
    st.sampled_from([None, None, "1", "2"]),
)
"""Audits that count as events; ids are few, so that they are told again and clash."""


def topics(most: int = 14) -> st.SearchStrategy[list[Record]]:
    """A stretch of `lifecycle.received` over some days: deliveries, audits, observations and re-checks."""
    told = st.builds(_arrival, attempts(FAR), DELAYS).map(lambda arrival: Record(*arrival))
    seen = st.builds(Record, OBSERVATIONS, FAR)
    asked = FAR.map(lambda at: Record(Recheck(key=KEY, reason="stale", at=NOON_US + at * 1000), at))
    audits = st.builds(lambda audit, delay: Record(audit, (audit.at_us - NOON_US) // 1000 + delay), AUDITS, DELAYS)
    mixed = st.one_of(told, told, told, told, told, audits, seen, asked)
    return st.lists(mixed, min_size=1, max_size=most).map(_in_order)
