"""An instant is read from RFC 3339 only, and written in one form."""

import json

import pytest
from pydantic import TypeAdapter, ValidationError

from schemas import codec
from schemas.codec import Unreadable
from schemas.event import Observed
from schemas.times import instant, rfc3339
from schemas.values import Instant
from tests.support.deliveries import observed

READ = {
    "2024-01-15T14:32:10Z": "2024-01-15T14:32:10.000000Z",
    "2024-01-15T14:32:10.1Z": "2024-01-15T14:32:10.100000Z",
    "2024-01-15T14:32:10.123456Z": "2024-01-15T14:32:10.123456Z",
    "2024-01-15T14:32:10.999999999Z": "2024-01-15T14:32:10.999999Z",
    "2024-01-15T14:32:10.1234-05:30": "2024-01-15T20:02:10.123400Z",
    "2024-01-15T00:00:00+23:59": "2024-01-14T00:01:00.000000Z",
    "2024-01-15T14:32:10-00:00": "2024-01-15T14:32:10.000000Z",
    "2024-02-29T00:00:00Z": "2024-02-29T00:00:00.000000Z",
    "1969-12-31T23:59:59.999999Z": "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00Z": "0001-01-01T00:00:00.000000Z",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999Z",
}


@pytest.mark.parametrize(("text", "written"), READ.items(), ids=READ.keys())
def test_an_instant_is_parsed_to_the_microsecond(text: str, written: str) -> None:
    assert rfc3339(instant(text)) == written


@pytest.mark.parametrize(
    "text",
    [
        "", "2024-01-15", "2024-01-15T14:32:10", "2024-01-15 14:32:10Z", "2024-01-15t14:32:10z", "20240115T143210Z",
        "2024-W03-1T14:32:10Z", "2024-015T14:32:10Z", "2024-01-15T14:32Z", "2024-01-15T14:32:10.Z",
        "2024-01-15T14:32:10,5Z", "2024-01-15T14:32:10.1234567890Z", "2024-01-15T14:32:10+0200", "1705329130",
        "2024-01-15T14:32:10+24:00", "2024-01-15T14:32:10+02:60", "2024-01-15T24:00:00Z", "2024-01-15T23:59:60Z",
        "2023-02-29T00:00:00Z", "2024-13-01T00:00:00Z", "0000-01-01T00:00:00Z", "2024-01-15T14:32:10Z\n",
        "\u0662\u0660\u0662\u0664-01-15T14:32:10Z", "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01",
    ],
)  # fmt: skip
def test_a_text_outside_rfc_3339_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        instant(text)


@pytest.mark.parametrize("number", [0, 1767225600, 10**20, -(10**20), 1.5e9, True])
def test_a_json_number_is_refused_as_an_instant(number: float) -> None:
    told = json.loads(codec.dump(observed(0))) | {"read_at": number}
    with pytest.raises(Unreadable, match="read_at"):
        codec.decode(Observed, json.dumps(told).encode())


@pytest.mark.parametrize("at_us", [10**20, -(10**20), 253_402_300_800_000_000])
def test_a_value_that_cannot_be_written_is_refused_in_a_model(at_us: int) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Instant).validate_python(at_us)


@pytest.mark.parametrize("text", ["0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_instant_come_back_from_json(text: str) -> None:
    form = TypeAdapter(Instant)
    assert form.dump_json(form.validate_json(f'"{text}"')) == f'"{text}"'.encode()
    assert form.validate_python(instant(text)) == instant(text)
