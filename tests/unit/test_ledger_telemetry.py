"""Publishing is timed once for each delivery with an event, and never for a replay."""

from dataclasses import replace

import pytest

from schemas.topics import EVENTS
from schemas.webhook import Delivery
from services.adapters.process import clock, metrics
from services.core.ledger.decisions import KIND, receive
from services.core.ledger.journal import RecordPosition
from services.ledger.telemetry import when_published
from tests.support.deliveries import RULES, delivery, observed

DELIVERY = KIND[Delivery]


def observations() -> tuple[float, float]:
    names = ("lifecycle_ledger_published_seconds_count", "lifecycle_ledger_published_seconds_sum")
    count, total = (metrics.LEDGER.registry.get_sample_value(name) or 0.0 for name in names)
    return count, total


@pytest.fixture
def position() -> RecordPosition:
    ago_us = clock.now_us() - 2_000_000
    return RecordPosition("lifecycle.received", 0, 7, ago_us, None, "topic")


def test_a_delivery_is_timed_from_its_log_time_to_the_acknowledgement(position: RecordPosition) -> None:
    decision = receive(None, None, delivery("installed", 0, {}, eventId="1"), position, RULES)
    assert EVENTS in {output.topic for output in decision.outputs}
    acknowledged, before = when_published(DELIVERY, None, decision, position), observations()
    assert acknowledged is not None
    assert observations() == before, "nothing is acknowledged yet"
    acknowledged()
    count, total = observations()
    assert count == before[0] + 1
    assert 2 <= total - before[1] < 60


def test_a_replay_and_an_observation_are_not_timed(position: RecordPosition) -> None:
    record = delivery("installed", 0, {}, eventId="1")
    first = receive(None, None, record, position, RULES)
    assert first.row is not None
    again = receive(first.row, None, record, position, RULES)  # type: ignore[arg-type]  # a tenant's row
    assert [output.topic for output in again.outputs if output.topic is EVENTS] == [EVENTS]
    assert when_published(DELIVERY, first.row, again, position) is None
    later = replace(position, offset=8)
    seen = receive(first.row, None, observed(60, enabled=False), later, RULES)  # type: ignore[arg-type]
    assert when_published("observation", first.row, seen, later) is None
