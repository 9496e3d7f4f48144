"""A record on disk is read back equal or refused: every changed bit is detected."""

import json
import re
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.codec import Message
from schemas.spooled import VERSION, Corrupt, NewerFormat, Spooled, carve, decode, encode, received_us
from schemas.webhook import Malformed, read_json

RECORD = Spooled("lifecycle.received", Message(b"org:integration", b'{"event":"installed"}', [("ce_id", b"1")]), 42)

BYTES = st.binary(max_size=40)
TEXT = st.text(max_size=12)
NUMBERS = st.integers(0, 2**63)
MESSAGES = st.builds(Message, st.none() | BYTES, BYTES, st.lists(st.tuples(TEXT, BYTES), max_size=3))
RECORDS = st.builds(Spooled, TEXT, MESSAGES, st.integers(-(10**15), 10**17))


@given(NUMBERS, RECORDS)
@example(1, Spooled("t", Message(None, b"\n\nspooled 00000000 1 1 1 1\n", []), 0))
@example(1, Spooled("t", Message(b"\xff\n", bytes(range(256)), [("é\n", b"\x00\n")]), 0))
def test_a_record_is_read_back_equal(number: int, record: Spooled) -> None:
    raw = encode(number, record)
    assert decode(number, raw) == record
    assert received_us(number, raw) == record.received_us


def test_a_record_of_two_mebibytes_is_read_back_equal() -> None:
    record = replace(RECORD, message=Message(b"k", bytes(range(256)) * 8192, []))
    assert decode(7, encode(7, record)) == record


def test_any_flipped_bit_is_detected() -> None:
    raw = encode(7, RECORD)
    for bit in range(8 * len(raw)):
        changed = bytearray(raw)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode(7, bytes(changed))


@given(NUMBERS, RECORDS, st.data())
def test_any_other_length_is_detected(number: int, record: Spooled, data: st.DataObject) -> None:
    raw = encode(number, record)
    with pytest.raises(Corrupt):
        decode(number, raw[: data.draw(st.integers(0, len(raw) - 1))])
    with pytest.raises(Corrupt):
        decode(number, raw + data.draw(st.binary(min_size=1, max_size=9)))


@given(NUMBERS, NUMBERS)
def test_a_record_under_the_number_of_another_is_detected(number: int, other: int) -> None:
    raw = encode(number, RECORD)
    if number != other:
        with pytest.raises(Corrupt):
            decode(other, raw)


def test_a_record_of_a_later_version_is_refused_by_its_own_name() -> None:
    raw = as_version(VERSION + 1, encode(7, RECORD))
    with pytest.raises(NewerFormat, match="record 7: version 2"):
        decode(7, raw)
    with pytest.raises(NewerFormat):
        received_us(7, raw)


def test_a_valid_checksum_over_an_invalid_head_is_corrupt() -> None:
    with pytest.raises(Corrupt):
        decode(7, _summed(b" 1 7 0 3\n{}\n"))
    with pytest.raises(Corrupt):
        decode(7, _summed(b" 1 7 0 1\n-"))


@given(st.lists(st.tuples(NUMBERS, RECORDS), max_size=4), st.lists(BYTES, min_size=5, max_size=5))
def test_whole_records_are_carved_from_between_other_bytes(
    records: list[tuple[int, Spooled]], between: list[bytes]
) -> None:
    wholes = [(number, encode(number, record)) for number, record in records]
    raw = b"".join(noise + whole for noise, (_, whole) in zip(between, wholes, strict=False)) + between[-1]
    assert list(carve(raw)) == wholes


def test_a_damaged_record_hides_no_whole_record() -> None:
    wholes = [encode(number, RECORD) for number in range(3)]
    damaged = wholes[1].replace(b"installed", b"unstalled")
    assert list(carve(wholes[0] + damaged + wholes[2])) == [(0, wholes[0]), (2, wholes[2])]
    assert list(carve(wholes[0] + wholes[1][:-1] + wholes[2])) == [(0, wholes[0]), (2, wholes[2])]


def as_version(version: int, raw: bytes) -> bytes:
    return _summed(re.sub(rb"^spooled \w+ \d+", b" %d" % version, raw))


def _summed(rest: bytes) -> bytes:
    return b"spooled %08x%b" % (crc32(rest), rest)


def test_no_accepted_body_can_contain_an_encoded_record() -> None:
    forged = encode(7, RECORD)
    for template in (b'{"a":"%b"}', b'{"a":%b}', b'{"a":1}%b', b'%b{"a":1}', b'{"%b":1}'):
        with pytest.raises(Malformed):
            read_json(template % forged)
    quoted = json.dumps({"a": forged.decode()}).encode()
    assert list(carve(encode(8, replace(RECORD, message=Message(None, quoted))))) == [
        (8, encode(8, replace(RECORD, message=Message(None, quoted))))
    ]
