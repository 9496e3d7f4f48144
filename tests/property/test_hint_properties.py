"""Hints in any number and order: no body breaks the parser, and a repetition asks nothing that was answered."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas import hint
from schemas.event import Observed, Recheck
from schemas.hint_schema import ENVELOPE
from schemas.webhook import Malformed
from services.core.delivery.hint_rule import judge_subject, judge_topic, read_after_us
from services.core.reconcile.recheck_schedule import HINTED_EVERY_US, RECHECK_EVERY_US, due
from tests.support.deliveries import KEY, at
from tests.support.genesys_worlds import NOW_US, key_of, rules, tenant, view
from tests.support.hints import envelope
from tests.support.ledger_worker import MemoryLedger

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PLACES = (
    ("source",), ("account",), ("detail",), ("detail", "topicName"), ("detail", "eventBody"),
    *(("detail", "eventBody", name) for name in ("id", "serviceName", "eventTime", "action", "entityType", "entity")),
    ("detail", "eventBody", "entity", "id"),
)  # fmt: skip


SCHEMA = Draft202012Validator(ENVELOPE)


def field_refused(raw: bytes) -> str | None:
    """The field by which a body is refused; None for a body that is read as far as its topic and subject ask."""
    try:
        found = hint.parse(raw)
        if judge_topic(found.topic) is None and judge_subject(hint.subject(found.event)) is None:
            assert hint.audit(found).key.startswith(f"{found.org_id}:")
            assert SCHEMA.is_valid(json.loads(raw)), "what is read is valid under the published schema"
    except Malformed as fault:
        return fault.field
    return None


@given(place=st.sampled_from(PLACES), value=JSON)
def test_any_value_anywhere_is_read_or_refused_by_a_field(place: tuple[str, ...], value: Any) -> None:
    whole = envelope(KEY)
    inner = whole
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    fields = {"body", *(".".join(path) for path in PLACES)}
    assert field_refused(json.dumps(whole).encode()) in {None, *fields}


@given(raw=st.binary(max_size=200))
def test_any_bytes_are_refused_without_another_exception(raw: bytes) -> None:
    assert field_refused(raw) is not None


def hinted(audit_s: float) -> Recheck:
    return Recheck(key=KEY, reason="hint_update", at=read_after_us(at(audit_s)))


def observed(read_s: int) -> Observed:
    org_id, _, integration_id = KEY.partition(":")
    return Observed(
        orgId=org_id, integrationId=integration_id, read_at=at(read_s), installed=True, enabled=True, cause="recheck"
    )


AUDITS_S = st.lists(st.integers(0, 100).map(lambda tenths: tenths / 10), min_size=1, max_size=12)


@given(audits_s=AUDITS_S, again=st.lists(st.integers(0, 11), max_size=30))
def test_hints_change_nothing_but_the_recheck_and_repetitions_after_the_read_nothing_at_all(
    audits_s: list[float], again: list[int]
) -> None:
    ledger = MemoryLedger()
    for audit_s in audits_s:
        ledger.hear(hinted(audit_s), 20)
        row = ledger.tenant
        assert (row.revision, row.entries, row.flags, row.desired_version) == (0, (), (), 0)
    assert ledger.tenant.recheck_at_us is not None
    ledger.hear(observed(12), 21)
    read = ledger.tenant
    assert read.recheck_at_us is None
    for number in again:
        repeated = ledger.hear(hinted(audits_s[number % len(audits_s)]), 30)
        assert (repeated.row, ledger.tenant) == (None, read)


@given(audit_s=st.integers(0, 99).map(lambda tenths: tenths / 10), read_s=st.integers(0, 20))
def test_a_read_answers_exactly_the_audits_of_earlier_seconds(audit_s: float, read_s: int) -> None:
    ledger = MemoryLedger()
    ledger.hear(hinted(audit_s), 20)
    ledger.hear(observed(read_s), 21)
    assert (ledger.tenant.recheck_at_us is None) is (read_s > int(audit_s))


STEPS = st.lists(st.tuples(st.integers(0, 40), st.sets(st.integers(0, 40), max_size=12)), min_size=1, max_size=20)


@given(steps=STEPS)
def test_a_flood_of_invented_keys_costs_one_listing_in_ten_seconds_and_two_per_key(
    steps: list[tuple[int, set[int]]],
) -> None:
    held: dict[int, int] = {}
    looked: dict[str, int] = {}
    looks: dict[str, int] = {}
    now_us, last_us = NOW_US, 0
    for wait_s, numbers in steps:
        now_us += wait_s * 1_000_000
        held |= {number: held.get(number, now_us) for number in numbers}
        unknown = {"installed": None, "enabled": None, "stage": None, "revision": 0, "generation": 0}
        tenants = view(*(tenant(n, **unknown, recheck_at=us, updated_at=us) for n, us in held.items()))
        keys = due(tenants, {}, looked, {}, rules(now_us))
        assert keys <= {key_of(number) for number in held}
        if keys:
            assert now_us - last_us >= HINTED_EVERY_US
            last_us = now_us
        looked |= dict.fromkeys(keys, now_us)
        for key in keys:
            looks[key] = looks.get(key, 0) + 1
    assert all(number <= 2 for number in looks.values())
    assert RECHECK_EVERY_US > HINTED_EVERY_US
