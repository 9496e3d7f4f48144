"""Hostile and odd HTTP as raw bytes over a socket: each is refused with 4xx, or counts as exactly one request.

Rule of this file: whatever was sent, what stands in `lifecycle.received` afterwards is what was answered 200, no more.
"""

import contextlib
import json
import secrets
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from schemas.topics import RECEIVED
from tests.support.ingress_process import Ingress, Line, Reply, body, head, ingress, key, make_topics, raw, request

pytestmark = [pytest.mark.engines]

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def live(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ingress]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    with ingress(kafka_bootstrap, prefix, tmp_path_factory.mktemp("ingress")) as running:
        yield running


def exchange(live: Ingress, *parts: bytes) -> list[Reply]:
    """Everything that is answered until the server ends the connection, which our end of writing makes it do."""
    with contextlib.closing(Line(live.port)) as line:
        for part in parts:
            line.write(part)
        line.end()
        return line.replies()


def written(live: Ingress, told: dict[str, Any]) -> int:
    return sum(record.key() == key(told).encode() for record in live.records(RECEIVED))


def fields(*lines: str, payload: bytes = b"", without: tuple[str, ...] = ()) -> bytes:
    """A valid head with lines added and others left out, then the payload as it is."""
    whole = head(payload, fields=dict.fromkeys(without)).decode("latin-1").removesuffix("\r\n")
    return (whole + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode("latin-1")


def chunked(payload: bytes, *, size: str | None = None, end: bytes = b"0\r\n\r\n", after: bytes = b"\r\n") -> bytes:
    return (size or f"{len(payload):x}").encode() + b"\r\n" + payload + after + end


CL = ("Content-Length",)
Case = Callable[[bytes], bytes]

REFUSED: dict[str, tuple[int, Case]] = {
    "CL and TE": (400, lambda p: fields("Transfer-Encoding: chunked", payload=p) + chunked(p)),
    "TE and CL": (400, lambda p: fields("Transfer-Encoding: chunked", "Content-Length: 3", without=CL, payload=p) + p),
    "CL repeated, equal": (400, lambda p: fields(f"Content-Length: {len(p)}", payload=p) + p),
    "CL repeated, different": (400, lambda p: fields("Content-Length: 3", payload=p) + p),
    "CL as a list": (400, lambda p: fields(f"Content-Length: {len(p)}, {len(p)}", payload=p, without=CL) + p),
    "CL with a sign": (400, lambda p: fields(f"Content-Length: +{len(p)}", payload=p, without=CL) + p),
    "CL negative": (400, lambda p: fields("Content-Length: -1", payload=p, without=CL) + p),
    "CL hexadecimal": (400, lambda p: fields("Content-Length: 0x3", payload=p, without=CL) + p),
    "CL beyond 64 bits": (400, lambda p: fields("Content-Length: 99999999999999999999", payload=p, without=CL) + p),
    "TE gzip, chunked": (400, lambda p: fields("Transfer-Encoding: gzip, chunked", payload=p, without=CL) + chunked(p)),
    "TE xchunked": (400, lambda p: fields("Transfer-Encoding: xchunked", payload=p, without=CL) + chunked(p)),
    "TE identity": (400, lambda p: fields("Transfer-Encoding: identity", payload=p, without=CL) + p),
    "TE twice": (
        400,
        lambda p: fields(*["Transfer-Encoding: chunked"] * 2, payload=p, without=CL) + chunked(p),
    ),
    "TE with a space before the colon": (
        400,
        lambda p: fields("Transfer-Encoding : chunked", payload=p, without=CL) + chunked(p),
    ),
    "TE in HTTP/1.0": (
        400,
        lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        + chunked(p),
    ),
    "chunk size 0x3": (
        400,
        lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p, size=f"0x{len(p):x}"),
    ),
    "chunk size negative": (
        400,
        lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p, size="-1"),
    ),
    "chunk without its end": (
        400,
        lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p, after=b"XX"),
    ),
    "no Host": (400, lambda p: fields(payload=p, without=("Host",)) + p),
    "two Hosts": (400, lambda p: fields("Host: other", payload=p) + p),
    "Host with a user": (400, lambda p: fields("Host: user@localhost", payload=p, without=("Host",)) + p),
    "Host as a list": (400, lambda p: fields("Host: localhost, other", payload=p, without=("Host",)) + p),
    "Host empty": (400, lambda p: fields("Host:", payload=p, without=("Host",)) + p),
    "expectation of ours alone": (417, lambda p: fields("Expect: 200-ok", payload=p) + p),
    "a site's path without Host": (400, lambda _: b"GET /livez HTTP/1.1\r\n\r\n"),
    "a site's path, 65 headers": (
        431, lambda _: b"GET /livez HTTP/1.1\r\nHost: a\r\n" + b"X: 1\r\n" * 64 + b"\r\n"
    ),
    "a target of 9 kB": (414, lambda p: head(p, path="/v1/genesys/lifecycle?" + "a" * 9_000) + p),
    "an asterisk": (400, lambda p: head(p, path="*") + p),
    "obs-fold": (400, lambda p: fields("X-Folded: a\r\n b", payload=p) + p),
    "bare LF": (400, lambda p: head(p).replace(b"\r\n", b"\n") + p),
    "NUL in a value": (400, lambda p: fields("X-Nul: a\x00b", payload=p) + p),
    "NUL in a name": (400, lambda p: fields("X-\x00: a", payload=p) + p),
    "no colon": (400, lambda p: fields("nonsense", payload=p) + p),
    "CL and TE with an upgrade": (
        400,
        lambda p: fields("Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", payload=p) + chunked(p),
    ),
    "HTTP/2.0 in the request line": (400, lambda p: head(p).replace(b"HTTP/1.1", b"HTTP/2.0", 1) + p),
    "HTTP/2 preface": (400, lambda _: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "no HTTP at all": (400, lambda _: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "two signatures": (401, lambda p: fields("X-Genesys-Signature: " + "0" * 64, payload=p) + p),
    "two timestamps": (401, lambda p: fields("X-Genesys-Event-Timestamp: 2024-01-15T14:32:10Z", payload=p) + p),
    "signature with underscores": (
        401,
        lambda p: head(p).replace(b"X-Genesys-Signature", b"X_Genesys_Signature") + p,
    ),
    "signature in latin-1": (
        401,
        lambda p: fields("X-Genesys-Signature: " + "é" * 64, payload=p, without=("X-Genesys-Signature",)) + p,
    ),
    "timestamp in latin-1": (
        401,
        lambda p: fields(
            "X-Genesys-Event-Timestamp: 2024-01-15T14:32:1éZ", payload=p, without=("X-Genesys-Event-Timestamp",)
        )
        + p,
    ),
    "65 headers": (431, lambda p: fields(*[f"X-{n}: 1" for n in range(60)], payload=p) + p),
    "17 KiB of headers": (431, lambda p: fields("X-Long: " + "a" * 17 * 1024, payload=p) + p),
    "100 kB of header": (431, lambda p: fields("X-Long: " + "a" * 100_000, payload=p) + p),
    "5,000 headers": (431, lambda p: fields(*[f"X-{n}: 1" for n in range(5_000)], payload=p) + p),
    "gzip": (415, lambda p: fields("Content-Encoding: gzip", payload=p) + p),
    "two content types": (415, lambda p: fields("Content-Type: application/json", payload=p) + p),
    "method in lower case": (400, lambda p: head(p, method="post") + p),
    "CONNECT": (405, lambda p: head(p, method="CONNECT") + p),
    "HTTP/1.1 upgrade of a forgery": (
        401,
        lambda p: fields(
            "Connection: Upgrade", "Upgrade: websocket", payload=p, without=("X-Genesys-Signature",)
        )
        + p,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED.keys())
def test_a_hostile_request_is_refused_and_not_written(live: Ingress, case: tuple[int, Case]) -> None:
    status, build = case
    told = body()
    replies = exchange(live, build(raw(told)))
    # What follows a request that was misread may be answered too, and only with a refusal.
    assert [reply.status for reply in replies][:1] == [status]
    assert all(400 <= reply.status < 500 for reply in replies)
    assert written(live, told) == 0


ONE: dict[str, Case] = {
    "plain": lambda p: head(p) + p,
    "HTTP/1.0": lambda p: head(p).replace(b"HTTP/1.1", b"HTTP/1.0", 1) + p,
    "header names in capitals": lambda p: head(p).replace(b"X-Genesys-Signature", b"X-GENESYS-SIGNATURE") + p,
    "content type with a charset": lambda p: head(p, fields={"Content-Type": "Application/JSON ; charset=utf-8"}) + p,
    "64 headers": lambda p: fields(*[f"X-{n}: 1" for n in range(59)], payload=p) + p,
    "chunked": lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p),
    "Chunked": lambda p: fields("Transfer-Encoding: Chunked", payload=p, without=CL) + chunked(p),
    "many chunks": lambda p: (
        fields("Transfer-Encoding: chunked", payload=p, without=CL)
        + b"".join(b"1\r\n%c\r\n" % byte for byte in p)
        + b"0\r\n\r\n"
    ),
    "chunk extension": lambda p: (
        fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p, size=f"{len(p):x};a=b")
    ),
    "trailer": lambda p: (
        fields("Transfer-Encoding: chunked", payload=p, without=CL)
        + chunked(p, end=b"0\r\nX-Genesys-Signature: x\r\n\r\n")
    ),
    "empty lines before": lambda p: b"\r\n\r\n" + head(p) + p,
    "prefixed signature": lambda p: head(p).replace(b"X-Genesys-Signature: ", b"X-Genesys-Signature: sha256=") + p,
    "absolute form": lambda p: head(p, path="http://localhost/v1/genesys/lifecycle/default") + p,
    "percent-encoded path": lambda p: head(p, path="/v1/genesys/lifecycle/%64efault") + p,
    "query": lambda p: head(p, path="/v1/genesys/lifecycle?a=b") + p,
    "expect": lambda p: fields("Expect: 100-continue", payload=p) + p,
    "upgrade to h2c": lambda p: (
        fields("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk", payload=p) + p
    ),
    "upgrade to websocket": lambda p: fields("Connection: Upgrade", "Upgrade: websocket", payload=p) + p,
    "upgrade, chunked": lambda p: (
        fields("Connection: Upgrade", "Upgrade: h2c", "Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p)
    ),
}


@pytest.mark.parametrize("build", ONE.values(), ids=ONE.keys())
def test_an_odd_request_counts_as_exactly_one(live: Ingress, build: Case) -> None:
    told = body()
    replies = [reply for reply in exchange(live, build(raw(told))) if reply.status != 100]
    assert [reply.status for reply in replies] == [200]
    assert written(live, told) == 1


def test_pipelined_requests_are_answered_in_order(live: Ingress) -> None:
    three = [body(), body(), body()]
    wrong = request(raw(three[1]), secret="x" * 32)
    replies = exchange(live, request(raw(three[0])) + wrong + request(raw(three[2])))
    assert [reply.status for reply in replies] == [200, 401, 200]
    assert [written(live, told) for told in three] == [1, 0, 1]


def test_a_request_behind_an_upgrade_in_pieces_is_answered(live: Ingress) -> None:
    first, second = body(), body()
    upgrade = fields("Connection: Upgrade", "Upgrade: h2c", payload=raw(first)) + raw(first)
    with contextlib.closing(Line(live.port)) as line:
        for byte in upgrade:
            line.write(bytes([byte]))
        line.write(request(raw(second)))
        line.end()
        assert [reply.status for reply in line.replies()] == [200, 200]
    assert [written(live, told) for told in (first, second)] == [1, 1]


def test_a_request_followed_by_garbage_is_answered(live: Ingress) -> None:
    told = body()
    replies = exchange(live, request(raw(told)) + b"\x00\x00 garbage\r\n\r\n")
    assert replies[0].status == 200
    assert [reply.status for reply in replies[1:]] in ([], [400])
    assert written(live, told) == 1


def test_a_smuggled_request_is_treated_as_body(live: Ingress) -> None:
    inner, outer = body(), body()
    smuggled = request(raw(inner))
    replies = exchange(live, fields("Transfer-Encoding: chunked", payload=raw(outer)) + b"0\r\n\r\n" + smuggled)
    assert [reply.status for reply in replies] == [400]
    assert written(live, inner) == written(live, outer) == 0


def test_a_refused_large_body_is_read_to_its_end(live: Ingress) -> None:
    payload = b"x" * (4 * MIB)
    with contextlib.closing(Line(live.port)) as line:
        line.write(head(payload))
        line.write(payload)
        reply = line.reply()
        assert reply is not None
        assert reply.status == 413
        line.write(request(raw(body())))
        assert (line.reply() or reply).status == 200, "a body that was read to its end leaves the connection usable"


def test_the_body_cap_is_exact(live: Ingress) -> None:
    told = body()
    room = 256 * 1024 - len(raw(told | {"filler": ""}))
    exact, beyond = raw(told | {"filler": "x" * room}), raw(told | {"filler": "x" * (room + 1)})
    assert live.ask(request(exact)).status == 200
    assert live.ask(request(beyond)).status == 413
    assert live.ask(fields("Transfer-Encoding: chunked", payload=beyond, without=CL) + chunked(beyond)).status == 413
    assert written(live, told) == 1


def test_a_chunked_body_beyond_the_cap_is_refused_while_it_is_read(live: Ingress) -> None:
    payload = b"x" * (2 * MIB)
    assert live.ask(fields("Transfer-Encoding: chunked", payload=payload, without=CL) + chunked(payload)).status == 413


def test_a_sender_that_expects_100_continue_gets_413_for_a_body_beyond_the_cap(live: Ingress) -> None:
    with contextlib.closing(Line(live.port)) as line:
        line.write(fields("Expect: 100-continue", "Content-Length: 999999", without=CL))
        reply = line.reply()
        assert reply is not None
        assert reply.status == 413
        assert reply.fields["connection"] == "close"


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "PROPFIND"])
def test_only_post_is_allowed(live: Ingress, method: str) -> None:
    with contextlib.closing(Line(live.port)) as line:
        line.write(head(b"", method=method))
        line.end()
        status = line._read.readline().split()[1]
        rest = line._read.read().lower()
    assert status == b"405"
    assert b"allow: post\r\n" in rest


@pytest.mark.parametrize("kind", [None, "", "text/plain", "application/xml", "application/jsonp", "application/json5"])
def test_only_json_is_read(live: Ingress, kind: str | None) -> None:
    payload = raw(body())
    assert live.ask(request(payload, fields={"Content-Type": kind})).status == 415


SLOW: dict[str, Callable[[bytes], bytes]] = {
    "half a request line": lambda _: b"POST /v1/gen",
    "half a head": lambda p: head(p)[:-40],
    "no body": head,
    "half a body": lambda p: head(p) + p[:-10],
    "half a chunk": lambda p: fields("Transfer-Encoding: chunked", payload=p, without=CL) + chunked(p)[:-20],
}


@pytest.mark.parametrize("build", SLOW.values(), ids=SLOW.keys())
def test_a_slow_sender_is_answered_408_and_cut_off(live: Ingress, build: Callable[[bytes], bytes]) -> None:
    told = body()
    with contextlib.closing(Line(live.port)) as line:
        line.write(build(raw(told)))
        replies = line.replies()  # ends only when the server ends the connection
    assert [reply.status for reply in replies] == [408]
    assert replies[0].fields["connection"] == "close"
    assert written(live, told) == 0


def test_a_head_without_end_is_cut_off_early(live: Ingress) -> None:
    with contextlib.closing(Line(live.port)) as line:
        line.write(b"POST /v1/genesys/lifecycle HTTP/1.1\r\nX-Endless: ")
        for _ in range(8):
            line.write(b"a" * 32 * 1024)
        replies = line.replies()
    assert [reply.status for reply in replies] in ([431], [])


def test_slow_senders_do_not_delay_a_fast_sender(live: Ingress) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(200):
            line = stack.enter_context(contextlib.closing(Line(live.port)))
            line.write(head(b"x")[:-10])
        assert live.post(body()).status == 200


def test_a_delivery_cut_off_by_its_sender_is_not_written(live: Ingress) -> None:
    told = body()
    with contextlib.closing(Line(live.port)) as line:
        line.write(request(raw(told))[:-5])
    assert live.post(body()).status == 200
    assert written(live, told) == 0


def test_no_answer_names_the_server(live: Ingress) -> None:
    reply = live.post(body())
    assert set(reply.fields) == {"content-type", "content-length", "date"}


def test_options_of_the_server_itself_are_answered_without_content(live: Ingress) -> None:
    found = live.ask(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (found.status, set(found.fields), found.content) == (204, {"date"}, b"")


def test_a_head_sent_byte_by_byte_gets_the_answer_of_a_whole_head(live: Ingress) -> None:
    told = body()
    for build, status in (
        (REFUSED["two Hosts"][1], 400),
        (REFUSED["a target of 9 kB"][1], 414),
        (ONE["64 headers"], 200),
    ):
        with contextlib.closing(Line(live.port)) as line:
            for byte in build(raw(told)):
                line.write(bytes([byte]))
            line.end()
            assert [reply.status for reply in line.replies()] == [status]
    assert written(live, told) == 1


def test_a_refusal_is_a_problem_document_of_rfc_9457(live: Ingress) -> None:
    reply = live.post(body(orgId="x"))
    assert reply.status == 400
    assert reply.fields["content-type"] == "application/problem+json"
    assert json.loads(reply.content) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "orgId must be a UUID",
        "field": "orgId",
    }


def test_the_openapi_document_is_served(live: Ingress) -> None:
    document = live.get("/openapi.json").said
    assert document["openapi"] == "3.1.0"
    responses = document["paths"]["/v1/genesys/lifecycle/{endpoint}"]["post"]["responses"]
    assert set(responses) == {"200", "400", "401", "403", "405", "408", "413", "414", "415", "417", "431", "503"}
    assert document["components"]["schemas"]["Webhook"]["properties"]["event"]["enum"][0] == "installed"
    hinted = document["paths"]["/v1/genesys/audit/{endpoint}"]["post"]
    assert set(hinted["responses"]) == {"200", "400", "401", "403", "405", "408", "413", "415", "429", "503"}
    assert document["components"]["schemas"]["Hint"]["required"] == ["source", "detail"]


@pytest.mark.parametrize("path", ["/", "/v1/genesys", "/v1/genesys/lifecyclex", "/v2/genesys/lifecycle", "//", "/%00"])
def test_an_unknown_path_is_answered_404(live: Ingress, path: str) -> None:
    assert live.ask(head(b"", path=path)).status == 404


def test_no_request_of_this_module_was_answered_with_a_server_error(live: Ingress) -> None:
    assert live.post(body(), secret="x" * 32).status == 401
    exposition = live.get("/metrics").content.decode()
    counted = [line for line in exposition.splitlines() if 'status="' in line and not line.endswith(" 0.0")]
    assert any('status="4' in line for line in counted)
    assert not [line for line in counted if 'status="5' in line]
    assert live.logged("broken") == []
