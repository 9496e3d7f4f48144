"""Any request at all, as an ASGI server would hand it over, is answered, and never with a server error.

The receiver writes to a real broker through a real producer; only the HTTP server is left out, for speed.
"""

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.values import rfc3339
from services.adapters import logs
from services.adapters.clock import now_us
from services.adapters.kafka import Producer
from services.core.binding import binding
from services.core.signature import Secrets, sign
from services.ingress.app import application
from services.ingress.gates import Gate
from services.ingress.receive import Receiver
from services.ingress.telling import Telling
from services.ingress.writer import Limits, Writer
from tests.ingress_process import SECRET, body, make_topics

pytestmark = [pytest.mark.engines]

NAMES = [
    b"host", b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"traceparent",
    b"x-genesys-signature", b"x-genesys-event-timestamp", b"x-other",
]  # fmt: skip
VALUES = [
    b"localhost", b"application/json", b"application/json; charset=utf-8", b"3", b"300000", b"+3", b"chunked", b"gzip",
    b"100-continue", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"0" * 64, b"sha256=" + b"f" * 64,
]  # fmt: skip
RIGHT = [
    (b"host", b"localhost"), (b"content-type", b"application/json"), (b"x-genesys-signature", b"0" * 64),
    (b"x-genesys-event-timestamp", b"2024-01-15T14:32:10Z"),
]  # fmt: skip
odd = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=80))
headers = st.lists(odd, max_size=12) | st.tuples(st.permutations(RIGHT), st.lists(odd, max_size=2)).map(
    lambda both: [*both[0], *both[1]]
)
chunks = st.lists(st.binary(max_size=60), min_size=1, max_size=4)
paths = st.sampled_from(["/v1/genesys/lifecycle", "/v1/genesys/lifecycle/", "/v1/genesys/lifecycle/narrow", "/x"])
methods = st.sampled_from(["POST", "GET", "PUT"]) | st.text(max_size=5)
deep = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
changes = st.dictionaries(
    st.sampled_from([*body(), "eventId", "sequence", "retryCount", "deliveryAttempt"]), deep, max_size=3
)


class Site:
    """The application on a loop of its own."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._runner = asyncio.Runner()

        async def build() -> None:
            self._producer = Producer(
                {"bootstrap.servers": bootstrap, "log_level": 0}, linger_ms=0.5, timeout_ms=10_000
            )
            telling = Telling(logs.configure("ingress", "error"))
            writer = Writer(self._producer, Limits(10.0, 1_000, 1 << 24), telling.unwritten)
            gates = {"default": Gate(Secrets(SECRET.encode()), binding(["*"], ["*"]))}
            receiver = Receiver(lambda: gates, writer, telling, topic_prefix=prefix, now_us=now_us)
            self._app = application(receiver, dict)

        self._runner.run(build())

    def ask(self, scope: dict[str, Any], parts: list[bytes]) -> int:
        return self._runner.run(self._ask(scope, parts))

    async def _ask(self, scope: dict[str, Any], parts: list[bytes]) -> int:
        messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
        messages[-1]["more_body"] = False
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        whole = {"type": "http", "http_version": "1.1", "query_string": b"", "root_path": "", "state": {}} | scope
        await self._app(whole, receive, send)
        assert sent[0]["type"] == "http.response.start"
        assert not sent[-1].get("more_body", False)
        status: int = sent[0]["status"]
        return status

    def close(self) -> None:
        self._runner.run(self._producer.close(10))
        self._runner.close()


@pytest.fixture(scope="module")
def site(kafka_bootstrap: str) -> Iterator[Site]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    made = Site(kafka_bootstrap, prefix)
    yield made
    made.close()


def test_any_request_is_answered_and_never_with_a_server_error(site: Site) -> None:
    seen = set()

    @given(methods, paths, headers, chunks)
    @settings(max_examples=400, deadline=None)
    def answered(method: str, path: str, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> None:
        status = site.ask({"method": method, "path": path, "headers": fields}, parts)
        seen.add(status)
        assert status < 500

    answered()
    assert 401 in seen, "a generator whose heads are never well-formed does not reach the proof"
    assert len(seen) >= 4, "one that only ever makes one refusal tests nothing"


def test_any_authentic_body_is_answered_and_never_with_a_server_error(site: Site) -> None:
    seen = set()

    @given(changes, st.integers(-(10**10), 10**10), st.integers(-(10**10), 10**10), st.booleans())
    @settings(max_examples=400, deadline=None)
    def answered(changed: dict[str, Any], header_us: int, signed_us: int, cut: bool) -> None:  # noqa: FBT001
        whole = json.dumps(body(now_us() + signed_us) | changed).encode()
        payload = whole[: len(whole) // 2] if cut else whole
        fields = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"x-genesys-signature", sign(SECRET.encode(), payload).encode()),
            (b"x-genesys-event-timestamp", rfc3339(now_us() + header_us).encode()),
        ]
        seen.add(site.ask({"method": "POST", "path": "/v1/genesys/lifecycle", "headers": fields}, [payload]))

    answered()
    assert seen == {200, 400, 401}
