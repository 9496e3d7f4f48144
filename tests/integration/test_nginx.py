"""The shipped nginx file, in the real nginx, before two real ingresses."""

import contextlib
import http.client
import json
import signal
import socket
import ssl
import threading
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self
from uuid import uuid4

import pytest

from schemas.topics import RECEIVED
from services.engines.ports import free_ports
from tests.support.eventually import eventually
from tests.support.hints import envelope, hint_request
from tests.support.ingress_process import ORG, PATH, Ingress, body, head, ingress, key, make_topics, raw, request
from tests.support.nginx import nginx, trust

pytestmark = [pytest.mark.engines]

SENDERS = 8
ANSWER_MAX_S = 60.0
PATIENT = {
    "proxy_next_upstream_timeout 400ms": "proxy_next_upstream_timeout 20s",
    "proxy_connect_timeout 250ms": "proxy_connect_timeout 20s",
    "proxy_send_timeout 1s": "proxy_send_timeout 20s",
    "proxy_read_timeout 1700ms": "proxy_read_timeout 20s",
    "client_header_timeout 1s": "client_header_timeout 20s",
    "client_body_timeout 1s": "client_body_timeout 20s",
}
"""Under load on a busy machine time-outs would be judged, and not what a restart costs."""


class TwoIngresses:
    """Two ingresses that can be ended and begun anew on their ports."""

    def __init__(self, stack: contextlib.ExitStack, bootstrap: str, prefix: str, folder: Path) -> None:
        self._stack, self._bootstrap, self._prefix, self._folder = stack, bootstrap, prefix, folder
        self.ports = free_ports(2)
        self.running = [self._begun(port) for port in self.ports]

    def _begun(self, port: int) -> Ingress:
        # A Kafka that is slow for once must not look like a restart that was seen.
        environ = {
            "PORT": str(port),
            "DRAIN_S": "1",
            "SPOOL_DIR": str(self._folder / "spool"),
            "SPOOL_HIGH_WATER": "1",
        }
        found = self._stack.enter_context(ingress(self._bootstrap, self._prefix, self._folder, **environ))
        eventually(lambda: found.get("/readyz").status == 200)
        return found

    def restart(self, number: int, how: signal.Signals) -> None:
        """End one as a deployment, or an accident, does, and wait until its successor is ready."""
        self.running[number].process.send_signal(how)
        ended = self.running[number].process.wait(20)
        assert ended == (0 if how is signal.SIGTERM else -how)
        self.running[number] = self._begun(self.ports[number])


@pytest.fixture
def cluster(kafka_bootstrap: str, topic_prefix: str, tmp_path: Path) -> Iterator[TwoIngresses]:
    make_topics(kafka_bootstrap, topic_prefix)
    with contextlib.ExitStack() as stack:
        yield TwoIngresses(stack, kafka_bootstrap, topic_prefix, tmp_path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "nginx"
    found.mkdir()
    return found


class Load:
    """Senders that post as fast as they are answered, every other one on a connection that stays."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        self.statuses: Counter[int | str] = Counter()
        self.accepted: list[str] = []
        self._port, self._context = port, context
        self._ends = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=[n]) for n in range(SENDERS)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        eventually(lambda: self.statuses.total() > 100)
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()

    def _send(self, number: int) -> None:
        keeps = number % 2 == 1
        connection = self._connected()
        while not self._ends.is_set():
            told = body()
            try:
                status = posted(connection, raw(told))
            except (OSError, http.client.HTTPException) as error:
                self.statuses[repr(error)] += 1
                status = 0
            else:
                self.statuses[status] += 1
            if status == 200:
                self.accepted.append(key(told))
            if not keeps or status != 200:
                connection.close()
                connection = self._connected()
        connection.close()

    def _connected(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._port, timeout=ANSWER_MAX_S, context=self._context)


def posted(connection: http.client.HTTPSConnection, payload: bytes) -> int:
    lines = head(payload).decode().split("\r\n")[1:-2]
    connection.request("POST", PATH, payload, dict(line.split(": ", 1) for line in lines))
    answer = connection.getresponse()
    answer.read()
    return answer.status


def written(cluster: TwoIngresses) -> set[str]:
    return {(record.key() or b"").decode() for record in cluster.running[0].records(RECEIVED)}


@pytest.mark.slow
@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGTERM, id="restart", marks=pytest.mark.long), pytest.param(signal.SIGKILL, id="kill")]
)
def test_a_rolling_restart_under_load_fails_no_delivery(
    cluster: TwoIngresses, folder: Path, how: signal.Signals
) -> None:
    with nginx(folder, cluster.ports, PATIENT) as port, Load(port, trust(folder)) as load:
        for number in (0, 1, 0, 1):
            cluster.restart(number, how)
            sent = load.statuses.total()
            eventually(lambda sent=sent: load.statuses.total() > sent + 50)  # type: ignore[misc]
    assert set(load.statuses) == {200}, load.statuses
    eventually(lambda: set(load.accepted) <= written(cluster))  # what was answered 200 is durable


def spoken(port: int, context: ssl.SSLContext, data: bytes) -> bytes:
    """Everything that is answered to these bytes until the end of the connection."""
    found = b""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1", suppress_ragged_eofs=True) as line,
    ):
        line.sendall(data)
        with contextlib.suppress(ConnectionResetError):
            while part := line.recv(65_536):
                found += part
    return found


@pytest.fixture(scope="module")
def behind(
    kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[int, ssl.SSLContext, Ingress]]:
    """nginx before one ingress and a port that nobody listens on."""
    prefix, folder = "nginx-small-", tmp_path_factory.mktemp("nginx")
    make_topics(kafka_bootstrap, prefix)
    (nobody,) = free_ports(1)
    with (
        ingress(kafka_bootstrap, prefix, tmp_path_factory.mktemp("ingress")) as running,
        nginx(folder, [running.port, nobody]) as port,
    ):
        yield port, trust(folder), running


CLOSE = {"Connection": "close"}
THE_CURE = "proxy_next_upstream error timeout invalid_header http_502 http_503 http_504 non_idempotent;"


@contextlib.contextmanager
def dying() -> Iterator[int]:
    """A port behind which every request is read and none is answered, as by a process that is killed."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def die() -> None:
            with contextlib.suppress(OSError):
                while True:
                    line, _ = listening.accept()
                    with line:
                        line.recv(65_536)

        thread = threading.Thread(target=die)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(("line", "cured"), [(THE_CURE, True), ("proxy_next_upstream error timeout;", False)])
def test_a_delivery_unanswered_by_a_dying_ingress_is_sent_to_the_next(
    behind: tuple[int, ssl.SSLContext, Ingress], folder: Path, line: str, cured: object
) -> None:
    with dying() as grave, nginx(folder, [grave, behind[2].port], PATIENT | {THE_CURE: line}) as port:
        told = [spoken(port, trust(folder), request(raw(body()), fields=CLOSE)).splitlines()[0] for _ in range(6)]
    assert (set(told) == {b"HTTP/1.1 200 OK"}) is cured, told
    assert b"HTTP/1.1 200 OK" in told


def test_the_largest_body_passes_and_a_larger_one_is_answered_413(behind: tuple[int, ssl.SSLContext, Ingress]) -> None:
    port, context, _ = behind
    told = body()
    room = 256 * 1024 - len(raw(told | {"filler": ""}))
    for more, status in ((0, b"200"), (1, b"413")):
        payload = raw(told | {"filler": "x" * (room + more)})
        assert spoken(port, context, request(payload, fields=CLOSE)).split(b" ")[1] == status


def test_a_delivery_keeps_its_headers_and_host(behind: tuple[int, ssl.SSLContext, Ingress]) -> None:
    port, context, running = behind
    for path in ("/v1/genesys/lifecycle", "/api/v1/genesys/lifecycle", "/v1/genesys/lifecycle/default?a=b"):
        told = body()
        assert b" 200 OK\r\n" in spoken(port, context, request(raw(told), path=path, fields=CLOSE))
        assert any(record.key() == key(told).encode() for record in running.records(RECEIVED))
    hinted = f"{ORG}:{uuid4()}"
    whole = hint_request(envelope(hinted), fields=CLOSE)
    assert b" 200 OK\r\n" in spoken(port, context, whole)
    assert any(record.key() == hinted.encode() for record in running.records(RECEIVED))
    expecting = spoken(port, context, request(raw(body()), fields=CLOSE | {"Expect": "100-continue"}))
    assert b"HTTP/1.1 200 OK" in expecting


@pytest.mark.parametrize(
    "path", ["/", "/metrics", "/readyz", "/livez", "/openapi.json", "/v1/genesys/lifecyclex", "/v1/genesys/auditx"]
)
def test_health_and_metrics_are_not_served_outside(behind: tuple[int, ssl.SSLContext, Ingress], path: str) -> None:
    port, context, _ = behind
    assert b" 404 " in spoken(port, context, head(b"", method="GET", path=path, fields=CLOSE)).splitlines()[0]


SMALL = {"rate=4000r/s": "rate=5r/s", "burst=1200": "burst=10"}


def test_a_burst_is_queued_and_requests_beyond_it_are_answered_503(
    behind: tuple[int, ssl.SSLContext, Ingress], folder: Path
) -> None:
    answers: list[bytes] = []
    # An nginx of its own: what other tests have just sent would count.
    with nginx(folder, [behind[2].port] * 2, PATIENT | SMALL) as port:
        context = trust(folder)

        def send() -> None:
            answers.append(spoken(port, context, request(raw(body()), fields=CLOSE)))

        senders = [threading.Thread(target=send) for _ in range(120)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    refused = [answer for answer in answers if b" 503 " in answer.splitlines()[0]]
    taken = [answer for answer in answers if b" 200 " in answer.splitlines()[0]]
    assert len(refused) + len(taken) == len(senders)
    assert len(taken) > 10, "a burst is let through"
    assert refused, "and bounded"
    fields, _, content = refused[0].partition(b"\r\n\r\n")
    assert b"\r\nretry-after: 5\r\n" in fields.lower() + b"\r\n"
    assert b"content-type: application/problem+json" in fields.lower()
    assert json.loads(content)["status"] == 503


def test_a_slow_sender_is_cut_off(behind: tuple[int, ssl.SSLContext, Ingress]) -> None:
    port, context, _ = behind
    payload = raw(body())
    for part in (head(payload)[:-40], head(payload) + payload[:-10]):
        answer = spoken(port, context, part)
        assert answer == b"" or b" 408 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda one: one.name
)
def test_tls_below_1_2_is_refused(behind: tuple[int, ssl.SSLContext, Ingress], version: ssl.TLSVersion) -> None:
    port, _, _ = behind
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with warnings.catch_warnings(action="ignore"):
        context.minimum_version = context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")  # OpenSSL itself would refuse to offer it
    if version >= ssl.TLSVersion.TLSv1_2:
        assert b" 404 " in spoken(port, context, head(b"", method="GET", path="/", fields=CLOSE))
    else:
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol version"):
            spoken(port, context, b"")
