"""Packed rows are read back equal, sort by version without unpacking, and a newer schema is refused."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import Unreadable
from schemas.journal import (
    Aspect,
    Entry,
    Mark,
    Move,
    ObservedTimes,
    Parted,
    Published,
    Register,
    Registers,
    Variant,
    Verdict,
)
from schemas.outcome import Direction, State
from schemas.rows import StageRow, TenantRow, pack, unpack, updated_at_us
from schemas.tenant import Flag, Stage
from schemas.values import EventType, Source
from tests.support.deliveries import KEY
from tests.support.examples import examples

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MAYBE = st.none() | TEXT
NUMBER = st.integers(-1, 2**53)
EVENT = st.sampled_from(EventType)
SOURCE = st.sampled_from(Source)
VERDICT = st.sampled_from(Verdict)
REGISTERS = st.builds(
    Registers, *[st.none() | st.builds(Register, NUMBER, st.integers(0, 3), TEXT, st.none() | st.booleans() | TEXT)] * 5
)
ENTRY = st.builds(
    Entry,
    at_us=NUMBER,
    rank=st.integers(0, 3),
    uid=TEXT,
    event=EVENT,
    f=TEXT,
    marked=st.booleans(),
    tenant_id=MAYBE,
    digest=MAYBE,
    source=SOURCE,
    offset=NUMBER,
    verdict=VERDICT,
    first_verdict=VERDICT,
    first_published=st.none() | st.builds(Published, EVENT, NUMBER, MAYBE, MAYBE, SOURCE),
    variants=st.lists(st.builds(Variant, TEXT, EVENT, NUMBER, st.booleans(), NUMBER), max_size=2).map(tuple),
)
STAGE = st.none() | st.sampled_from(Stage)
MOVES = st.lists(st.builds(Move, NUMBER, NUMBER, STAGE, STAGE, MAYBE, NUMBER), max_size=2).map(tuple)
TENANT_ROW = st.builds(
    TenantRow,
    key=st.just(KEY),
    version=st.integers(-(2**63), 2**63 - 1),
    base=REGISTERS,
    now=REGISTERS,
    entries=st.lists(ENTRY, max_size=3).map(tuple),
    parted=st.lists(st.builds(Parted, NUMBER, ENTRY), max_size=2).map(tuple),
    texts=st.none() | st.dictionaries(TEXT, TEXT, max_size=2),
    folded_to=st.none() | NUMBER,
    marks=st.lists(st.builds(Mark, st.sampled_from(Flag), st.sampled_from(Aspect), NUMBER), max_size=2).map(tuple),
    flags=st.lists(st.sampled_from(Flag), max_size=2).map(tuple),
    seen=st.builds(ObservedTimes, NUMBER, NUMBER, NUMBER),
    recheck_at_us=st.none() | NUMBER,
    trace=MAYBE,
    ever=st.booleans(),
    moves=MOVES,
)
STAGE_ROW = st.builds(
    StageRow,
    key=st.just(KEY),
    version=st.integers(0, 2**63 - 1),
    direction=st.sampled_from(Direction),
    state=st.sampled_from(State),
    step=MAYBE,
    reason=MAYBE,
    tenant_id=MAYBE,
    bound=st.booleans(),
    up_done=st.booleans(),
    moves=MOVES,
)


@given(TENANT_ROW)
@settings(max_examples=examples(150), deadline=None)
def test_a_packed_tenant_row_is_read_back_equal(row: TenantRow) -> None:
    packed = pack(row)
    again = unpack(TenantRow, packed)
    assert again == row
    assert pack(again) == packed
    for entry in (*again.entries, *(parted.entry for parted in again.parted)):
        assert isinstance(entry.event, EventType)
        assert isinstance(entry.verdict, Verdict)


@given(STAGE_ROW)
@settings(max_examples=examples(50), deadline=None)
def test_a_packed_stage_row_is_read_back_equal(row: StageRow) -> None:
    assert unpack(StageRow, pack(row)) == row


@given(st.one_of(TENANT_ROW, STAGE_ROW), st.integers(0, 2**53), st.text())
@settings(max_examples=examples(100), deadline=None)
def test_the_time_of_change_is_read_without_the_rest_of_a_row(
    row: TenantRow | StageRow, changed_us: int, trace: str
) -> None:
    more: dict[str, Any] = (
        {"texts": {"d": f'{{"updated_at_us":{trace}}}'}, "trace": trace} if isinstance(row, TenantRow) else {}
    )
    assert updated_at_us(pack(replace(row, updated_at_us=changed_us, **more))) == changed_us


@pytest.mark.parametrize("packed", [b"", b"\0" * 9, pack(TenantRow(KEY, 7))[:8] + b"\2" + pack(TenantRow(KEY, 7))[9:]])
def test_an_unreadable_row_has_no_time_of_change(packed: bytes) -> None:
    with pytest.raises(Unreadable):
        updated_at_us(packed)


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_packed_row_begins_with_its_version_big_endian_and_signed(version: int) -> None:
    assert int.from_bytes(pack(TenantRow(KEY, version))[:8], "big", signed=True) == version


def test_a_row_of_a_newer_schema_is_refused_with_the_number() -> None:
    packed = bytearray(pack(TenantRow(KEY, 7)))
    packed[8] += 1
    with pytest.raises(Unreadable, match="schema 2"):
        unpack(TenantRow, bytes(packed))


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\x00" * 8,
        pack(TenantRow(KEY, 1))[:-1],
        pack(TenantRow(KEY, 1))[:9] + b"[]",
        pack(TenantRow(KEY, 1))[:9] + b'{"key":"k","entries":[[1,2]]}',
        pack(TenantRow(KEY, 1))[:9] + b'{"key":"k","flags":["unheard"]}',
        pack(TenantRow(KEY, 1))[:9] + b"{}",
    ],
    ids=["empty", "no-schema", "cut", "no-object", "short-entry", "unknown-flag", "no-key"],
)
def test_a_damaged_row_is_refused(damaged: bytes) -> None:
    with pytest.raises(Unreadable, match="TenantRow"):
        unpack(TenantRow, damaged)


def test_an_unknown_field_is_ignored_and_a_missing_field_takes_its_default() -> None:
    head = pack(TenantRow(KEY, 5))[:9]
    row = unpack(TenantRow, head + b'{"key":"%s","later":[1]}' % KEY.encode())
    assert row == TenantRow(KEY, 5)
