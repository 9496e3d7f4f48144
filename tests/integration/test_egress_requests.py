"""Requests to URLs from events: pinned to a checked public address, verified by host name, capped in size."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from services.adapters.http_client import ANSWER_MAX_BYTES, HttpClient, HttpRequest, NoAnswer, NotSent, resolve
from services.adapters.pinned_client import JUDGED_TIMEOUT_S, JudgedUrl, PinnedClient, UrlDenied
from services.core.saga.calls import Refused, Retryable, Verb
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound
from tests.support.simulator_process import a_call

NAME = "acme.crm.test"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"

_connected: list[tuple[Any, ...]] = []
_watching: list[bool] = [False]


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching[0] and event in {"socket.connect", "socket.sendto"}:
        _connected.append(arguments[1])


sys.addaudithook(_hook)  # cannot be taken away again, hence the switch


@pytest.fixture
def connected() -> Iterator[list[tuple[Any, ...]]]:
    """Every address that this process tried to reach during the test."""
    _connected.clear()
    _watching[0] = True
    yield _connected
    _watching[0] = False


@dataclass
class TlsServer:
    """A TLS server of one name that answers with raw bytes."""

    port: int = 0
    answer: bytes = OK
    names: list[str | None] = field(default_factory=list)
    heads: list[str] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.heads.append(head.decode())
            writer.write(self.answer)
            await writer.drain()


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _listening(serve: Serve, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port; its connections have ended when it has."""
    open_now: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_now.add(asyncio.current_task())  # type: ignore[arg-type]  # a coroutine that runs is in a task
        with suppress(asyncio.IncompleteReadError, OSError):
            await serve(reader, writer)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()

    server = await asyncio.start_server(one, "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await asyncio.gather(*open_now)


def _certificate(folder: Path, name: str) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate for one name, and the trust in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.fromtimestamp(1_700_000_000, UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path, ssl.create_default_context(cadata=made.public_bytes(serialization.Encoding.PEM).decode())


@asynccontextmanager
async def _serving(folder: Path, name: str) -> AsyncIterator[tuple[TlsServer, HttpClient]]:
    path, trust = _certificate(folder, name)
    server = TlsServer()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def heard(_: ssl.SSLObject | ssl.SSLSocket, asked: str | None, __: ssl.SSLContext) -> None:
        server.names.append(asked)

    context.sni_callback = heard
    async with (
        _listening(server.serve, context) as server.port,
        HttpClient(connections=4, trust=trust) as client,
    ):
        yield server, client


async def test_a_pinned_request_goes_to_the_address_and_verifies_the_host_name(tmp_path: Path) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        request = HttpRequest("GET", f"https://{NAME}:{server.port}/x", address="127.0.0.1")
        assert (await client.send(request, 5)).status == 200
        assert server.names == [NAME]
        assert f"host: {NAME}:{server.port}\r\n" in server.heads[0].lower()


async def test_a_pinned_address_with_a_certificate_for_another_name_gets_no_request(tmp_path: Path) -> None:
    async with _serving(tmp_path, "another.crm.test") as (server, client):
        with pytest.raises(NotSent):
            await client.send(HttpRequest("GET", f"https://{NAME}:{server.port}/x", address="127.0.0.1"), 5)
        assert server.heads == []


async def test_two_names_at_one_address_never_share_a_connection(tmp_path: Path) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        for _ in range(2):
            await client.send(HttpRequest("GET", f"https://{NAME}:{server.port}/x", address="127.0.0.1"), 5)
        with pytest.raises(NotSent):
            await client.send(HttpRequest("GET", f"https://b.crm.test:{server.port}/x", address="127.0.0.1"), 5)
        assert server.names == [NAME, NAME, "b.crm.test"]


async def test_an_answer_is_read_up_to_its_cap_only(tmp_path: Path) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        request = HttpRequest("GET", f"https://{NAME}:{server.port}/x", address="127.0.0.1")
        size = ANSWER_MAX_BYTES + 1
        server.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + b" " * size
        with pytest.raises(NoAnswer):
            await client.send(request, 5)
        server.answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % ANSWER_MAX_BYTES + b" " * ANSWER_MAX_BYTES
        assert (await client.send(request, 5)).body is None


async def test_a_redirect_is_returned_and_not_followed(tmp_path: Path) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        server.answer = (
            b"HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/latest/meta-data/\r\ncontent-length: 0\r\n\r\n"
        )
        request = HttpRequest("GET", f"https://{NAME}:{server.port}/x", address="127.0.0.1")
        assert (await client.send(request, 5)).status == 302
        assert len(server.heads) == 1


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
    ids=["nothing", "too short", "garbage", "bad chunk"],
)
async def test_an_incomplete_answer_counts_as_no_answer(raw: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)

    async with _listening(answer) as port, HttpClient(connections=1) as client:
        with pytest.raises(NoAnswer):
            await client.send(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 5)


async def test_a_silent_server_is_given_up_after_the_timeout() -> None:
    async def say_nothing(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with _listening(say_nothing) as port, HttpClient(connections=1) as client:
        with pytest.raises(NoAnswer):
            await client.send(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 0.3)


async def test_a_cookie_of_one_tenants_call_is_not_sent_with_the_next() -> None:
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nset-cookie: session=of-the-first\r\n\r\n"))

    async with _listening(answer) as port, HttpClient(connections=1) as client:
        for _ in range(2):
            assert (await client.send(HttpRequest("GET", f"http://127.0.0.1:{port}/"), 5)).status == 200
    assert len(heads) == 2
    assert b"session" not in heads[1]


@dataclass(frozen=True)
class Denied:
    """A judge's refusal."""

    reason: str


def _pinned(client: HttpClient, port: int, *addresses: str) -> PinnedClient:
    """A client whose judges allow one host, and every address but those of 10.0.0.0/8."""

    async def name_service(host: str, _: float) -> list[str]:
        assert host == NAME
        return list(addresses)

    def judge_url(url: str) -> JudgedUrl | Denied:
        return JudgedUrl(f"https://{NAME}:{port}/judged", NAME) if NAME in url else Denied("not that host")

    def judge_addresses(found: Sequence[str]) -> Denied | None:
        return Denied("not inside") if any(address.startswith("10.") for address in found) else None

    return PinnedClient(client, name_service, judge_url, judge_addresses)


async def test_a_judged_url_is_sent_as_judged_to_the_first_address_that_connects(
    tmp_path: Path, connected: list[tuple[Any, ...]]
) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        pinned = _pinned(client, server.port, "127.0.0.2", "127.0.0.1")
        assert (await pinned.send_judged(HttpRequest("GET", f"https://{NAME}/given"), 5)).status == 200
        assert server.names == [NAME]
        assert server.heads[0].startswith("GET /judged HTTP/1.1\r\n")
        assert [address[0] for address in connected] == ["127.0.0.2", "127.0.0.1"]


async def test_no_address_is_tried_behind_one_that_was_sent_to(
    tmp_path: Path, connected: list[tuple[Any, ...]]
) -> None:
    async with _serving(tmp_path, NAME) as (server, client):
        server.answer = b"garbage\r\n\r\n"
        with pytest.raises(NoAnswer):
            await _pinned(client, server.port, "127.0.0.1", "127.0.0.1").send_judged(
                HttpRequest("POST", f"https://{NAME}/x", body={}), 5
            )
        assert len(server.heads) == len(connected) == 1


async def test_what_a_judge_denies_opens_no_socket(connected: list[tuple[Any, ...]]) -> None:
    async with HttpClient(connections=1) as client:
        for url, addresses, why in (
            ("https://another.crm.test", ["127.0.0.1"], "not that host"),
            (f"https://{NAME}", ["127.0.0.1", "10.0.0.1"], "not inside"),
        ):
            with pytest.raises(UrlDenied) as denied:
                await _pinned(client, 9, *addresses).send_judged(HttpRequest("GET", url), 5)
            assert (denied.value.reason, denied.value.passing) == (why, False)
    assert connected == []


async def test_a_judged_request_has_a_time_limit_of_its_own() -> None:
    asked_s: list[float] = []

    async def name_service(_: str, timeout_s: float) -> list[str]:
        asked_s.append(timeout_s)
        return []

    async with HttpClient(connections=1) as client:
        pinned = PinnedClient(client, name_service, lambda url: JudgedUrl(url, NAME), lambda _: None)
        for timeout_s in (60.0, 0.5):
            with pytest.raises(NotSent, match="no address"):
                await pinned.send_judged(HttpRequest("GET", f"https://{NAME}"), timeout_s)
    assert asked_s == [JUDGED_TIMEOUT_S, 0.5]


HOSTILE = [
    "127.0.0.1",
    "10.0.0.1",
    "169.254.169.254",
    "::1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fe80::1",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
]


def _outbound(client: HttpClient, *answers: list[str]) -> tuple[Outbound, list[str]]:
    """An outbound whose name service answers each time with the next of `answers`."""
    asked: list[str] = []

    async def name_service(host: str, _: float) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return Outbound(client, name_service, allow=("*.crm.test",), egress_map={}), asked


@pytest.mark.parametrize("address", HOSTILE)
async def test_a_host_with_a_non_public_address_is_refused_without_a_connection(
    connected: list[tuple[Any, ...]], address: str
) -> None:
    async with HttpClient(connections=1) as client:
        for addresses in ([address], ["93.184.215.14", address]):
            outbound, _ = _outbound(client, addresses)
            call = a_call(Verb.CREATE, settings={"url": f"https://{NAME}"})
            answer = await HttpKind(outbound).call(call)
            assert answer == Refused("url: the host resolves to an address that is not public", heard=False)
    assert connected == []


@pytest.mark.parametrize(
    "url",
    [
        "https://127.1",
        "https://0x7f000001",
        "https://[::ffff:169.254.169.254]",
        "https://169.254.169.254/latest/meta-data",
        "https://127.0.0.1.nip.io",
        "http://acme.crm.test",
        "https://acme.crm.test@127.0.0.1",
    ],
)
async def test_a_url_outside_the_allow_list_is_not_resolved(connected: list[tuple[Any, ...]], url: str) -> None:
    async with HttpClient(connections=1) as client:
        outbound, asked = _outbound(client, ["93.184.215.14"])
        for verb in (Verb.CREATE, Verb.READ, Verb.DELETE):
            assert isinstance(await HttpKind(outbound).call(a_call(verb, settings={"url": url})), Refused)
        assert asked == []
    assert connected == []


async def test_a_host_name_is_resolved_once_for_check_and_connection(connected: list[tuple[Any, ...]]) -> None:
    """Rebinding: public when it is judged, inside when it is connected to. (That address is a retired anycast one.)"""
    async with HttpClient(connections=1) as client:
        outbound, asked = _outbound(client, ["192.88.99.1"], ["127.0.0.1"])
        call = a_call(Verb.READ, settings={"url": f"https://{NAME}"}, timeout_s=0.5)
        answer = await HttpKind(outbound).call(call)
        assert isinstance(answer, Retryable)
        assert asked == [NAME]
    assert {address[0] for address in connected} == {"192.88.99.1"}
    assert all(ip_address(address[0]).is_global for address in connected)


async def test_a_host_name_without_an_address_is_retryable(connected: list[tuple[Any, ...]]) -> None:
    async with HttpClient(connections=1) as client:
        outbound = Outbound(client, resolve, allow=("*.invalid",), egress_map={})
        answer = await HttpKind(outbound).call(a_call(Verb.CREATE, settings={"url": "https://crm.invalid"}))
        assert isinstance(answer, Retryable)


async def test_the_operators_own_url_needs_no_allow_list() -> None:
    async with HttpClient(connections=1) as client:
        outbound, _ = _outbound(client, [])
        given = {"url": "http://127.0.0.1:9", "url_from": "operator"}
        assert isinstance(await HttpKind(outbound).call(a_call(Verb.CREATE, settings=given)), Retryable)
        for odd in ("file:///etc/passwd", "ftp://127.0.0.1", "nonsense"):
            call = a_call(Verb.CREATE, settings=given | {"url": odd})
            assert await HttpKind(outbound).call(call) == Refused("url: not http or https", heard=False)
        wrong = a_call(Verb.CREATE, settings=given | {"url_from": "anyone"})
        assert isinstance(await HttpKind(outbound).call(wrong), Refused)
