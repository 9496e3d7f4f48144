"""Any bytes are answered or the connection is closed, and never with a server error.

The receiver writes to a real broker through a real producer; only the socket is left out, for speed.
"""

import asyncio
import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.adapters.kafka.producer import Producer
from services.adapters.process.clock import now_us
from tests.support.examples import examples
from tests.support.hints import envelope, hint_request
from tests.support.ingress_process import ORG, SECRET, body, make_topics, request
from tests.support.ingress_site import Site, statuses

pytestmark = [pytest.mark.engines]

NAMES = [
    b"host", b"content-type", b"content-length", b"transfer-encoding", b"content-encoding", b"expect", b"traceparent",
    b"x-genesys-signature", b"x-genesys-event-timestamp", b"x-lifecycle-hint-secret", b"authorization", b"x-other",
]  # fmt: skip
VALUES = [
    b"localhost", b"application/json", b"application/json; charset=utf-8", b"3", b"300000", b"+3", b"chunked", b"gzip",
    SECRET.encode(), b"Bearer " + SECRET.encode(),
    b"100-continue", b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"0" * 64, b"sha256=" + b"f" * 64,
]  # fmt: skip
RIGHT = [
    (b"host", b"localhost"), (b"content-type", b"application/json"), (b"x-genesys-signature", b"0" * 64),
    (b"x-genesys-event-timestamp", b"2024-01-15T14:32:10Z"),
]  # fmt: skip
odd = st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.binary(max_size=80))
headers = st.lists(odd, max_size=12)
plain = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=40).map(str.encode)
nearly_right = st.tuples(st.permutations(RIGHT), st.lists(st.tuples(st.sampled_from(NAMES), plain), max_size=1)).map(
    lambda both: [*both[0], *both[1]]
)
chunks = st.lists(st.binary(max_size=60), min_size=1, max_size=4)
paths = st.sampled_from([
    "/v1/genesys/lifecycle", "/v1/genesys/lifecycle/", "/v1/genesys/lifecycle/narrow", "/v1/genesys/audit/audit",
    "/v1/genesys/audit", "/x",
])  # fmt: skip
methods = st.sampled_from(["POST", "GET", "PUT"]) | st.text(max_size=5)
deep = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
changes = st.dictionaries(
    st.sampled_from([*body(), "eventId", "sequence", "retryCount", "deliveryAttempt"]), deep, max_size=3
)


hint_changes = st.dictionaries(
    st.sampled_from(["id", "serviceName", "eventTime", "action", "entityType", "entity", "other"]), deep, max_size=2
)
whole_changes = st.dictionaries(st.sampled_from(["source", "account", "detail", "id", "other"]), deep, max_size=1)


class Running:
    """A site on a loop of its own, with a real producer."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self._runner = asyncio.Runner()
        self._site, self._producer = self._runner.run(self._build(bootstrap, prefix))

    async def _build(self, bootstrap: str, prefix: str) -> tuple[Site, Producer]:
        producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0}, linger_ms=0.5, timeout_ms=10_000)
        return Site(SECRET.encode(), now_us, producer, prefix), producer

    def ask(self, *parts: bytes) -> list[int]:
        """The status of every answer."""
        return statuses(self._runner.run(self._site.exchange(*parts)))

    def close(self) -> None:
        self._runner.run(self._producer.close(10))
        self._runner.close()


@pytest.fixture(scope="module")
def running(kafka_bootstrap: str) -> Iterator[Running]:
    prefix = f"t{secrets.token_hex(5)}-"
    make_topics(kafka_bootstrap, prefix)
    made = Running(kafka_bootstrap, prefix)
    yield made
    made.close()


def head(method: str, path: str, fields: list[tuple[bytes, bytes]]) -> bytes:
    lines = [b"%s: %s" % field for field in fields]
    return b"\r\n".join([f"{method} {path} HTTP/1.1".encode(), *lines, b"", b""])


def test_any_request_is_answered_and_never_with_a_server_error(running: Running) -> None:
    seen: set[int] = set()

    @given(methods, paths, headers, chunks)
    @settings(max_examples=examples(200), deadline=None)
    def answered(method: str, path: str, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> None:
        judge(running.ask(head(method, path, fields), *parts))

    @given(paths, nearly_right, chunks)
    @settings(max_examples=examples(200), deadline=None)
    def refused(path: str, fields: list[tuple[bytes, bytes]], parts: list[bytes]) -> None:
        length = (b"content-length", b"%d" % len(b"".join(parts)))
        judge(running.ask(head("POST", path, [*fields, length]), *parts))

    def judge(found: list[int]) -> None:
        seen.update(found)
        assert all(status < 500 for status in found)

    refused()
    answered()
    assert 401 in seen, "a generator whose heads are never well-formed does not reach the proof"
    assert len(seen) >= 4, "one that only ever makes one refusal tests nothing"


def test_any_authentic_body_is_answered_and_never_with_a_server_error(running: Running) -> None:
    seen: set[int] = set()

    @given(changes, st.integers(-(10**10), 10**10), st.integers(-(10**10), 10**10), st.booleans())
    @settings(max_examples=examples(400), deadline=None)
    def answered(changed: dict[str, Any], header_us: int, signed_us: int, cut: bool) -> None:  # noqa: FBT001
        whole = json.dumps(body(now_us() + signed_us) | changed).encode()
        payload = whole[: len(whole) // 2] if cut else whole
        (status,) = running.ask(request(payload, at_us=now_us() + header_us))
        seen.add(status)

    answered()
    assert seen == {200, 400, 401}


def test_any_proved_hint_is_answered_and_never_with_a_server_error(running: Running) -> None:
    seen: set[int] = set()

    @given(hint_changes, whole_changes, st.integers(0, 9), st.booleans())
    @settings(max_examples=examples(400), deadline=None)
    def answered(inner: dict[str, Any], outer: dict[str, Any], number: int, cut: bool) -> None:  # noqa: FBT001
        key = f"{ORG}:a1b2c3d4-e5f6-7890-abcd-ef123456789{number}"
        told = envelope(key, "Update")
        told["detail"]["eventBody"] |= inner
        whole = json.dumps(told | outer).encode()
        (status,) = running.ask(hint_request(whole[: len(whole) // 2] if cut else whole, SECRET))
        seen.add(status)

    answered()
    assert seen == {200, 400}
