"""One connection, without a socket: buffered bytes, order of answers, and requests for a body."""

import tracemalloc
from collections.abc import Awaitable, Callable

import pytest
from uvicorn.server import ServerState

from services.ingress.http.connection import HELD_MAX_BYTES, Connection
from tests.support.ingress_process import SECRET, body, head, now_us, raw, request
from tests.support.ingress_site import Site, Wire, statuses

Exchange = Callable[..., Awaitable[bytes]]


@pytest.fixture
async def site() -> Site:
    return Site(SECRET.encode(), now_us)


def opened(site: Site) -> tuple[Connection, Wire]:
    connection, wire = Connection(site.application, server_state=ServerState()), Wire()
    connection.connection_made(wire)
    return connection, wire


async def test_endless_trailers_are_cut_off_and_not_buffered(site: Site) -> None:
    told = head(b"", fields={"Content-Length": None, "Transfer-Encoding": "chunked"}) + b"0\r\n"
    tracemalloc.start()
    try:
        found = await site.exchange(told, *[b"x-%d: " % n + b"a" * 60_000 + b"\r\n" for n in range(200)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert statuses(found) == [400]
    assert peak < 20_000_000, "of 12 MB written to us next to nothing is kept"


async def test_a_body_in_one_byte_chunks_is_read(site: Site) -> None:
    payload = raw(body(filler="x" * 5_000))
    told = head(payload, fields={"Content-Length": None, "Transfer-Encoding": "chunked"})
    found = await site.exchange(told + b"".join(b"1\r\n%c\r\n" % byte for byte in payload) + b"0\r\n\r\n")
    assert statuses(found) == [200]


async def test_bytes_of_an_incomplete_body_are_counted_and_released(site: Site) -> None:
    payload = raw(body(filler="x" * 100_000))
    connection, wire = opened(site)
    connection.data_received(head(payload) + payload[:90_000])
    assert site.application.held_bytes == 90_000
    connection.data_received(payload[90_000:])
    assert site.application.held_bytes == 0
    connection.data_received(head(payload) + payload[:90_000])
    connection.connection_lost(None)
    assert site.application.held_bytes == 0
    assert not wire.is_closing()


async def test_a_body_for_an_unknown_path_is_not_buffered(site: Site) -> None:
    connection, _ = opened(site)
    connection.data_received(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 7)
    connection.data_received(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 250000\r\n\r\n" + b"x" * 240_000)
    assert site.application.held_bytes == 0


async def test_a_body_beyond_the_memory_limit_is_refused_and_small_requests_pass(site: Site) -> None:
    payload = raw(body())
    site.application.held_bytes = HELD_MAX_BYTES
    assert statuses(await site.exchange(head(payload) + payload[:100], payload[100:])) == [503]
    assert statuses(await site.exchange(request(payload))) == [200], "a body in one piece with its head holds nothing"


async def test_answers_come_in_the_order_of_the_requests(site: Site) -> None:
    valid, forged = request(raw(body())), request(raw(body()), secret="x" * 32)
    site_path = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
    found = await site.exchange(valid + forged + site_path + forged + valid)
    assert statuses(found) == [200, 401, 200, 401, 200]


async def test_a_target_without_a_path_means_the_root(site: Site) -> None:
    found = await site.exchange(b"GET http://x HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert statuses(found) == [404, 404]


async def test_a_request_behind_connection_close_is_ignored(site: Site) -> None:
    last = request(raw(body()), fields={"Connection": "close"})
    assert statuses(await site.exchange(last + request(raw(body())))) == [200]


async def test_more_pipelined_requests_than_the_limit_are_all_answered(site: Site) -> None:
    many = b"".join(request(raw(body())) for _ in range(60))
    assert statuses(await site.exchange(many)) == [200] * 60


async def test_many_upgrade_requests_in_one_piece_are_all_answered(site: Site) -> None:
    one = request(raw(body()), fields={"Connection": "Upgrade", "Upgrade": "h2c"})
    assert statuses(await site.exchange(one * 900)) == [200] * 900


async def test_the_size_cap_of_heads_holds_for_an_upgrade_in_pieces(site: Site) -> None:
    fields = {"Connection": "Upgrade", "Upgrade": "h2c", "X-Long": "a" * 17_000}
    whole = request(raw(body()), fields=fields)
    assert statuses(await site.exchange(whole)) == [431]
    assert statuses(await site.exchange(whole[:9_000], whole[9_000:])) == [431]


async def test_a_sender_of_http_1_0_is_never_asked_for_its_body(site: Site) -> None:
    whole = request(raw(body()), fields={"Expect": "100-continue"}).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
    assert statuses(await site.exchange(whole)) == [200]


async def test_a_pipelined_100_continue_is_sent_in_its_turn(site: Site) -> None:
    payload = raw(body())
    connection, wire = opened(site)
    connection.data_received(
        b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + head(payload, fields={"Expect": "100-continue"})
    )
    assert b"100 Continue" not in wire.written
    await wire.until(lambda: b"100 Continue" in wire.written)
    connection.data_received(payload)
    await wire.until(lambda: wire.written.count(b"HTTP/1.1 200") == 2)
    assert statuses(wire.written) == [200, 100, 200]
