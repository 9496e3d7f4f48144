"""Hints of EventBridge over a socket and a real broker: the answers, the records written, and what a crash leaves."""

import contextlib
import json
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from schemas.event import Recheck
from schemas.hint import SECRET_HEADER
from schemas.topics import DEAD_LETTERS, RECEIVED
from services.core.delivery.hint_rule import read_after_us
from services.engines.ports import free_ports
from tests.faults.chaos import own_broker
from tests.faults.ingress_world import DEPTH, world_of
from tests.support.eventually import eventually
from tests.support.hints import HINT_PATH, envelope, hint_request
from tests.support.ingress_process import (
    HINT_SECRET,
    ORG,
    PREVIOUS,
    SECRET,
    Ingress,
    Line,
    body,
    headers_of,
    ingress,
    make_topics,
    now_us,
    raw,
    request,
)

pytestmark = [pytest.mark.engines]

HINTS = "lifecycle_ingress_hints_total"
BODY_MAX = 256 * 1024


@pytest.fixture(scope="module")
def live(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    with ingress(kafka_bootstrap, prefix, tmp_path_factory.mktemp("ingress")) as running:
        yield running


def new_key(org_id: str = ORG) -> str:
    return f"{org_id}:{uuid4()}"


def asked(live: Ingress, key: str | None = None) -> list[Recheck]:
    """The re-checks in `lifecycle.received`, of one key or of all."""
    found = [record for record in live.records(RECEIVED) if key is None or record.key() == key.encode()]
    return [
        Recheck.model_validate_json(record.value() or b"")
        for record in found
        if headers_of(record)["ce_type"] == Recheck.ce_type
    ]


def post(live: Ingress, whole: Any, **how: Any) -> tuple[int, Any]:
    reply = live.ask(hint_request(whole, **how))
    return reply.status, reply.said


def test_an_audit_of_an_integration_becomes_one_request_for_a_recheck(live: Ingress) -> None:
    key, at_us = new_key(), now_us() - 60_000_000
    audit = envelope(key, "Enable", at_us, id="audit-1")
    assert post(live, audit) == (200, {"status": "queued"})
    assert asked(live, key) == [Recheck(key=key, reason="hint_enable", at=read_after_us(at_us))]
    (record,) = [record for record in live.records(RECEIVED) if record.key() == key.encode()]
    headers = headers_of(record)
    assert (headers["ce_type"], headers["ce_id"]) == ("lifecycle.recheck.v1", f"{key}/hint/audit-1")
    assert b"canary" not in (record.value() or b""), "neither the name of the integration nor that of a person"


def test_a_repeated_audit_is_written_once_and_a_further_audit_again(live: Ingress) -> None:
    key = new_key()
    first, second = envelope(key, "Disable"), envelope(key, "Enable")
    assert [post(live, one)[1]["status"] for one in (first, first, second, second, first)] == [
        "queued", "duplicate_handled", "queued", "duplicate_handled", "duplicate_handled",
    ]  # fmt: skip
    assert [one.reason for one in asked(live, key)] == ["hint_disable", "hint_enable"]
    redelivered = first | {"id": str(uuid4()), "time": "2026-01-01T00:00:00Z", "added": 1}
    assert post(live, redelivered)[1] == {"status": "duplicate_handled"}, "the audit's id counts, not the envelope's"


@pytest.mark.parametrize(
    ("changes", "topic", "reason"),
    [
        ({"entityType": "OAuthClient", "serviceName": "PeoplePermissions"}, None, "ignored_entity"),
        ({"entityType": "IntegrationCredential"}, None, "ignored_entity"),
        ({"entityType": "Flow", "serviceName": "Architect", "entity": {"id": "no-uuid"}}, None, "ignored_entity"),
        ({"action": "View"}, None, "ignored_action"),
        ({"action": "Frobnicate"}, None, "ignored_action"),
        ({}, "v2.detail.events.conversation.1.user.end", "ignored_topic"),
    ],
)
def test_everything_but_a_change_of_an_integration_is_acknowledged_and_counted(
    live: Ingress, changes: dict[str, Any], topic: str | None, reason: str
) -> None:
    key = new_key()
    whole = envelope(key, **({"action": "Update"} | changes))
    if topic is not None:
        whole["detail"] |= {"topicName": topic, "eventBody": {"conversationId": "1"}}
    before = live.metric(HINTS, status="200", reason=reason)
    assert post(live, whole) == (200, {"status": "ignored"})
    assert live.metric(HINTS, status="200", reason=reason) == before + 1
    assert asked(live, key) == []
    assert live.records(DEAD_LETTERS) == []


FORGERIES: dict[str, dict[str, Any]] = {
    "another secret": {"secret": "x" * 40},
    "a shorter secret": {"secret": HINT_SECRET[:-1]},
    "no secret": {"secret": None},
    "an empty secret": {"secret": ""},
    "the secret of webhooks": {"secret": SECRET},
    "both headers": {"fields": {"Authorization": f"Bearer {HINT_SECRET}"}},
    "another scheme": {"secret": None, "fields": {"Authorization": f"Basic {HINT_SECRET}"}},
    "an unknown endpoint": {"path": "/v1/genesys/audit/nobody"},
    "an endpoint of webhooks": {"path": "/v1/genesys/audit/default", "secret": SECRET},
    "no endpoint": {"path": "/v1/genesys/audit/"},
}


def test_a_forged_hint_is_refused_with_one_constant_answer_and_changes_nothing(live: Ingress) -> None:
    key = new_key()
    before = len(live.records(RECEIVED)), live.metric("lifecycle_ingress_answers_total")
    replies = [live.ask(hint_request(envelope(key), **how)) for how in FORGERIES.values()]
    assert [reply.status for reply in replies] == [401] * len(FORGERIES)
    same = [(reply.content, {k: v for k, v in reply.fields.items() if k != "date"}) for reply in replies]
    assert all(one == same[0] for one in same)
    twice = hint_request(envelope(key)).replace(b"\r\n\r\n", f"\r\n{SECRET_HEADER}: {HINT_SECRET}\r\n\r\n".encode(), 1)
    assert live.ask(twice).content == replies[0].content
    assert live.ask(hint_request(b"{", secret="x" * 40)).status == 401, "a forger's body is not parsed"
    assert len(live.records(RECEIVED)) == before[0]
    assert live.records(DEAD_LETTERS) == []
    assert live.metric("lifecycle_ingress_answers_total") == before[1], "no delivery was refused"
    assert live.metric(HINTS, status="401", reason="forged") >= 2
    assert HINT_SECRET not in "".join(live.lines)


def test_a_hint_to_a_webhooks_path_and_a_webhook_to_a_hints_path_are_refused(live: Ingress) -> None:
    told = body()
    assert post(live, envelope(new_key()), path="/v1/genesys/lifecycle/default")[0] == 401
    assert live.ask(request(raw(told), path=HINT_PATH)).status == 401
    assert asked(live, f"{told['orgId']}:{told['integrationId']}") == []


@pytest.mark.parametrize("value", [HINT_SECRET, f"Bearer {HINT_SECRET}", f"bearer  {HINT_SECRET}"])
def test_the_secret_may_be_the_value_of_authorization(live: Ingress, value: str) -> None:
    key = new_key()
    assert post(live, envelope(key), secret=None, fields={"Authorization": value})[0] == 200
    assert len(asked(live, key)) == 1


def test_the_previous_secret_is_accepted_and_counted(live: Ingress) -> None:
    path = "/v1/genesys/audit/audit-rotated"
    for secret in (HINT_SECRET, PREVIOUS):
        assert post(live, envelope(new_key()), secret=secret, path=path)[0] == 200
    assert live.metric("lifecycle_ingress_previous_secret_total", endpoint="audit-rotated") == 1
    assert live.metric("lifecycle_keyring_secret_expiry_timestamp_seconds", endpoint="audit-rotated") > 0


def test_an_organisation_or_account_outside_the_binding_is_refused(live: Ingress) -> None:
    path, other = "/v1/genesys/audit/audit-narrow", str(uuid4())
    known, foreign = new_key(), new_key(other)
    assert post(live, envelope(known), path=path)[0] == 200
    assert post(live, envelope(foreign), path=path)[0] == 403
    for account in ("000000000000", None):
        whole = envelope(new_key()) | {"account": account}
        assert post(live, whole, path=path)[0] == 403
    assert asked(live, foreign) == []


def test_an_odd_request_is_refused_by_the_field_or_the_form(live: Ingress) -> None:
    status, said = post(live, envelope(new_key(), eventTime="yesterday"))
    assert (status, said["field"]) == (400, "detail.eventBody.eventTime")
    assert post(live, envelope(new_key(), eventTime="9999-12-31T23:59:59.999999Z"))[0] == 200, "no input causes a 5xx"
    assert post(live, b"{")[0] == 400
    assert post(live, b'{"source": 1, "source": 2}')[1]["field"] == "body"
    big = json.dumps(envelope(new_key()) | {"filler": "x" * BODY_MAX}).encode()
    assert post(live, big)[0] == 413
    assert post(live, envelope(new_key()), fields={"Content-Type": "text/plain"})[0] == 415
    assert live.ask(f"GET {HINT_PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()).fields["allow"] == "POST"
    assert live.records(DEAD_LETTERS) == [], "a hint is never parked"
    assert live.metric(HINTS, status="400", reason="malformed") >= 3
    (line, *_) = live.logged("hint refused")
    assert line["endpoint"] in {"audit", "audit-narrow", None}


def test_a_webhook_and_a_hint_share_a_connection(live: Ingress) -> None:
    told, key = body(), new_key()
    with contextlib.closing(Line(live.port)) as line:
        line.write(hint_request(envelope(key)) + request(raw(told)) + hint_request(envelope(new_key())))
        replies = [line.reply() for _ in range(3)]
    assert [reply.status for reply in replies if reply is not None] == [200, 200, 200]
    assert len(asked(live, key)) == 1


def test_without_kafka_a_hint_is_to_be_repeated(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    with ingress(f"127.0.0.1:{port}", "x-", tmp_path) as running:
        reply = running.ask(hint_request(envelope(new_key())))
        assert (reply.status, reply.fields["retry-after"]) == (503, "5")
        assert post(running, envelope(new_key()), secret="x" * 40)[0] == 401
        assert running.metric(HINTS, status="503", reason="kafka") == 1


def test_hints_answered_200_outlive_a_kill(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> None:
    make_topics(kafka_bootstrap, topic_prefix)
    keys = [new_key() for _ in range(50)]
    with ingress(kafka_bootstrap, topic_prefix, tmp_path) as running:
        eventually(lambda: running.get("/readyz").status == 200)
        with contextlib.closing(Line(running.port)) as line:
            line.write(b"".join(hint_request(envelope(key)) for key in keys))
            good = [key for key in keys if (reply := line.reply()) is not None and reply.status == 200]
        running.process.send_signal(signal.SIGKILL)
        running.process.wait()
        assert good == keys
        assert {one.key for one in asked(running)} == set(keys)


@pytest.mark.slow
def test_hints_spooled_while_kafka_is_away_outlive_a_kill_and_never_grow_too_old(
    topic_prefix: str, tmp_path: Path
) -> None:
    keys = [new_key() for _ in range(10)]
    with own_broker(tmp_path / "broker") as broker, world_of(broker, topic_prefix, tmp_path) as world:
        with world.ready() as running:
            world.stop()
            # The first ones wait for Kafka until the breaker opens.
            said = [post(running, envelope(key)) for key in keys]
            assert said == [(200, {"status": "spooled"})] * len(keys)
            assert running.metric(DEPTH) == len(keys)
            running.process.send_signal(signal.SIGKILL)
            running.process.wait()
        world.go_on()
        with world.ready(SPOOL_MAX_AGE_S="0.1") as running:
            eventually(lambda: running.metric(DEPTH) == 0, 60)
            assert {one.key for one in asked(running)} >= set(keys)
            assert running.records(DEAD_LETTERS) == []
