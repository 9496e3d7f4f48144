"""What Genesys holds of a webhook is compared with what should be, and no secret is shown."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from schemas import webhook_definition
from schemas.genesys import Strange
from schemas.webhook_definition import WebhookDefinition
from services.core.registration import RotationStart, SecretStanding, compare, endpoint_of, rotation_start

CURRENT = SecretStr("canary-current-0123456789-0123456789-ab")
PREVIOUS = SecretStr("canary-previous-0123456789-0123456789-a")
FOREIGN = SecretStr("canary-foreign-0123456789-0123456789-ab")
WANTED = WebhookDefinition("https://hooks.acme.example/v1/genesys/lifecycle", secret=CURRENT)

GUIDE = {
    "url": "https://api.yourplatform.com/v1/genesys/lifecycle",
    "events": ["installed", "uninstalled", "configuration_updated"],
    "retryPolicy": {"maxRetries": 5, "initialDelayMs": 1000, "backoffMultiplier": 2},
    "timeoutMs": 3000,
    "secret": "your_hmac_signing_secret",
}
"""The request of the guide, section 1."""


def fingerprint(secret: SecretStr) -> str:
    return {CURRENT: "cc", PREVIOUS: "pp", FOREIGN: "ff"}.get(secret, "??")


def differing(held: WebhookDefinition | None) -> dict[str, tuple[str, str]]:
    rows = compare(held, WANTED, PREVIOUS, fingerprint).rows
    return {row.field: (row.held, row.wanted) for row in rows if row.differs}


def test_an_equal_definition_has_no_difference() -> None:
    found = compare(WANTED, WANTED, PREVIOUS, fingerprint)
    assert (found.differs, found.standing) == (False, SecretStanding.CURRENT)


def test_the_request_of_the_guide_lacks_two_events() -> None:
    held = webhook_definition.parse(GUIDE)
    assert differing(replace(held, url=WANTED.url, secret=CURRENT)) == {
        "events": (
            "installed, uninstalled, configuration_updated",
            "installed, uninstalled, enabled, disabled, configuration_updated",
        )
    }


def test_a_put_tells_exactly_what_the_guide_tells() -> None:
    told = webhook_definition.body(WANTED)
    assert {**told, "url": GUIDE["url"], "events": GUIDE["events"], "secret": GUIDE["secret"]} == GUIDE
    assert webhook_definition.parse(told) == WANTED


@pytest.mark.parametrize(
    ("change", "row"),
    [
        ({"url": "https://old.example/v1"}, ("url", "https://old.example/v1")),
        ({"events": frozenset({"installed", "upgraded"})}, ("events", "installed, upgraded")),
        ({"max_retries": 3}, ("retries", "3")),
        ({"initial_delay_ms": None}, ("first wait", "nothing")),
        ({"backoff_multiplier": 1.5}, ("backoff", "x 1.5")),
        ({"timeout_ms": 10_000}, ("timeout", "10,000 ms")),
    ],
    ids=lambda value: next(iter(value), "") if isinstance(value, dict) else value[1],  # a set has no fixed order
)
def test_a_field_that_differs_is_named_alone(change: dict[str, Any], row: tuple[str, str]) -> None:
    found = differing(replace(WANTED, **change))
    assert {name: held for name, (held, _) in found.items()} == dict([row])


@pytest.mark.parametrize(
    ("held", "standing", "text"),
    [
        (PREVIOUS, SecretStanding.PREVIOUS, "pp, the previous secret"),
        (FOREIGN, SecretStanding.FOREIGN, "ff, a secret that is not in the keyring"),
        (None, SecretStanding.HIDDEN, None),
    ],
)
def test_a_secret_is_named_by_its_standing_and_never_shown(
    held: SecretStr | None, standing: SecretStanding, text: str | None
) -> None:
    found = compare(replace(WANTED, secret=held), WANTED, PREVIOUS, fingerprint)
    assert found.standing is standing
    assert {row.held for row in found.rows if row.differs} == ({text} if text else set())
    assert "canary" not in repr(found)


def test_an_integration_without_a_webhook_differs_in_every_field() -> None:
    found = compare(None, WANTED, None, fingerprint)
    assert found.standing is SecretStanding.ABSENT
    assert all(row.differs for row in found.rows)


@pytest.mark.parametrize("secret", [None, "", "********", "••••ab", 7])
def test_a_masked_or_missing_secret_counts_as_not_shown(secret: object) -> None:
    assert webhook_definition.parse({**GUIDE, "secret": secret}).secret is None


def test_fields_of_another_type_are_nothing_and_no_fault() -> None:
    odd = {"url": 1, "events": "installed", "retryPolicy": [], "timeoutMs": True}
    assert webhook_definition.parse(odd) == WebhookDefinition(None, None, None, None, None, None, None)
    for endless in (float("inf"), float("nan"), 10**400, -(10**400)):
        held = webhook_definition.parse({"timeoutMs": endless, "retryPolicy": {"backoffMultiplier": endless}})
        assert (held.timeout_ms, held.backoff_multiplier) == (None, None)
        assert compare(held, WANTED, PREVIOUS, fingerprint).differs
    with pytest.raises(Strange):
        webhook_definition.parse([GUIDE])


@pytest.mark.parametrize(
    ("standings", "previous_counts", "start"),
    [
        ([SecretStanding.CURRENT], False, RotationStart.FRESH),
        ([SecretStanding.PREVIOUS], False, RotationStart.FRESH),
        ([SecretStanding.CURRENT, SecretStanding.PREVIOUS], True, RotationStart.RESUMED),
        ([SecretStanding.HIDDEN], True, RotationStart.RESUMED),
        ([SecretStanding.CURRENT, SecretStanding.CURRENT], True, RotationStart.TOO_EARLY),
    ],
)
def test_no_rotation_cuts_off_a_secret_that_still_counts(
    *, standings: list[SecretStanding], previous_counts: bool, start: RotationStart
) -> None:
    assert rotation_start(standings, previous_counts=previous_counts) is start


@pytest.mark.parametrize(
    ("path", "endpoint"),
    [
        ("/v1/genesys/lifecycle", "default"),
        ("/api/v1/genesys/lifecycle/", "default"),
        ("/v1/genesys/lifecycle/acme", "acme"),
        ("/hooks/v1/genesys/lifecycle/acme", "acme"),
        ("/hooks", None),
        ("/v1/genesys/lifecycle/a/b", None),
    ],
)
def test_the_endpoint_of_a_url_is_read_from_its_path(path: str, endpoint: str | None) -> None:
    assert endpoint_of(path) == endpoint
