"""The HTTP rules for every request on every path, with its bytes in any pieces; without a socket.

Rule of this file: an answer depends on the bytes and never on how they were cut.
"""

import asyncio
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import pytest

from services.adapters.process.clock import now_us
from services.ingress.http.date_field import DateField
from services.ingress.http.headers import HEAD_MAX_BYTES, HEADERS_MAX, TARGET_MAX_BYTES
from tests.support.ingress_process import PATH, SECRET, body, head, raw, request
from tests.support.ingress_site import Site, statuses

PATHS = {"webhook": f"POST {PATH}", "site": "GET /livez", "nowhere": "GET /nowhere", "head": "HEAD /readyz"}

Cut = int | None
"""Bytes of each piece; None is the whole at once."""
CUTS: tuple[Cut, ...] = (None, 1, 2, 3, 7, 100, 16 * 1024 - 1, 16 * 1024 + 1)


@pytest.fixture
async def site() -> Site:
    return Site(SECRET.encode(), now_us)


def pieces(data: bytes, cut: Cut) -> list[bytes]:
    size = cut or len(data)
    return [data[start : start + size] for start in range(0, len(data), size)]


async def answered(site: Site, data: bytes, cut: Cut = None) -> list[int]:
    return statuses(await site.exchange(*pieces(data, cut)))


async def answered_in_all_pieces(site: Site, data: bytes) -> list[int]:
    """The answers, which must be equal however the bytes are cut."""
    found = {cut: await answered(site, data, cut) for cut in CUTS if cut is None or len(data) / cut < 100_000}
    for middle in sorted({*range(1, min(len(data), 400)), *range(400, len(data), 509), len(data) - 1} - {0}):
        assert statuses(await site.exchange(data[:middle], data[middle:])) == found[None], f"cut at {middle}"
    assert set(map(tuple, found.values())) == {tuple(found[None])}, found
    return found[None]


def plain(line: str, *fields: bytes, version: str = "1.1") -> bytes:
    """A request without a body: the line, and the fields as they are."""
    return b"\r\n".join([f"{line} HTTP/{version}".encode("latin-1"), *fields, b"", b""])


BAD_HOSTS = {
    "missing": [],
    "doubled": [b"Host: a", b"Host: b"],
    "doubled, equal": [b"Host: a", b"Host: a"],
    "doubled, one empty": [b"Host:", b"Host: a"],
    "empty": [b"Host:"],
    "only white space": [b"Host: \t "],
    "with userinfo": [b"Host: user@a"],
    "with a password": [b"Host: user:secret@a"],
    "with a path": [b"Host: a/b"],
    "with a query": [b"Host: a?b"],
    "with a fragment": [b"Host: a#b"],
    "a URL": [b"Host: http://a"],
    "a list": [b"Host: a, b"],
    "with a comma": [b"Host: a,b"],
    "with a space": [b"Host: a b"],
    "with a tab": [b"Host: a\tb"],
    "a port that is none": [b"Host: a:b"],
    "two ports": [b"Host: a:1:2"],
    "a port without a host": [b"Host: :80"],
    "percent-encoded": [b"Host: a%2Fb"],
    "backslash": [b"Host: a\\b"],
    "not ASCII": [b"Host: \xe9"],
    "IPv6 without brackets": [b"Host: ::1"],
    "IPv6 without an end": [b"Host: [::1"],
    "quoted": [b'Host: "a"'],
}


@pytest.mark.parametrize("line", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("fields", BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
async def test_an_invalid_host_is_refused_on_every_path(site: Site, fields: list[bytes], line: str) -> None:
    found = await site.exchange(plain(line, *fields))
    assert statuses(found) == [400]
    assert b"\r\nconnection: close\r\n" in found
    assert await answered(site, plain(line, *fields), 1) == [400]


@pytest.mark.parametrize("fields", BAD_HOSTS.values(), ids=BAD_HOSTS.keys())
async def test_a_signed_delivery_with_an_invalid_host_is_refused(site: Site, fields: list[bytes]) -> None:
    whole = request(raw(body()), fields={"Host": None})
    assert await answered(site, whole.replace(b"\r\n", b"\r\n" + b"".join(f + b"\r\n" for f in fields), 1)) == [400]


@pytest.mark.parametrize(
    "host",
    ["localhost", "a.example", "a.example:443", "a:", "127.0.0.1:8080", "[::1]", "[2001:db8::1]:443", "my_service"],
)  # fmt: skip
async def test_a_valid_host_is_accepted_on_every_path(site: Site, host: str) -> None:
    assert await answered(site, request(raw(body()), fields={"Host": host})) == [200]
    assert await answered(site, plain("GET /livez", f"Host:\t {host} \t".encode())) == [200]


async def test_http_1_0_needs_no_host_and_an_invalid_host_is_refused(site: Site) -> None:
    assert await answered_in_all_pieces(site, plain("GET /livez", version="1.0")) == [200]
    assert await answered(site, plain("GET /livez", b"Host: a,b", version="1.0")) == [400]
    assert await answered(site, plain("GET /livez", b"Host: a", b"Host: a", version="1.0")) == [400]


@pytest.mark.parametrize("target", ["http://user@a/livez", "http://u:p@a/livez", "ftp://a/livez", "http://a,b/livez"])
async def test_a_target_with_a_user_or_of_another_scheme_is_refused(site: Site, target: str) -> None:
    assert await answered(site, plain(f"GET {target}", b"Host: a")) == [400]
    assert await answered(site, request(raw(body()), path=target.replace("/livez", PATH))) == [400]


HEADS = {
    "65 fields": ([b"X-%d: 1" % n for n in range(HEADERS_MAX)], 431),
    "64 fields": ([b"X-%d: 1" % n for n in range(HEADERS_MAX - 1)], 200),
    "5,000 fields": ([b"X-%d: 1" % n for n in range(5_000)], 431),
    "a field of the cap": ([b"X: " + b"a" * (HEAD_MAX_BYTES - len(b"Hosta" + b"X"))], 200),
    "a field beyond the cap": ([b"X: " + b"a" * (HEAD_MAX_BYTES + 1 - len(b"Hosta" + b"X"))], 431),
    "a field of 100 kB": ([b"X: " + b"a" * 100_000], 431),
    "a name of 17 kB": ([b"X" * 17_000 + b": a"], 431),
    "17 kB in 40 fields": ([b"X-%d: " % n + b"a" * 425 for n in range(40)], 431),
    "100 kB of white space": ([b"X: " + b" " * 100_000 + b"a"], 431),
    "65 fields, then none": ([*[b"X-%d: 1" % n for n in range(HEADERS_MAX)], b"nonsense"], 400),
    "100 kB of fields, then none": ([*[b"X-%d: 1" % n for n in range(10_000)], b"nonsense"], 431),
}


@pytest.mark.parametrize("line", [PATHS["site"], PATHS["head"], "GET /nowhere", f"PUT {PATH}", "OPTIONS *"])
@pytest.mark.parametrize(("fields", "status"), HEADS.values(), ids=HEADS.keys())
async def test_the_size_caps_of_a_head_hold_on_every_path_in_any_pieces(
    site: Site, fields: list[bytes], status: int, line: str
) -> None:
    fine = {"GET /nowhere": 404, f"PUT {PATH}": 405, "OPTIONS *": 204}.get(line, 200)
    for cut in (None, 1, 1_000, 70_000):
        found = await site.exchange(*pieces(plain(line, b"Host: a", *fields), cut))
        assert re.findall(rb"^HTTP/1\.1 (\d+)", found, re.MULTILINE) == [b"%d" % (status if status != 200 else fine)]
        assert status == 200 or not line.startswith("HEAD") or found.endswith(b"\r\n\r\n"), "HEAD has no content"


@pytest.mark.parametrize("line", ["GET /{}", "POST /v1/genesys/lifecycle/{}", "GET /livez?{}", "GET http://a/{}"])
async def test_an_overlong_target_is_refused_in_any_pieces(site: Site, line: str) -> None:
    for length in (TARGET_MAX_BYTES + 1, 20_000, 200_000):
        data = plain(line.format("a" * (length - len(line.partition(" ")[2]) + 2)), b"Host: a")
        assert await answered(site, data) == await answered(site, data, 1) == await answered(site, data, 1_000) == [414]


async def test_a_target_of_the_longest_length_is_read(site: Site) -> None:
    long = "/livez?" + "a" * (TARGET_MAX_BYTES - len("/livez?"))
    assert await answered_in_all_pieces(site, plain(f"GET {long}", b"Host: a")) == [200]


@pytest.mark.parametrize("line", [pytest.param("GET /livez", marks=pytest.mark.long), f"POST {PATH}"])
@pytest.mark.parametrize("behind", [b"nonsense", b"X: a\x00b", b"Content-Length: +3", b"X: a"])
async def test_a_head_is_cut_off_at_the_same_byte_in_any_pieces(site: Site, line: str, behind: bytes) -> None:
    for before in (48_000, 60_000, 65_450, 65_500, 65_520, 65_530, 65_536, 65_540, 66_000, 70_000, 80_000):
        data = plain(line, b"Host: a", b"X: " + b"a" * before, behind)
        found = {cut: await answered(site, data, cut) for cut in (None, 1, 999, 16_384, 65_000, 65_536)}
        assert len(set(map(tuple, found.values()))) == 1, f"{before}: {found}"


async def test_bytes_before_a_request_do_not_count_as_its_head(site: Site) -> None:
    large, small = request(raw(body(filler="x" * 200_000))), request(raw(body()))
    cut = len(large) + len(small) - 5
    whole = large + small
    assert statuses(await site.exchange(whole[:cut], whole[cut:])) == [200, 200]
    lines = b"\r\n" * 100_000 + small
    assert statuses(await site.exchange(lines[:-5], lines[-5:])) == [200]


@pytest.mark.parametrize("line", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize("expected", ["x", "100-continue, x", "100-continue; a=b", "100-Continue=1", "200-ok"])
async def test_an_unknown_expectation_is_answered_417_on_every_path(site: Site, expected: str, line: str) -> None:
    data = plain(line, b"Host: a", f"Expect: {expected}".encode())
    assert (await site.exchange(data)).startswith(b"HTTP/1.1 417 ")
    assert (await site.exchange(*pieces(data, 1))).startswith(b"HTTP/1.1 417 ")


async def test_a_delivery_with_an_unknown_expectation_has_no_effect(site: Site) -> None:
    whole = request(raw(body()), fields={"Expect": "x"})
    assert await answered(site, whole + request(raw(body()))) == [417, 200], "the body was read to its end"
    waiting = request(raw(body()), fields={"Expect": "x, 100-continue"})
    assert await answered(site, waiting) == [417], "a body that may never come is not waited for"


BODILESS = {
    "no length": [b"Expect: 100-continue"],
    "length 0": [b"Expect: 100-continue", b"Content-Length: 0"],
    "in capitals": [b"Expect: 100-CONTINUE"],
    "nothing expected": [b"Expect:"],
    "a list of nothing": [b"Expect: ,"],
}


@pytest.mark.parametrize("fields", BODILESS.values(), ids=BODILESS.keys())
async def test_a_request_without_a_body_gets_no_100_continue(site: Site, fields: list[bytes]) -> None:
    assert await answered_in_all_pieces(site, plain("GET /livez", b"Host: a", *fields) * 2) == [200, 200]
    assert await answered_in_all_pieces(site, plain(f"GET {PATH}", b"Host: a", *fields) * 2) == [405, 405]


@pytest.mark.parametrize("expected", ["100-continue", "100-Continue", "100-continue, 100-continue", ", 100-continue"])
async def test_a_sender_that_expects_100_continue_gets_it(site: Site, expected: str) -> None:
    payload = raw(body())
    told = head(payload, fields={"Expect": expected})
    assert statuses(await site.exchange(told, payload)) == [100, 200]
    assert statuses(await site.exchange(told.replace(b"HTTP/1.1", b"HTTP/1.0", 1), payload)) == [200]


async def test_an_asterisk_target_is_accepted_with_options_only(site: Site) -> None:
    for method in ("GET", "POST", "HEAD", "PUT", "TRACE"):
        assert (await site.exchange(plain(f"{method} *", b"Host: a"))).startswith(b"HTTP/1.1 400 "), method
    found = await site.exchange(plain("OPTIONS *", b"Host: a") + plain("GET /livez", b"Host: a"))
    assert statuses(found) == [204, 200]
    first = found.partition(b"\r\n\r\n")[0]
    assert b"content-length" not in first, "RFC 9110, 8.6"
    assert await answered_in_all_pieces(site, plain("OPTIONS *", b"Host: a", b"Content-Length: 3") + b"abc") == [204]
    assert await answered(site, plain("OPTIONS *")) == [400]


FRAMINGS = {
    "two codings": [b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"],
    "length and coding": [b"Content-Length: 3", b"Transfer-Encoding: chunked"],
    "a coding in HTTP/1.0": [b"Transfer-Encoding: chunked"],
    "a list of lengths": [b"Content-Length: 3, 3"],
    "two lengths": [b"Content-Length: 3", b"Content-Length: 3"],
    "another coding": [b"Transfer-Encoding: gzip, chunked"],
}


@pytest.mark.parametrize("line", PATHS.values(), ids=PATHS.keys())
@pytest.mark.parametrize(("name", "fields"), FRAMINGS.items(), ids=FRAMINGS.keys())
async def test_ambiguous_framing_is_refused_on_every_path(
    site: Site, name: str, fields: list[bytes], line: str
) -> None:
    data = plain(line, b"Host: a", *fields, version="1.0" if name.endswith("1.0") else "1.1") + b"3\r\nabc\r\n0\r\n\r\n"
    for cut in (None, 1):
        assert re.findall(rb"^HTTP/1\.1 (\d+)", await site.exchange(*pieces(data, cut)), re.MULTILINE) == [b"400"]


async def test_a_stated_length_beyond_the_cap_is_refused_on_every_path(site: Site) -> None:
    for path in (PATH, "/livez", "/nowhere"):
        asked = plain(f"POST {path}", b"Host: a", b"Expect: 100-continue", b"Content-Length: 262145")
        assert await answered(site, asked) == [413], path


REQUESTS = [
    request(raw(body())), request(raw(body()), secret="x" * 32),
    plain("GET /livez", b"Host: a"), plain("GET /", b"Host: a"),
    plain("OPTIONS *", b"Host: a"), plain("GET *", b"Host: a"), plain("GET /livez"), b"nonsense\r\n\r\n",
    plain("GET /livez", b"Host: a", b"Expect: x"), plain("GET /" + "a" * 9_000, b"Host: a"),
]  # fmt: skip


@pytest.mark.parametrize("data", REQUESTS, ids=range(len(REQUESTS)))
async def test_every_answer_has_exactly_one_date_field(site: Site, data: bytes) -> None:
    before_s = now_us() // 1_000_000
    found = await site.exchange(data)
    (date,) = re.findall(rb"^date: (.*)\r$", found.partition(b"\r\n\r\n")[0] + b"\r\n", re.MULTILINE)
    assert re.fullmatch(rb"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", date), "RFC 9110, 5.6.7"
    assert before_s <= parsedate_to_datetime(date.decode()).timestamp() <= now_us() // 1_000_000


async def test_the_date_field_changes_every_second() -> None:
    times: Iterator[int] = iter([1_705_329_130_900_000, 1_705_329_131_000_000])
    date = DateField(lambda: next(times))
    first = b"date: Mon, 15 Jan 2024 14:32:10 GMT\r\n"
    assert [date.at(5.0), date.at(5.05), date.at(5.0999)] == [first] * 3
    assert date.at(5.1001) == b"date: Mon, 15 Jan 2024 14:32:11 GMT\r\n"


async def test_a_draining_process_closes_the_connection_after_its_answer(site: Site) -> None:
    site.application.draining = True
    found = await asyncio.wait_for(site.exchange(request(raw(body())) + request(raw(body()))), 20)
    assert statuses(found) == [200]
    assert b"\r\nconnection: close\r\n" in found
    found = await site.exchange(plain("GET /livez", b"Host: a"))
    assert b"\r\nconnection: close\r\n" in found
