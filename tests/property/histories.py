"""Random histories of one key: what a sender may deliver, and when it arrives."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from schemas.values import EventType
from schemas.webhook import Delivery
from tests.deliveries import KEY, NOON_US

MINUTE = 60_000
HOUR = 3_600_000
CONFIGURED = ("installed", "configuration_updated")


class Arrival(NamedTuple):
    """One delivery and the log time of its arrival, in milliseconds after noon."""

    delivery: Delivery
    arrived: int


def attempt(event: str, at: int, configuration: str, event_id: str | None, *, marked: bool) -> Delivery:
    """A delivery at `at` milliseconds after noon; other events than two carry no configuration."""
    return Delivery(
        key=KEY,
        event=EventType(event),
        tenant_id="tenant_acme_corp",
        configuration={"crmEndpoint": configuration} if event in CONFIGURED else {},
        at_us=NOON_US + at * 1000,
        installed_by=None,
        source=None,
        event_id=event_id,
        sequence=None,
        marked=marked,
    )


def _times(span: int) -> st.SearchStrategy[int]:
    """Times that collide, that lie within a retry span of each other, and that lie beyond."""
    close = st.sampled_from([0, 1, MINUTE, 5 * MINUTE, 19 * MINUTE, 20 * MINUTE, 21 * MINUTE])
    return st.builds(lambda far, near: far + near, st.integers(0, span // HOUR).map(lambda h: h * HOUR), close)


@st.composite
def attempts(draw: Any, span: int = 0) -> Delivery:
    """One delivery; ids are few, so that they are told again and clash."""
    event_id = draw(st.sampled_from([None, None, None, "1", "2", "3"]))
    return attempt(
        draw(st.sampled_from(sorted(EventType))),
        draw(_times(span)),
        draw(st.sampled_from("AB")),
        event_id,
        marked=draw(st.booleans()),
    )


def burst(most: int = 10) -> st.SearchStrategy[list[Delivery]]:
    """A history within half an hour: nothing freezes."""
    return st.lists(attempts(), min_size=1, max_size=most)


@st.composite
def days(draw: Any, most: int = 14) -> list[Arrival]:
    """A history over three days in order of arrival, most of it within minutes and some of it many hours late."""
    told = draw(st.lists(st.tuples(attempts(60 * HOUR), st.integers(0, 40)), min_size=1, max_size=most))
    late = {0: 9 * HOUR, 1: 25 * HOUR, 2: 30 * HOUR}
    return sorted(
        (Arrival(d, (d.at_us - NOON_US) // 1000 + late.get(delay, delay * MINUTE // 2)) for d, delay in told),
        key=lambda arrival: arrival.arrived,
    )
