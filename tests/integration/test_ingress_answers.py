"""The table of answers, row by row, over a socket and a real broker: the answer, and the records written."""

import secrets
from base64 import b64decode
from collections.abc import Iterator
from typing import Any

import pytest

from schemas import codec, webhook_sent
from schemas.dead_letter import DeadLetter
from schemas.event import Recheck
from schemas.times import rfc3339
from schemas.topics import DEAD_LETTERS, RECEIVED, Topic
from schemas.webhook import PROBE
from tests.support.eventually import eventually
from tests.support.ingress_process import (
    NARROW,
    PREVIOUS,
    SECRET,
    Ingress,
    body,
    headers_of,
    ingress,
    key,
    make_topics,
    now_us,
    raw,
    request,
)

pytestmark = [pytest.mark.engines]

S = 1_000_000
MINUTE = 60 * S
NARROW_PATH = "/v1/genesys/lifecycle/narrow"


@pytest.fixture(scope="module")
def live(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    with ingress(kafka_bootstrap, prefix, tmp_path_factory.mktemp("ingress")) as running:
        yield running


def of(live: Ingress, topic: Topic, told: dict[str, Any], kind: str) -> list[tuple[dict[str, str], bytes]]:
    """Headers and values of the records of a type about this delivery's key."""
    found = [
        (headers_of(record), record.value() or b"")
        for record in live.records(topic)
        if record.key() == key(told).encode()
    ]
    return [(headers, value) for headers, value in found if headers["ce_type"] == kind]


def deliveries(live: Ingress, told: dict[str, Any]) -> list[tuple[dict[str, str], bytes]]:
    return of(live, RECEIVED, told, "genesys.webhook.v1")


def rechecks(live: Ingress, told: dict[str, Any]) -> list[Recheck]:
    return [codec.decode(Recheck, value) for _, value in of(live, RECEIVED, told, "lifecycle.recheck.v1")]


def dead(live: Ingress, payload: bytes) -> list[DeadLetter]:
    found = [codec.decode(DeadLetter, record.value()) for record in live.records(DEAD_LETTERS)]
    return [letter for letter in found if letter.body == payload]


def test_a_delivery_is_answered_queued_and_stored_unchanged(live: Ingress) -> None:
    told, trace = body(), f"00-{'a' * 32}-{'b' * 16}-01"
    stated = now_us() - 5 * S
    reply = live.post(told, at_us=stated, fields={"traceparent": trace, "X-Delivery-Id": "1"})
    assert (reply.status, reply.said) == (200, {"status": "queued"})
    ((headers, value),) = deliveries(live, told)
    assert value == raw(told)
    assert headers["endpoint"] == "default"
    assert headers["event_timestamp_header"] == rfc3339(stated)
    assert headers["traceparent"] == trace
    assert headers["received_at"] == headers["ce_time"]
    assert set(headers) == {
        "ce_specversion", "ce_id", "ce_source", "ce_type", "ce_time", "content-type",
        "endpoint", "event_timestamp_header", "received_at", "traceparent",
    }  # fmt: skip


@pytest.mark.parametrize("path", ["/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle"])
def test_paths_without_a_name_are_the_default_endpoint(live: Ingress, path: str) -> None:
    told = body()
    assert live.post(told, path=path).status == 200
    assert deliveries(live, told)[0][0]["endpoint"] == "default"


def test_identifiers_are_lower_cased_in_the_key(live: Ingress) -> None:
    told = body()
    assert live.post(told | {"integrationId": told["integrationId"].upper()}).status == 200
    assert len(deliveries(live, told)) == 1


def test_a_repeated_delivery_is_written_again_and_answered_duplicate(live: Ingress) -> None:
    told = body()
    answers = [live.post(told).said["status"] for _ in range(3)]
    assert answers == ["queued", "duplicate_handled", "duplicate_handled"]
    found = deliveries(live, told)
    assert len(found) == 3
    assert len({headers["ce_id"] for headers, _ in found}) == 1


def test_s13_an_unsigned_delivery_id_makes_no_difference(live: Ingress) -> None:
    told = body()
    first = live.post(told, fields={"X-Genesys-Delivery-Id": "1"})
    second = live.post(told, fields={"X-Genesys-Delivery-Id": "2"})
    assert [first.said["status"], second.said["status"]] == ["queued", "duplicate_handled"]


def test_s14_a_replay_after_ten_minutes_with_a_fresh_header_is_written_for_the_ledger_to_know(live: Ingress) -> None:
    told = body(now_us() - 10 * MINUTE)
    assert live.post(told).status == 200
    assert len(deliveries(live, told)) == 1
    assert rechecks(live, told) == []


def test_s15_a_replay_after_thirty_minutes_is_refused_with_any_header(live: Ingress) -> None:
    told = body(now_us() - 30 * MINUTE, metadata={"retryCount": 5})
    assert live.post(told).status == 401
    assert deliveries(live, told) == []
    (recheck,) = eventually(lambda: rechecks(live, told))
    assert (recheck.key, recheck.reason) == (key(told), "ingress_stale")


def test_a_timestamp_in_the_future_is_refused_without_a_recheck(live: Ingress) -> None:
    told = body(now_us() + 2 * MINUTE)
    assert live.post(told).status == 401
    assert deliveries(live, told) == []
    assert rechecks(live, told) == []


def test_a_marked_retry_is_accepted_with_an_old_header(live: Ingress) -> None:
    old = now_us() - 15 * MINUTE
    told = body(old, metadata={"retryCount": 3})
    assert live.post(told, at_us=old).said == {"status": "queued"}


def test_a_repeat_of_written_bytes_is_accepted_with_an_old_header(live: Ingress) -> None:
    signed = now_us() - 2 * MINUTE
    told = body(signed)
    assert live.post(told).said == {"status": "queued"}
    assert live.post(told, at_us=signed).said == {"status": "duplicate_handled"}
    assert len(deliveries(live, told)) == 2


def test_unknown_bytes_with_an_old_header_are_refused_and_rechecked_once(live: Ingress) -> None:
    old = now_us() - 2 * MINUTE
    told = body(old)
    assert [live.post(told, at_us=old).status for _ in range(4)] == [401] * 4
    (recheck,) = eventually(lambda: rechecks(live, told))
    assert recheck.reason == "ingress_unmarked"
    assert live.post(body()).status == 200  # behind it, so that a second recheck would be there by now
    assert deliveries(live, told) == []
    assert len(rechecks(live, told)) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"X-Genesys-Signature": None},
        {"X-Genesys-Signature": "0" * 63},
        {"X-Genesys-Signature": "0" * 64},
        {"X-Genesys-Event-Timestamp": None},
        {"X-Genesys-Event-Timestamp": "1705329130"},
        {"X-Genesys-Event-Timestamp": "2024-01-15T14:32:10"},
        {"X-Genesys-Event-Timestamp": "yesterday"},
    ],
    ids=["no signature", "short signature", "wrong signature", "no time", "epoch", "no offset", "no time at all"],
)
def test_every_unproved_delivery_gets_the_same_answer(live: Ingress, fields: dict[str, str | None]) -> None:
    told = body()
    reply = live.post(told, fields=fields)
    assert reply.status == 401
    assert reply == live.ask(request(b"{}", path="/v1/genesys/lifecycle/nobody"))
    assert deliveries(live, told) == []


def test_a_refusal_with_a_recheck_equals_any_other_refusal(live: Ingress) -> None:
    old = body(now_us() - 30 * MINUTE)
    assert live.post(old) == live.post(body(), secret="x" * 32)


def test_an_unknown_endpoint_accepts_no_signature(live: Ingress) -> None:
    for path in ("nobody", "", "default/x", "%00", "Default"):
        assert live.post(body(), path=f"/v1/genesys/lifecycle/{path}").status == 401


def test_the_previous_secret_is_accepted_until_it_expires(live: Ingress) -> None:
    for endpoint, status in (("rotated", 200), ("expired", 401), ("default", 401)):
        assert live.post(body(), secret=PREVIOUS, path=f"/v1/genesys/lifecycle/{endpoint}").status == status
        assert live.post(body(), path=f"/v1/genesys/lifecycle/{endpoint}").status == 200


def test_a_secret_is_refused_for_other_organisations(live: Ingress) -> None:
    own, foreign = body(), body(orgId="00000000-1234-5678-9abc-def012345678")
    assert live.post(own, secret=NARROW, path=NARROW_PATH).status == 200
    assert live.post(foreign, secret=NARROW, path=NARROW_PATH).status == 403
    assert deliveries(live, foreign) == []


def test_a_key_outside_the_secrets_binding_is_not_rechecked(live: Ingress) -> None:
    foreign = body(now_us() - 30 * MINUTE, orgId="00000000-1234-5678-9abc-def012345678")
    assert live.post(foreign, secret=NARROW, path=NARROW_PATH).status == 401
    assert live.post(body()).status == 200
    assert rechecks(live, foreign) == []


def test_a_forged_body_is_not_parsed(live: Ingress) -> None:
    """Were it parsed, it would be 400, and a dead letter."""
    payload = b"{" + secrets.token_hex(8).encode()
    assert live.ask(request(payload, secret="x" * 32)).status == 401
    assert dead(live, payload) == []


@pytest.mark.parametrize(
    ("payload", "field"),
    [(b'{"canary": ', "body"), (b"[]", "body"), (raw(body(tenantId="")), "tenantId"), (b"", "body")],
    ids=["not json", "no object", "a field", "empty"],
)
def test_an_authentic_body_outside_the_schema_becomes_one_dead_letter(
    live: Ingress, payload: bytes, field: str
) -> None:
    stated = now_us()
    for _ in range(3):
        reply = live.ask(request(payload, at_us=stated))
        assert reply.status == 400
        assert reply.said["field"] == field
        assert b"canary" not in reply.content
    (letter,) = dead(live, payload)
    assert (letter.reason, letter.origin, letter.key) == ("malformed", "ingress", None)
    assert letter.headers["endpoint"] == "default"
    assert letter.headers["event_timestamp_header"] == rfc3339(stated)
    assert b64decode(letter.body_base64) == payload


def test_s18_a_signed_body_with_duplicate_keys_is_a_dead_letter(live: Ingress) -> None:
    payload = b'{"event":"installed","event":"uninstalled"}'
    reply = live.ask(request(payload))
    assert reply.status == 400
    assert reply.said["detail"] == "body has a duplicate key"
    assert len(dead(live, payload)) == 1


def test_an_unknown_event_is_parked_in_dead_letters_once(live: Ingress) -> None:
    told = body(event="upgraded")
    before = live.metric("lifecycle_ingress_dead_letters_total", reason="unknown_event")
    assert [live.post(told).said for _ in range(3)] == [{"status": "parked"}] * 3
    assert live.metric("lifecycle_ingress_dead_letters_total", reason="unknown_event") == before + 1
    (letter,) = dead(live, raw(told))
    assert (letter.reason, letter.key) == ("unknown_event", key(told))
    assert deliveries(live, told) == []


def test_an_unknown_event_is_judged_by_binding_and_time_as_a_known_event(live: Ingress) -> None:
    foreign = body(event="upgraded", orgId="00000000-1234-5678-9abc-def012345678")
    assert live.post(foreign, secret=NARROW, path=NARROW_PATH).status == 403
    stale = body(now_us() - 30 * MINUTE, event="upgraded")
    assert live.post(stale).status == 401
    assert dead(live, raw(foreign)) == dead(live, raw(stale)) == []


def test_parked_bytes_count_as_written_before(live: Ingress) -> None:
    told = body(event="upgraded")
    old = now_us() - 10 * MINUTE
    assert live.post(told, at_us=old).status == 401
    assert live.post(told).said == {"status": "parked"}
    assert live.post(told, at_us=old).said == {"status": "parked"}


def test_a_probe_is_proved_and_nothing_is_written_of_it(live: Ingress) -> None:
    told = body()
    probe = webhook_sent.probe(told["orgId"], told["integrationId"], now_us())
    for _ in range(2):
        reply = live.ask(request(probe))
        assert (reply.status, reply.said) == (200, {"status": "proved"})
    forged = live.ask(request(probe, secret="canary-stranger-0123456789-0123456789-abc"))
    assert forged.status == 401
    assert live.metric("lifecycle_ingress_answers_total", reason="proved") == 2
    assert (deliveries(live, told), rechecks(live, told), dead(live, probe)) == ([], [], [])


def test_a_probe_is_judged_by_binding_and_time_and_asks_for_no_recheck(live: Ingress) -> None:
    told = body()
    foreign = webhook_sent.probe("00000000-1234-5678-9abc-def012345678", told["integrationId"], now_us())
    assert live.ask(request(foreign, secret=NARROW, path=NARROW_PATH)).status == 403
    stale = webhook_sent.probe(told["orgId"], told["integrationId"], now_us() - 30 * MINUTE)
    assert live.ask(request(stale)).status == 401
    assert live.ask(request(stale, at_us=now_us() - 2 * MINUTE)).status == 401
    assert rechecks(live, told) == []


@pytest.mark.parametrize("lacking", ["orgId", "eventTimestamp"])
def test_a_probe_without_key_or_time_is_an_unknown_event(live: Ingress, lacking: str) -> None:
    told = body(event=PROBE, **{lacking: None})
    assert live.post(told).said == {"status": "parked"}
    assert len(dead(live, raw(told))) == 1


@pytest.mark.parametrize("time", ["soon", 7, None])
def test_an_unknown_event_without_a_readable_time_is_judged_by_its_header(live: Ingress, time: Any) -> None:
    told = body(event="upgraded", eventTimestamp=time, metadata={"retryCount": 3})
    assert live.post(told).said == {"status": "parked"}
    assert [live.post(told, at_us=now_us() + age).status for age in (-2 * MINUTE, 2 * MINUTE)] == [401, 401]
    assert live.post(told).said == {"status": "parked"}
    assert len(dead(live, raw(told))) == 1


def test_unknown_fields_of_a_delivery_are_stored(live: Ingress) -> None:
    told = body(novelty={"a": [1, 2]})
    assert live.post(told).status == 200
    assert deliveries(live, told)[0][1] == raw(told)


def test_odd_retry_marks_are_counted_and_ignored(live: Ingress) -> None:
    before = live.metric("lifecycle_ingress_odd_marks_total")
    old = now_us() - 2 * MINUTE
    assert live.post(body(old, metadata={"retryCount": -1}), at_us=old).status == 401
    assert live.post(body(metadata={"retryCount": True})).status == 200
    assert live.metric("lifecycle_ingress_odd_marks_total") == before + 1


def test_the_order_of_one_key_in_kafka_is_the_order_of_acceptance(live: Ingress) -> None:
    told = body()
    names = ["enabled", "disabled"] * 10
    for event in names:
        assert live.post(told | {"event": event}).status == 200
    assert [codec_event(value) for _, value in deliveries(live, told)] == names


def codec_event(value: bytes) -> str:
    return value.split(b'"event": "')[1].split(b'"')[0].decode()


def test_the_metrics_count_each_answer(live: Ingress) -> None:
    def count(status: str, reason: str) -> float:
        return live.metric("lifecycle_ingress_answers_total", status=status, reason=reason)

    before = [count("200", "queued"), count("401", "forged"), count("403", "unbound")]
    for _ in range(3):
        live.post(body())
    live.post(body(), secret="x" * 32)
    live.post(body(orgId="00000000-1234-5678-9abc-def012345678"), secret=NARROW, path=NARROW_PATH)
    after = [count("200", "queued"), count("401", "forged"), count("403", "unbound")]
    assert [b - a for a, b in zip(before, after, strict=True)] == [3, 1, 1]
    assert live.metric("lifecycle_ingress_in_flight") == 0


def test_no_secret_or_value_reaches_logs_metrics_or_headers(live: Ingress) -> None:
    told = body(configuration={"crmClientSecret": "canary-value"})
    for how in ({}, {"secret": "x" * 32}, {"path": NARROW_PATH, "secret": NARROW}):
        live.post(told, **how)
    live.post(told | {"tenantId": "canary tenant"})
    live.post(told | {"eventTimestamp": rfc3339(now_us() - 30 * MINUTE)})
    assert eventually(lambda: live.logged("refused"))
    for line in live.lines:
        assert "canary" not in line
        assert SECRET not in line
    for reply in (live.get("/metrics"), live.get("/readyz"), live.post(told, secret="x" * 32)):
        assert b"canary" not in reply.content
    for topic in (RECEIVED, DEAD_LETTERS):
        for record in live.records(topic):
            headers = {name: value for name, value in headers_of(record).items() if "canary" in value}
            assert headers == {}
            assert SECRET.encode() not in (record.value() or b"")
