"""The identity of a delivery's event: tiers, hash, marks."""

from typing import Any

import pytest

from schemas import webhook
from services.core.ledger.identity import EventClaim, canonical, identify
from tests.support.deliveries import RULES, at, body, delivery, observed


def claim(event: str = "installed", seconds: float = 0, configuration: Any = None, **metadata: Any) -> EventClaim:
    return identify(delivery(event, seconds, configuration, **metadata), RULES.identity)[0]


def test_the_uid_is_the_senders_id_else_its_sequence_else_hash_and_time() -> None:
    assert claim(eventId="a", sequence=7).uid == "e:a"
    assert claim(sequence=7).uid == "s:7:installed"
    assert claim("disabled", sequence="7").uid == "s:7:disabled"
    nameless = claim(seconds=5)
    assert nameless.uid == f"f:{nameless.f}:{at(5)}"


@pytest.mark.parametrize(
    "volatile",
    [
        {"retryCount": 3},
        {"deliveryAttempt": 2},
        {"attemptId": "x"},
        {"deliveryId": "x"},
        {"deliveredAt": "x"},
        {"sentAt": "x"},
        {"traceId": "x"},
        {"requestId": "x"},
        {"nextRetryAt": "x"},
        {"eventTimestamp": "x"},
    ],
    ids=lambda names: next(iter(names)),
)
def test_fields_that_a_retry_may_vary_do_not_change_the_hash(volatile: dict[str, Any]) -> None:
    assert claim(**volatile).uid == claim().uid
    top = {name: value for name, value in volatile.items() if name != "eventTimestamp"}
    assert identify(webhook.delivery({**body("installed"), **top}), RULES.identity)[0].uid == claim().uid


@pytest.mark.parametrize(
    "stable",
    [
        {"metadata": {"installedBy": "b", "source": "marketplace"}},
        {"metadata": {"installedBy": "admin@acme.com", "source": "b"}},
        {"tenantId": "b"},
        {"configuration": {"retryCount": 1}},
    ],
    ids=["installed_by", "source", "tenant_id", "configuration"],
)
def test_fields_of_the_event_change_the_hash(stable: dict[str, Any]) -> None:
    other = webhook.delivery(body("installed") | stable)
    assert identify(other, RULES.identity)[0].f != claim().f


def test_the_hash_depends_on_the_secret_key() -> None:
    assert identify(delivery("installed"), b"another" * 8)[0].f != claim().f


def test_retry_marks_are_ignored_for_a_sender_that_keeps_its_timestamps() -> None:
    marked = delivery("enabled", retryCount=2)
    assert identify(marked, RULES.identity)[0].marked is True
    assert identify(marked, RULES.identity, restamps=False)[0].marked is False


def test_only_installs_and_updates_carry_a_configuration() -> None:
    assert claim("enabled", 0, {"a": 1}).digest is None
    assert claim("installed", 0, {"a": 1}).text == '{"a":1}'
    assert claim("installed", 0, {"a": 1.0}).digest == claim("configuration_updated", 0, {"a": 1}).digest


def test_a_configuration_with_huge_numbers_has_one_canonical_spelling() -> None:
    huge = {"b": 2**60, "a": 1}
    assert canonical(huge) == canonical(dict(reversed(huge.items()))) == b'{"a":1,"b":1152921504606846976}'
    assert len(identify(observed(0, configuration=huge), RULES.identity)) == 2
