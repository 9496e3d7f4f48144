"""Half a minute of fuzzing, the inputs that once failed, and the instruments of the fuzzer.

The long form is `python -m tests.faults.fuzz --seconds 600`.
"""

import subprocess
import sys
from collections import Counter
from contextlib import closing
from random import Random

import pytest

from tests.faults import fuzz_http, fuzz_reference
from tests.faults.fuzz import DEEP, FAULTS_MAX, Breach, search, shallow
from tests.faults.fuzz_inputs import Changing, seeds
from tests.faults.fuzz_site import NOW_US, answers_in
from tests.faults.fuzz_subjects import CANARY, NAMES, Input, Subjects, read, use
from tests.support.ingress_process import body, raw

DATE = b"date: Mon, 15 Jan 2024 14:32:10 GMT\r\n"
OK = b"HTTP/1.1 200 OK\r\n" + DATE + b"content-length: 2\r\n\r\n{}"
LAST = b"HTTP/1.1 401 Unauthorized\r\n" + DATE + b"content-length: 0\r\nconnection: close\r\n\r\n"


def test_inputs_that_once_failed_pass() -> None:
    wrong = []
    with closing(Subjects()) as subjects:
        for data in seeds():
            try:
                subjects.try_one(data)
            except Exception as breach:  # noqa: BLE001 - whatever it is
                wrong.append(f"{breach!r}: {data[:600]!r}")
    assert not wrong, "\n".join(wrong)
    assert {"200 queued", "200 duplicate_handled", "200 parked", "parsed", "claim", "no claim"} <= subjects.seen.keys()
    assert {"400", "401", "403", "405", "413", "415", "431"} <= subjects.seen.keys()


@pytest.mark.long
def test_half_a_minute_of_fuzzing_finds_nothing() -> None:
    asked = [sys.executable, "-m", "tests.faults.fuzz", "--seconds", "30", "--seed", "1"]
    ended = subprocess.run(asked, capture_output=True, text=True, timeout=100, check=False)
    assert ended.returncode == 0, f"ended {ended.returncode}: {ended.stdout}{ended.stderr}"
    assert "nothing was found" in ended.stdout


def test_equal_random_choices_make_equal_inputs() -> None:
    one, other = Changing(Random(1)), Changing(Random(1))
    changes = [one.change(data, 4_000) for data in seeds()]
    assert changes == [other.change(data, 4_000) for data in seeds()]
    assert max(map(len, changes)) <= 4_000
    assert {read(data).subject for data in changes} == set(NAMES)


def test_any_bytes_are_a_fuzzer_input() -> None:
    assert {read(bytes([letter, 7])).subject for letter in range(256)} == set(NAMES)
    assert read(b"") == read(b"w")
    assert all(read(data).written() == data for data in seeds())


def test_the_fuzzer_finds_an_ingress_that_accepts_no_signature() -> None:
    authentic = Input("b", use(), raw(body(NOW_US))).written()
    with closing(Subjects()) as subjects:
        subjects._own, subjects._others = subjects._others, subjects._own
        with pytest.raises(AssertionError, match="expected"):
            subjects.try_one(authentic)


def test_a_found_breach_is_shrunk() -> None:
    def breaks(data: bytes) -> None:
        assert read(data).subject != "b" or CANARY.encode() not in data

    with pytest.raises(Breach) as found:
        search(breaks, 60, seed=1)
    assert CANARY.encode() in found.value.data
    assert len(found.value.data) < 1_000


def test_a_fuzzing_run_that_stays_shallow_fails() -> None:
    seen = Counter(dict.fromkeys(DEEP, 1))
    assert shallow(seen) == []
    assert shallow(seen - Counter(["parsed"])) == ["NOT DEEP ENOUGH: never seen: parsed"]
    (many,) = shallow(seen + Counter(f"fault {number}" for number in range(FAULTS_MAX + 1)))
    assert "quote the body" in many


def test_http_answers_are_read_strictly() -> None:
    assert [told.status for told in answers_in(OK + OK + LAST, heads=False)] == [200, 200, 401]
    assert [told.status for told in answers_in(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, heads=False)] == [200]
    assert [told.status for told in answers_in(OK[:-2] + OK, heads=True)] == [200, 200]


@pytest.mark.parametrize(
    "written",
    [
        OK[:-1], OK + b"x", LAST + OK, OK.replace(b"200", b"500"), OK.replace(b"1.1", b"1.0"), OK[:-2] + OK,
        OK.replace(b"content-length: 2", b"content-length: 2\r\ncontent-length: 2"),
        OK.replace(b"th: 2", b"th: 2\r\nlocation: \x00"), OK.replace(b"content-length: 2", b"a: b"),
        OK.replace(DATE, b""), OK.replace(b"200 OK", b"204 No Content"),
    ],
    ids=[
        "short", "rest", "behind the last", "server error", "version", "HEAD unasked", "length twice", "NUL",
        "no length", "no date", "length of no content",
    ],
)  # fmt: skip
def test_a_malformed_answer_is_a_breach(written: bytes) -> None:
    with pytest.raises((AssertionError, KeyError)):
        answers_in(written, heads=False)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"{", b"01", b"NaN", b"-Infinity", b"1e999", b'{"a":1,"a":1}', b"9007199254740992", b"-9007199254740992",
        b"[" * 33 + b"]" * 33, b"[" * 100_000, b"9" * 5_000, b'"\\ud800"', b'{"\\udfff":1}', b'"\xed\xa0\x80"',
        b"\xef\xbb\xbf1", b"1\x00", b'"\n"', "1".encode("utf-16"),
    ],
)  # fmt: skip
def test_the_reference_parser_refuses_json_outside_the_profile(raw: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - whichever of them
        fuzz_reference.strict(raw)


def test_the_reference_parser_accepts_json_inside_the_profile() -> None:
    deep = b"[" * 32 + b"]" * 32
    assert fuzz_reference.strict(b' {"a":[1.5,-0,1e300,"\\ud83d\\ude00"]}\r\n') == {"a": [1.5, 0, 1e300, "\U0001f600"]}
    assert repr(fuzz_reference.strict(deep)).encode() == deep
    assert fuzz_reference.strict(b"9007199254740991") == 2**53 - 1


POST = b"POST /v1/genesys/lifecycle HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
CHUNKED = POST.replace(b"Content-Length: 2\r\n\r\n{}", b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")


def bodies(data: bytes) -> list[bytes | None]:
    return [None if asked is None else asked.body for asked in fuzz_http.requests(data)]


def test_the_reference_reader_finds_every_request_of_a_connection() -> None:
    assert bodies(b"\r\n" + POST + CHUNKED + b"GET / HTTP/1.0\r\n\r\n") == [b"{}", b"{}", b""]
    assert bodies(b"") == []
    assert not next(asked.is_odd for asked in fuzz_http.requests(CHUNKED) if asked)
    assert next(asked.is_odd for asked in fuzz_http.requests(CHUNKED.replace(b"2\r\n{", b"2; =\r\n{")) if asked)


@pytest.mark.parametrize(
    "data",
    [
        POST[:-1], POST.replace(b"2", b"+2"), POST.replace(b"\r\nHost", b"\nHost"), POST.replace(b"Host:", b"Host :"),
        POST.replace(b"1.1", b"2.0"), CHUNKED.replace(b"chunked", b"gzip, chunked"), CHUNKED.replace(b"1.1", b"1.0"),
        CHUNKED.replace(b"2\r\n{}", b"3\r\n{}"), CHUNKED[:-2], POST.replace(b"Host: a", b"Transfer-Encoding: chunked"),
        POST.replace(b"Host: a", b"Content-Length: 2"), CHUNKED.replace(b"0\r\n", b"0\r\nContent-Length: 1\r\n"),
    ],
)  # fmt: skip
def test_the_reference_reader_rejects_ambiguous_framing(data: bytes) -> None:
    assert bodies(POST + data) == [b"{}", None]
