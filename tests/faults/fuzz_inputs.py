"""The fuzzer's first inputs, and the changes that keep an input close to a valid one.

A change of a random byte hardly ever gets past a signature, a length or a brace. So bodies are changed as JSON, heads
as lines and signatures as digits, and every so often by bytes all the same.
"""

import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from schemas.times import rfc3339
from schemas.values import EventType
from services.core.delivery.signature import sign
from tests.contract.test_ingress_http import ONE, REFUSED
from tests.faults.fuzz_site import NOW_US
from tests.faults.fuzz_subjects import CANARY, SHIFTS_S, Input, read, use
from tests.support.ingress_process import ORG, body, raw, request

CORPUS: Final = Path(__file__).with_name("corpus")
SIZE_MAX_BYTES: Final = 24 * 1024
"""Beyond the cap of a head. Longer bodies come by padding: nothing in them is read otherwise."""

_STAMP: Final = re.compile(rb"(?<=Event-Timestamp: )\d{4}-[^\r\n]*")
_INTEGRATION: Final = "12345678-1234-5678-9abc-def012345678"
_S: Final = 1_000_000
_NEW: Final = {"integrationId": _INTEGRATION}

_VALUES: Final[tuple[Any, ...]] = (
    None, True, False, 0, -0.0, 1, -1, 2, 7.0, 0.5, 1000, 1001, 2**53 - 1, 2**53, -(2**53), 1e16, 1e300, 5e-324,
    "", "0", "1", "0002", "99999", "x", CANARY, "é", "\x00", "\x7f", "\u2028", "\U0001f600", "a" * 128, "a" * 129,
    "P", "PT", "P1D", "PT5M", "P1Y2M3W4DT5H6M7.8S", "P1DT", "P1W\n", "P\u0661D",
    _INTEGRATION.upper(), f"{_INTEGRATION}\n", "tenant.-_", ".tenant", "t" * 128, "t" * 129, "tenant\n",
    [], {}, [[]], [""], ["a", CANARY], {"a": CANARY},
    {CANARY: 1}, {"a": {"b": [1, 2.0, None]}}, {"\u00e9": 1, "e": 2, "\U0001f600": 3, "\ufb33": 4},
    "2024-01-15T14:32:10Z", "2024-02-30T00:00:00Z", "2024-01-15T14:32:10", "2024-01-15t14:32:10z",
    "2024-01-15T14:32:60Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2024-W03-1T00:00:00Z",
    *[rfc3339(NOW_US + s * _S) for s in (-1500, -1501, -1499, -91, 0, 90, 91)],
    *[str(event) for event in EventType], "created", "Installed", "installed ",
)  # fmt: skip
_NAMES: Final = (
    *body(), "eventId", "sequence", "retryCount", "deliveryAttempt", "crmEndpoint", "syncInterval", "featureFlags",
    "installedBy", "source", "traceId", CANARY, "", "__proto__", "a", "é", "\U0001f600",
)  # fmt: skip
_OFTEN: Final = ("configuration", "metadata") * 4
"""What may hold nearly anything; a change of another field of a body is nearly always refused."""

_TEXTS: Final = (
    b'{"a":1,"a":2}', b"NaN", b"-Infinity", b"1e999", b"-0", b"01", b"1.", b".5", b"1E+2", b"true", b"null", b"'",
    b"9" * 400, b"9" * 5000, b"1" + b"0" * 400 + b".0", b"[" * 40, b"[" * 250, b"]" * 40, b'{"a":' * 33, b"/* */",
    *[b"[" * depth + b"]" * depth for depth in (30, 31, 32, 33)],
    b'"\\ud800"', b'"\\ud83d\\ude00"', b'"\\u0000"', b'"\\x41"', b"\\u00e9", b"\\", b'"', b",", b":", b"{", b"}",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80", b"\xff\xfe", b"\xc2\xa0",
    b"//", b"\x00", b"\x0b", b"\x7f", b"\t", b"\r\n", b" ", CANARY.encode(),
)  # fmt: skip
_DIGITS: Final = (b"sha256=", b" ", b"\n", b"G", b"\xc3\xa9", b"\xd9\xa1", b"_", b"0x", b"")
_LINES: Final = (
    b"Host: localhost", b"Host: a, b", b"Host:", b"Host: [::1]:8080",
    b"Host: u@a", b"Host: a/b", b"Host: a b", b": a", b"X Space: a", b"X-Folded: a\r\n b", b"X-Nul: \x00", b"",
    b"Content-Type: application/json", b"Content-Type: application/json; charset=utf-8", b"Content-Type: text/plain",
    b"Content-Length: 0", b"Content-Length: 3", b"Content-Length: 262145", b"Content-Length: 00000000000000000003",
    b"Content-Length: +3", b"Content-Length: 3, 3", b"Content-Length: \xb2",
    b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding:",
    b"Transfer-Encoding: \x0bchunked", b"0", b"5;a=b\r\nhello", b"ffffffffffffffff1",
    b"Content-Encoding: gzip", b"Content-Encoding: identity", b"Expect: 100-continue", b"Expect: x",
    b"Expect: , 100-Continue", b"Expect:", b"OPTIONS * HTTP/1.0", b"GET * HTTP/1.1",
    b"GET /" + b"a" * 8_000 + b" HTTP/1.1",
    b"GET http://u@a/livez HTTP/1.1",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Upgrade", b"Upgrade: h2c", b"Upgrade: websocket",
    b"X-Genesys-Signature: " + b"0" * 64, b"X-Genesys-Signature: sha256=" + b"f" * 64, b"X-Genesys-Signature: \xe9",
    b"X-Genesys-Event-Timestamp: 2024-01-15T14:32:10Z", b"X-Genesys-Event-Timestamp: \xe9",
    b"X-Genesys-Event-Timestamp: now", b"traceparent: 00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01",
    b"X-Long: " + b"a" * 17_000,
    b"GET /livez HTTP/1.1", b"HEAD /readyz HTTP/1.1", b"GET /livez/ HTTP/1.1", b"POST /livez HTTP/1.1",
    b"HEAD /nowhere HTTP/1.1", b"GET /openapi.json?a#b HTTP/1.1", b"GET /version HTTP/0.9", b"OPTIONS * HTTP/1.1",
    b"CONNECT a:1 HTTP/1.1", b"PRI * HTTP/2.0", b"POST /%zz HTTP/1.1", b"POST //a@b:c HTTP/1.1",
    b"POST /v1/genesys/lifecycle/%00 HTTP/1.1", b"POST /v1/genesys/lifecycle/\xff HTTP/1.1",
    b"POST http://x/v1/genesys/lifecycle HTTP/1.1", b"POST /v1/genesys/lifecycle HTTP/1.0",
)  # fmt: skip


def seeds() -> list[bytes]:
    """The inputs to begin with; the files of the corpus are among them."""
    found = [*_bodies(), *_wires(), *_signatures()]
    kept = [path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))]
    return kept + [one.written() for one in found if len(one.payload) <= SIZE_MAX_BYTES]


def _bodies() -> Iterator[Input]:
    uses = [
        use(), use(framing="prefixed"), use(framing="chunked"), use(framing="chunked", again=True), use(framing="1.0"),
        use(again=True), use(endpoint="rotated", again=True), use(endpoint="narrow"), use(endpoint="nobody"),
    ]  # fmt: skip
    for number, event in enumerate([*EventType, "created"]):
        told = body(NOW_US, event=str(event), **_NEW)
        yield from (Input("b", how + number % len(SHIFTS_S), raw(told)) for how in uses)
    plain = body(NOW_US, **_NEW)
    yield Input("b", use(framing="cap"), raw(plain))
    yield Input("b", use(framing="cap", again=True), raw(plain))
    for name in ("eventId", "sequence", "retryCount", "deliveryAttempt"):
        yield Input("b", use(shift_s=-91), raw(plain | {name: 2}))
        yield Input("b", use(shift_s=-91), raw(plain | {"metadata": {name: "2"}}))
    for age_s in (-91, 90, 1_499, 1_501):
        yield Input("b", use(again=True), raw(body(NOW_US - age_s * _S, **_NEW)))
    yield Input("b", use(endpoint="narrow"), raw(plain | {"orgId": ORG.replace("9", "8")}))
    for value in _VALUES:
        yield Input("b", use(), raw(plain | {"configuration": {"x": value}, "metadata": {"x": value}}))
    for text in _TEXTS:
        yield Input("b", use(), raw(plain)[:-1] + b',"configuration":' + text + b"}")


def _wires() -> Iterator[Input]:
    payload = raw(body(NOW_US, **_NEW))
    builds = [build for _, build in REFUSED.values()] + list(ONE.values())
    for number, build in enumerate(builds):
        yield Input("w", number % 64, _STAMP.sub(rfc3339(NOW_US).encode(), build(payload)))
    one, another = request(payload, at_us=NOW_US), request(b"{}", at_us=NOW_US)
    yield Input("w", 0, one + another + one)
    yield Input("w", 9, b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + one)


def _signatures() -> Iterator[Input]:
    for how in range(12):
        digits = sign(bytes(range(32)), b"a").encode()
        yield Input("s", how, b"sha256=" * (how % 2) + digits + b"\na")
    yield Input("s", 0, b"a1 b" * 16 + b"\n")


class Changing:
    """Changes inputs. Of the same choices, the same changes."""

    def __init__(self, chance: random.Random) -> None:
        """Begin.

        Args:
            chance: Makes every choice.
        """
        self._chance = chance

    def change(self, data: bytes, size_max: int) -> bytes:
        """Returns an input that is like this one."""
        chance = self._chance
        found = read(data)
        how, payload = found.how, found.payload
        if chance.random() < 0.15:
            how = chance.randrange(256)
        for _ in range(chance.choice([1, 1, 1, 2, 4])):
            payload = self._payload(found.subject, payload, size_max - 2)
        return Input(found.subject, how, payload[: size_max - 2]).written()

    def _payload(self, subject: str, payload: bytes, room: int) -> bytes:
        if self._chance.random() < 0.15:
            return self._bytes(payload, room) if payload else b" "
        if subject == "b":
            return self._json(payload) if self._chance.random() < 0.9 else self._insert(payload, _TEXTS)
        if subject == "w":
            return self._head(payload)
        return self._digits(payload)

    def _json(self, payload: bytes) -> bytes:
        try:
            value = json.loads(payload)
        except (ValueError, RecursionError):
            return self._insert(payload, _TEXTS)
        value = self._grow(value)
        return json.dumps(value, ensure_ascii=self._chance.random() < 0.5).encode("utf-8", "surrogatepass")

    def _grow(self, value: Any) -> Any:
        """Change one position, further down with every other try."""
        chance = self._chance
        if isinstance(value, list) and value and chance.random() < 0.6:
            position = chance.randrange(len(value))
            return [*value[:position], self._grow(value[position]), *value[position + 1 :]]
        if not isinstance(value, dict):
            return chance.choice(_VALUES) if chance.random() < 0.8 else {chance.choice(_NAMES): value}
        name = chance.choice([*value, *(name for name in _OFTEN if name in value), chance.choice(_NAMES)])
        dice = chance.random()
        if dice < 0.15:
            return {other: value[other] for other in value if other != name}
        if dice < 0.25:
            return dict(chance.sample(list(value.items()), len(value)))
        if dice < 0.35 and name in value:
            return value | {chance.choice(_NAMES): value[name]}
        return value | {name: self._grow(value.get(name)) if dice < 0.65 else chance.choice(_VALUES)}

    def _head(self, payload: bytes) -> bytes:
        chance, lines = self._chance, payload.split(b"\r\n")
        position, dice = chance.randrange(len(lines)), chance.random()
        if dice < 0.35:
            lines.insert(position, chance.choice(_LINES))
        elif dice < 0.5:
            lines[position] = chance.choice(_LINES)
        elif dice < 0.6:
            del lines[position]
        elif dice < 0.7:
            lines.insert(chance.randrange(len(lines)), lines[position])
        elif dice < 0.8:
            lines[position] = self._bytes(lines[position], len(lines[position]) + 20)
        elif dice < 0.9:
            lines += lines[: chance.randrange(len(lines)) + 1]
        else:
            at = chance.randrange(len(payload) + 1)
            return payload[:at] + chance.choice([b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b"\xff"]) + payload[at:]
        return b"\r\n".join(lines)

    def _digits(self, payload: bytes) -> bytes:
        """Change a letter; every other time to a digit, so that it stays a signature."""
        chance, position = self._chance, self._chance.randrange(len(payload) + 1)
        odd = bytes([chance.choice(b"0123456789abcdefABCDEF")]) if chance.random() < 0.5 else chance.choice(_DIGITS)
        return payload[:position] + odd + payload[position + len(odd) :]

    def _insert(self, payload: bytes, texts: Sequence[bytes]) -> bytes:
        """Put a text into, or instead of, a piece; sometimes between two tokens only."""
        positions = [found.start() for found in re.finditer(rb'[\[\]{},:"]', payload)] or [0]
        start = self._chance.choice(positions)
        end = self._chance.choice([start, start + 1, self._chance.choice(positions)])
        return payload[:start] + self._chance.choice(texts) + payload[max(start, end) :]

    def _bytes(self, payload: bytes, room: int) -> bytes:
        chance, found = self._chance, bytearray(payload)
        position = chance.randrange(len(found) + 1)
        dice = chance.random()
        if dice < 0.4 and position < len(found):
            found[position] ^= 1 << chance.randrange(8)
        elif dice < 0.6:
            found.insert(position, chance.randrange(256))
        elif dice < 0.8:
            del found[position : position + chance.randrange(1, 9)]
        else:
            start = chance.randrange(len(found) + 1)
            found[position:position] = found[start : start + chance.randrange(1, 33)]
        return bytes(found[:room])
