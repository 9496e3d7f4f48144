"""The sender's body: the fields read, and refusals by field and rule that never repeat a value."""

import json
from typing import Any

import pytest

from schemas import webhook
from schemas.times import instant
from schemas.values import EventType
from schemas.webhook import Malformed, UnknownEvent

GUIDE: dict[str, Any] = {
    "event": "installed",
    "integrationId": "A1B2C3D4-e5f6-7890-abcd-ef1234567890",
    "orgId": "98765432-1234-5678-9ABC-def012345678",
    "tenantId": "tenant_acme_corp",
    "configuration": {
        "crmEndpoint": "https://acme.salesforce.com",
        "syncInterval": "PT5M",
        "featureFlags": ["voice_routing", "omnichannel_queue"],
    },
    "eventTimestamp": "2024-01-15T14:32:10Z",
    "metadata": {"installedBy": "admin@acme.com", "source": "marketplace"},
}
KEY = "98765432-1234-5678-9abc-def012345678:a1b2c3d4-e5f6-7890-abcd-ef1234567890"


def told(**changes: Any) -> webhook.Delivery:
    return webhook.delivery(GUIDE | changes)


def test_the_guides_example_is_parsed() -> None:
    found = webhook.parse(json.dumps(GUIDE).encode())
    assert found.key == KEY
    assert found.event is EventType.INSTALLED
    assert found.tenant_id == "tenant_acme_corp"
    assert found.configuration == GUIDE["configuration"]
    assert found.at_us == 1_705_329_130_000_000
    assert (found.installed_by, found.source) == ("admin@acme.com", "marketplace")
    assert (found.event_id, found.sequence, found.marked, found.odd_marks) == (None, None, False, False)


def test_unknown_fields_are_accepted() -> None:
    assert told(novelty={"deep": [1]}).key == KEY
    assert told(configuration={"novelty": 1}).configuration == {"novelty": 1}


def test_s20_two_spellings_of_one_instant_are_one_instant() -> None:
    assert told(eventTimestamp="2024-01-15T16:32:10+02:00").at_us == told().at_us


@pytest.mark.parametrize(
    ("marks", "marked", "odd"),
    [
        ({"retryCount": 1}, True, False),
        ({"retryCount": 0}, False, False),
        ({"retryCount": "2"}, True, False),
        ({"retryCount": "00"}, False, False),
        ({"retryCount": 1000}, True, False),
        ({"deliveryAttempt": 1}, False, False),
        ({"deliveryAttempt": 2}, True, False),
        ({"retryCount": -1}, False, True),
        ({"retryCount": True}, False, True),
        ({"retryCount": 1e9}, False, True),
        ({"retryCount": 1001}, False, True),
        ({"retryCount": 2.5}, False, True),
        ({"retryCount": "12345"}, False, True),
        ({"retryCount": "-1"}, False, True),
        ({"retryCount": [], "deliveryAttempt": 2}, True, True),
        ({"retryCount": None}, False, False),
    ],
)
@pytest.mark.parametrize("level", ["top", "metadata"])
def test_s19_a_mark_is_a_count_or_absent(marks: dict[str, Any], level: str, *, marked: bool, odd: bool) -> None:
    found = told(**marks) if level == "top" else told(metadata=marks)
    assert (found.marked, found.odd_marks) == (marked, odd)


def test_the_greater_of_two_marks_counts() -> None:
    assert told(retryCount=0, metadata={"retryCount": 3}).marked
    assert told(retryCount=3, metadata={"retryCount": 0}).marked


@pytest.mark.parametrize("level", ["top", "metadata"])
def test_the_senders_id_is_read_at_both_levels(level: str) -> None:
    ids = {"eventId": "ev-1", "sequence": 7}
    found = told(**ids) if level == "top" else told(metadata=ids)
    assert (found.event_id, found.sequence) == ("ev-1", "7")


def test_a_whole_number_in_any_spelling_is_a_sequence() -> None:
    assert {told(sequence=number).sequence for number in (7, 7.0)} == {"7"}
    assert told(sequence=-0.0).sequence == "0"


def test_an_empty_id_counts_as_no_id() -> None:
    found = told(eventId="", sequence="", metadata={"eventId": None, "sequence": None})
    assert (found.event_id, found.sequence) == (None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("event", None), ("event", 1), ("event", ["installed"]),
        ("integrationId", None), ("integrationId", "a1b2c3d4e5f67890abcdef1234567890"),
        ("integrationId", GUIDE["orgId"] + "\n"),
        ("orgId", 5), ("orgId", "98765432-1234-5678-9abc-def01234567\u0435"),
        ("orgId", "98765432-1234-5678-9abc-def01234567\x00"),
        ("tenantId", ""), ("tenantId", "a" * 129), ("tenantId", "-a"), ("tenantId", "a\n"), ("tenantId", "ten\u0430nt"),
        ("tenantId", 'x"; DROP SCHEMA public CASCADE;--'),
        ("configuration", []), ("configuration", "x"),
        ("eventTimestamp", None), ("eventTimestamp", 1705329130), ("eventTimestamp", "1705329130"),
        ("eventTimestamp", "2024-01-15"), ("eventTimestamp", "2024-W03-1T14:32:10Z"),
        ("eventTimestamp", "2024-01-15T14:32:10"),
        ("eventTimestamp", "2024-02-30T14:32:10Z"), ("eventTimestamp", "2024-01-15T14:32:10.1234567890Z"),
        ("eventTimestamp", "2024-01-15T14:32:10+24:00"), ("eventTimestamp", "2024-01-15 14:32:10Z"),
        ("eventTimestamp", "9999-12-31T23:59:59-14:00"), ("eventTimestamp", "0001-01-01T00:00:00+14:00"),
        ("metadata", "x"),
    ],
)  # fmt: skip
def test_a_field_outside_the_schema_is_named(field: str, value: Any) -> None:
    with pytest.raises(Malformed) as caught:
        told(**{field: value})
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("configuration", "crmEndpoint", 1), ("configuration", "syncInterval", "5 minutes"),
        ("configuration", "syncInterval", "P"), ("configuration", "syncInterval", "PT"),
        ("configuration", "featureFlags", "x"), ("configuration", "featureFlags", [1]),
        ("metadata", "installedBy", 1), ("metadata", "source", {}),
        ("metadata", "eventId", 1), ("metadata", "eventId", "x" * 129), ("metadata", "eventId", "a\x00b"),
        ("metadata", "sequence", -1), ("metadata", "sequence", True),
        ("metadata", "sequence", 1.5), ("metadata", "sequence", "a b"), ("metadata", "sequence", 1e300),
    ],
)  # fmt: skip
def test_a_nested_field_is_named_by_its_path(part: str, field: str, value: Any) -> None:
    with pytest.raises(Malformed) as caught:
        told(**{part: {field: value}})
    assert caught.value.field == f"{part}.{field}"


def test_a_refusal_never_repeats_a_value() -> None:
    with pytest.raises(Malformed) as caught:
        webhook.parse(b'{"event": "installed", "orgId": "canary", "canary": 1, "canary": 2}')
    assert "canary" not in str(caught.value)
    with pytest.raises(Malformed) as caught:
        told(orgId="canary")
    assert "canary" not in str(caught.value)


def test_an_unknown_event_keeps_its_readable_fields() -> None:
    with pytest.raises(UnknownEvent) as caught:
        told(event="upgraded", metadata={"retryCount": 1})
    assert (caught.value.key, caught.value.at_us, caught.value.marked) == (KEY, instant(GUIDE["eventTimestamp"]), True)
    with pytest.raises(UnknownEvent) as caught:
        webhook.delivery({"event": "", "orgId": GUIDE["orgId"], "eventTimestamp": "x", "metadata": 7})
    assert (caught.value.key, caught.value.at_us, caught.value.marked) == (None, None, False)


NESTED_32 = b"[" * 32 + b"1" + b"]" * 32
STRICT = {
    "not json": b"{",
    "empty": b"",
    "two values": b"{} {}",
    "duplicate keys": b'{"event":"installed","event":"uninstalled"}',
    "duplicate keys, escaped": b'{"event":"installed","\\u0065vent":"uninstalled"}',
    "duplicate keys, nested": b'{"a":{"b":1,"b":1}}',
    "NaN": b"[NaN]",
    "Infinity": b"[-Infinity]",
    "overflow": b"[1e999]",
    "integer beyond 2^53-1": b"[9007199254740992]",
    "negative beyond": b"[-9007199254740992]",
    "5,000 digits": b"[" + b"9" * 5_000 + b"]",
    "depth 33": b"[" + NESTED_32 + b"]",
    "depth 33 of empties": b"[" * 33 + b"]" * 33,
    "depth 100,000": b"[" * 100_000 + b"]" * 100_000,
    "lone surrogate": b'["\\ud800"]',
    "overlong UTF-8": b'["\xc0\xaf"]',
    "CESU-8": b'["\xed\xa0\xbd\xed\xb8\x80"]',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": "{}".encode("utf-16"),
    "control character": b'["\x00"]',
}


@pytest.mark.parametrize("bytes_", STRICT.values(), ids=STRICT.keys())
def test_ambiguous_json_is_refused(bytes_: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        webhook.read_json(bytes_)
    assert caught.value.field == "body"


@pytest.mark.parametrize(
    "bytes_",
    [
        b"[9007199254740991,-9007199254740991,-0,1.5e300,true,null]",
        NESTED_32,
        b"[" + b",".join([b"1"] * (webhook.BODY_MAX_BYTES // 2 - 1)) + b"]",
        '["é😀"]'.encode(),
    ],
    ids=["numbers", "depth 32", "as many values as a body holds", "unicode"],
)  # fmt: skip
def test_json_within_the_limits_is_parsed(bytes_: bytes) -> None:
    assert webhook.read_json(bytes_) == json.loads(bytes_)


@pytest.mark.parametrize("bytes_", [b"[]", b'"x"', b"1", b"null"])
def test_a_body_that_is_no_object_is_refused(bytes_: bytes) -> None:
    with pytest.raises(Malformed, match="body: must be a JSON object"):
        webhook.parse(bytes_)
