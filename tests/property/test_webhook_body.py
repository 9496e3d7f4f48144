"""The parser of the sender's body, its JSON Schema, and the codec, held against each other on generated inputs."""

import json
import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas import codec, webhook
from schemas.times import instant, rfc3339
from schemas.values import EventType
from schemas.webhook import Malformed, UnknownEvent
from schemas.webhook_schema import BODY
from tests.support.examples import examples

VALIDATOR = Draft202012Validator(BODY)

words = st.text(max_size=12)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | words
values = st.recursive(scalars, lambda v: st.lists(v, max_size=3) | st.dictionaries(words, v, max_size=3), max_leaves=8)
uuids = st.uuids().map(str) | st.uuids().map(lambda u: str(u).upper())
times = st.datetimes(timezones=st.timezones()).map(lambda t: t.isoformat())
counts = st.integers(-2, 1200) | st.sampled_from(["1", "0002", "99999", "x"]) | values

nearly = {
    "event": st.sampled_from([str(e) for e in EventType]) | values,
    "integrationId": uuids | values,
    "orgId": uuids | values,
    "tenantId": st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z") | values,
    "eventTimestamp": times | st.integers(-(10**13), 10**16).map(rfc3339) | values,
}
beside = {
    "configuration": st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "crmEndpoint": words | scalars,
            "syncInterval": st.sampled_from(["PT5M", "P1D", "P1Y2M3W4DT5H6M7.8S", "P", "PT", "P1H", "1D"]) | scalars,
            "featureFlags": st.lists(words, max_size=2) | values,
            "other": values,
        },
    )
    | values,
    "metadata": st.none()
    | st.fixed_dictionaries(
        {},
        optional={
            "installedBy": words | scalars,
            "source": words | scalars,
            "eventId": words | scalars,
            "sequence": st.integers(-1, 9) | words | scalars,
            "retryCount": counts,
        },
    )
    | values,
    "eventId": words | scalars,
    "sequence": st.integers(-1, 9) | words | scalars,
    "deliveryAttempt": counts,
}
bodies = st.fixed_dictionaries(nearly, optional=beside)
right = st.fixed_dictionaries(
    {
        "event": st.sampled_from([str(e) for e in EventType]),
        "integrationId": uuids,
        "orgId": uuids,
        "tenantId": st.just("tenant_acme_corp"),
        "eventTimestamp": st.integers(0, 10**16).map(rfc3339),
    },
    optional={"configuration": st.dictionaries(st.sampled_from(["a", "b", "retryCount"]), st.integers(), max_size=3)},
)


def _read(raw: bytes) -> webhook.Delivery | Malformed:
    try:
        return webhook.parse(raw)
    except Malformed as fault:
        return fault


def _writable(body: Any) -> bytes:
    """As a sender could write it: lone surrogates and NaN as JSON would not have them."""
    return json.dumps(body, ensure_ascii=True).encode()


@given(st.binary(max_size=400) | values.map(_writable) | bodies.map(_writable))
@settings(max_examples=examples(600))
def test_any_bytes_parse_as_a_delivery_or_one_named_fault(raw: bytes) -> None:
    found = _read(raw)
    if isinstance(found, Malformed):
        assert found.field
        assert found.rule


@given(bodies | right)
@settings(max_examples=examples(600))
def test_every_body_that_the_parser_accepts_is_valid_by_the_schema(body: dict[str, Any]) -> None:
    found = _read(_writable(body))
    if not isinstance(found, Malformed):
        assert VALIDATOR.is_valid(body), [error.message for error in VALIDATOR.iter_errors(body)]


@given(bodies | right)
@settings(max_examples=examples(600))
def test_every_body_valid_by_the_schema_is_accepted_but_for_rules_beyond_a_schema(body: dict[str, Any]) -> None:
    if not VALIDATOR.is_valid(body):
        return
    found = _read(_writable(body))
    if isinstance(found, Malformed):
        # Days that are not, bounds of numbers; and `$`, which Python's regular expressions let a newline pass.
        assert found.field in {"eventTimestamp", "body"} or "\\n" in json.dumps(body)


@given(right, st.randoms())
def test_the_order_of_fields_and_white_space_do_not_matter(body: dict[str, Any], random: Any) -> None:
    names = list(body)
    random.shuffle(names)
    shuffled = json.dumps({name: body[name] for name in names}, indent=2).encode()
    assert _same(_read(shuffled), _read(_writable(body)))


def _same(one: webhook.Delivery | Malformed, other: webhook.Delivery | Malformed) -> bool:
    if isinstance(one, Malformed) or isinstance(other, Malformed):
        return str(one) == str(other)
    return one == other


@given(words.filter(lambda word: word not in {str(e) for e in EventType}), bodies)
def test_an_unknown_event_is_always_parked(event: str, body: dict[str, Any]) -> None:
    found = _read(_writable(body | {"event": event}))
    assert isinstance(found, UnknownEvent) or (isinstance(found, Malformed) and found.field == "body")


@given(values)
def test_accepted_json_is_read_as_the_standard_library_reads_it(value: Any) -> None:
    raw = _writable(value)
    try:
        found = webhook.read_json(raw)
    except Malformed:
        assert _odd(value)
    else:
        assert found == json.loads(raw)


def _odd(value: Any) -> bool:
    """True if the profile refuses a part of this value."""
    if isinstance(value, dict):
        return any(_odd(v) for v in value.values()) or any(_odd(k) for k in value)
    if isinstance(value, list):
        return any(_odd(v) for v in value)
    if isinstance(value, float):
        return not math.isfinite(value) or abs(value) > webhook.INTEGER_MAX
    if isinstance(value, str):
        return any(0xD800 <= ord(letter) <= 0xDFFF for letter in value)
    return isinstance(value, int) and abs(value) > webhook.INTEGER_MAX


@given(st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999))
def test_a_written_instant_is_read_back_equal(at_us: int) -> None:
    assert instant(rfc3339(at_us)) == at_us


@given(times)
def test_every_parsed_instant_can_be_written(text: str) -> None:
    try:
        at_us = instant(text)
    except ValueError:
        return
    assert instant(rfc3339(at_us)) == at_us


@given(st.binary(max_size=200), st.integers(0, 10**16), st.dictionaries(st.sampled_from(["endpoint", "x"]), words))
def test_a_received_delivery_is_encoded_unchanged(raw: bytes, at_us: int, extra: dict[str, str]) -> None:
    extra = {name: text.encode("utf-8", "replace").decode() for name, text in extra.items()}
    beside = [(name, text.encode()) for name, text in extra.items()]
    message = codec.received(raw, key=None, ce_id="1", received_at_us=at_us, beside=beside)
    read = codec.texts(message.headers)
    assert message.value == raw
    assert read["ce_type"] == webhook.CE_TYPE
    assert read["ce_time"] == read["received_at"] == rfc3339(at_us)
    assert extra.items() <= read.items()
