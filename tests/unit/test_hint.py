"""An envelope of EventBridge names a key to read, and nothing else; odd envelopes are refused by the field."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas import hint
from schemas.hint import AuditSubject
from schemas.times import LAST_US
from schemas.webhook import Malformed
from services.core.delivery.hint_rule import (
    ACTIONS,
    Ignored,
    hint_binding,
    judge_subject,
    judge_topic,
    prove,
    read_after_us,
)
from services.core.delivery.signature import Proof, Secrets
from tests.support.hints import envelope
from tests.support.ingress_process import HINT_ACCOUNT as ACCOUNT

ORG, OTHER = "98765432-1234-5678-9abc-def012345678", "00000000-1234-5678-9abc-def012345678"
KEY = f"{ORG}:a1b2c3d4-e5f6-7890-abcd-ef1234567890"
AT_US = 1_700_000_000_250_000
CURRENT, PREVIOUS = b"current-0123456789-0123456789-0123456789", b"previous-0123456789-0123456789-012345678"


def raw(whole: Any) -> bytes:
    return json.dumps(whole).encode()


def test_an_audit_names_its_key_time_and_id() -> None:
    found = hint.parse(raw(envelope(KEY, at_us=AT_US, id="audit-1")))
    assert (found.org_id, found.account) == (ORG, ACCOUNT)
    assert judge_topic(found.topic) is None
    assert hint.subject(found.event) == AuditSubject("Integrations", "Integration", "Create")
    audit = hint.audit(found)
    assert (audit.audit_id, audit.key, audit.at_us, audit.action) == ("audit-1", KEY, AT_US, "create")
    assert audit.changed == {"intendedstate": "enabled"}


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        (None, {}),
        ("text", {}),
        ([], {}),
        ([None, 1, "x", {}, {"property": "a"}, {"property": 1, "newValues": ["b"]}], {}),
        ([{"property": "a", "newValues": []}, {"property": "b", "newValues": ["1", "2"]}], {}),
        ([{"property": "a", "newValues": [{"b": 1}]}, {"property": "b", "newValues": "c"}], {}),
        (
            [{"property": "A", "newValues": ["B"]}, {"property": "a", "oldValues": ["B"], "newValues": ["C"]}],
            {"a": "c"},
        ),
    ],
)
def test_a_property_change_of_another_form_is_left_out(changes: Any, changed: dict[str, str]) -> None:
    whole = envelope(KEY, propertyChanges=changes)
    assert hint.audit(hint.parse(raw(whole))).changed == changed


def test_identifiers_of_either_case_name_one_key() -> None:
    found = hint.parse(raw(envelope(KEY.upper(), at_us=AT_US)))
    assert hint.audit(found).key == KEY


def test_unknown_fields_at_every_level_are_ignored() -> None:
    whole = envelope(KEY, at_us=AT_US, id="audit-1", added={"by": ["Genesys"]}, entity={"id": KEY[37:], "added": 1})
    whole |= {"added": None, "replay-name": "archive"}
    whole["detail"] |= {"added": [1, 2]}
    assert hint.audit(hint.parse(raw(whole))).audit_id == "audit-1"


def test_an_envelope_without_an_account_is_read() -> None:
    whole = envelope(KEY)
    del whole["account"]
    assert hint.parse(raw(whole)).account is None


def read(text: bytes) -> None:
    """Parse all parts, as the ingress does for an audit of an integration."""
    found = hint.parse(text)
    hint.subject(found.event)
    hint.audit(found)


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(whole: dict[str, Any]) -> None:
        for name in path[:-1]:
            whole = whole[name]
        del whole[path[-1]]

    return change


def having(value: Any, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(whole: dict[str, Any]) -> None:
        for name in path[:-1]:
            whole = whole[name]
        whole[path[-1]] = value

    return change


EVENT = ("detail", "eventBody")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (without("source"), "source"),
        (having("aws.events", "source"), "source"),
        (having(f"aws.partner/genesys.com/cloud/{ORG}", "source"), "source"),
        (having(f"aws.partner/genesys.com/cloud/{ORG}/a/b", "source"), "source"),
        (having(f"aws.partner/genesys.com.evil/cloud/{ORG}/a", "source"), "source"),
        (having("aws.partner/genesys.com/cloud/acme/lifecycle", "source"), "source"),
        (having(f"AWS.partner/genesys.com/cloud/{ORG}/a", "source"), "source"),
        (having(490606849374, "account"), "account"),
        (having("49060684937", "account"), "account"),
        (without("detail"), "detail"),
        (having([], "detail"), "detail"),
        (without("detail", "topicName"), "detail.topicName"),
        (without(*EVENT), "detail.eventBody"),
        (having("text", *EVENT), "detail.eventBody"),
        (without(*EVENT, "serviceName"), "detail.eventBody.serviceName"),
        (without(*EVENT, "entityType"), "detail.eventBody.entityType"),
        (having(3, *EVENT, "action"), "detail.eventBody.action"),
        (without(*EVENT, "id"), "detail.eventBody.id"),
        (having("x" * 257, *EVENT, "id"), "detail.eventBody.id"),
        (having("a\nb", *EVENT, "id"), "detail.eventBody.id"),
        (without(*EVENT, "eventTime"), "detail.eventBody.eventTime"),
        (having("yesterday", *EVENT, "eventTime"), "detail.eventBody.eventTime"),
        (having(1700000000, *EVENT, "eventTime"), "detail.eventBody.eventTime"),
        (without(*EVENT, "entity"), "detail.eventBody.entity"),
        (without(*EVENT, "entity", "id"), "detail.eventBody.entity.id"),
        (having("not-a-uuid", *EVENT, "entity", "id"), "detail.eventBody.entity.id"),
        (having(KEY[37:] + "\n", *EVENT, "entity", "id"), "detail.eventBody.entity.id"),
    ],
)
def test_an_odd_envelope_is_refused_by_its_field(change: Callable[[dict[str, Any]], None], field: str) -> None:
    whole = envelope(KEY)
    change(whole)
    with pytest.raises(Malformed) as refused:
        read(raw(whole))
    assert refused.value.field == field
    assert ORG not in refused.value.rule


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"source": 1, "source": 2}', b"\xff", b"nul", b'"text"'])
def test_a_body_that_is_no_object_is_refused(text: bytes) -> None:
    with pytest.raises(Malformed) as refused:
        hint.parse(text)
    assert refused.value.field == "body"


@pytest.mark.parametrize("topic", ["v2.detail.events.conversation.{id}.user.end", "v2.users.1.presence", "v2.auditsx"])
def test_a_notification_of_another_topic_is_ignored(topic: str) -> None:
    assert judge_topic(topic) is Ignored.TOPIC


@pytest.mark.parametrize("action", [*sorted(ACTIONS), "Create", "RestoreDeleted", "HARDDELETE"])
def test_every_change_of_an_integration_asks_a_recheck(action: str) -> None:
    for service, entity_type in (("Integrations", "Integration"), ("INTEGRATIONS", "INTEGRATION")):
        assert judge_subject(AuditSubject(service, entity_type, action)) is None


@pytest.mark.parametrize(
    ("subject", "ignored"),
    [
        (AuditSubject("PeoplePermissions", "OAuthClient", "Delete"), Ignored.ENTITY),
        (AuditSubject("Integrations", "IntegrationCredential", "Update"), Ignored.ENTITY),
        (AuditSubject("Architect", "Integration", "Update"), Ignored.ENTITY),
        (AuditSubject("Integrations", "Integration", "View"), Ignored.ACTION),
        (AuditSubject("Integrations", "Integration", "Teleport"), Ignored.ACTION),
    ],
)
def test_an_audit_of_anything_else_is_ignored(subject: AuditSubject, ignored: Ignored) -> None:
    assert judge_subject(subject) is ignored


@pytest.mark.parametrize(
    ("orgs", "accounts", "covers"),
    [
        (["*"], ["*"], True),
        ([ORG.upper()], ["*"], True),
        ([OTHER], ["*"], False),
        (["*"], [ACCOUNT], True),
        (["*"], ["000000000000"], False),
        ([ORG], ["000000000000", ACCOUNT], True),
        ([], ["*"], False),
        (["*"], [], False),
    ],
)
def test_a_binding_covers_its_organisations_and_accounts(orgs: list[str], accounts: list[str], covers: bool) -> None:  # noqa: FBT001
    assert hint_binding(orgs, accounts).covers(ORG, ACCOUNT) is covers


def test_an_envelope_without_an_account_is_covered_by_any_account_only() -> None:
    assert hint_binding([ORG], ["*"]).covers(ORG, None)
    assert not hint_binding([ORG], [ACCOUNT]).covers(ORG, None)


def test_the_current_and_the_unexpired_previous_secret_prove_a_hint() -> None:
    held = Secrets(CURRENT, PREVIOUS, AT_US)
    assert prove(held, CURRENT, AT_US) is Proof.CURRENT
    assert prove(held, PREVIOUS, AT_US - 1) is Proof.PREVIOUS
    assert prove(held, PREVIOUS, AT_US) is Proof.NONE
    assert prove(Secrets(CURRENT), PREVIOUS, 0) is Proof.NONE


@pytest.mark.parametrize("claim", [b"", CURRENT[:-1], CURRENT + b"x", CURRENT.upper(), bytes(32), b"x" * 1024])
def test_no_further_text_proves_a_hint(claim: bytes) -> None:
    assert prove(Secrets(CURRENT, PREVIOUS, AT_US), claim, 0) is Proof.NONE
    assert prove(Secrets(CURRENT), claim, 0) is Proof.NONE
    assert prove(None, claim, 0) is Proof.NONE


def test_an_audit_of_the_last_second_of_time_asks_a_read_at_its_end() -> None:
    assert read_after_us(LAST_US) == read_after_us(LAST_US - 1) == LAST_US


def test_a_read_within_the_second_of_an_audit_does_not_answer_it() -> None:
    assert read_after_us(AT_US) // 1_000_000 > AT_US // 1_000_000
