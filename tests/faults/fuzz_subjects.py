"""The subjects of fuzzing and their invariants for every input: the wire, an authentic body, a signature.

An input is a letter for its subject, a byte that says how it is used, and the payload. Rule: whatever is not as it
should be raises, of whatever kind; a subject that returns found nothing.
"""

import base64
import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

from schemas import codec, webhook
from schemas.codec import Message
from schemas.dead_letter import DeadLetter
from schemas.event import Recheck
from schemas.times import rfc3339
from schemas.topics import DEAD_LETTERS, RECEIVED, named
from schemas.webhook import BODY_MAX_BYTES, Delivery, Malformed, UnknownEvent
from services.core.delivery.signature import Secrets, parse_claim, sign, verify
from services.core.ledger.identity import canonical, identify
from tests.faults import fuzz_http, fuzz_reference
from tests.faults.fuzz_site import BOUND, NOW_US, FuzzSite, Outcome, SenderManner
from tests.support.ingress_process import NARROW, PREVIOUS, SECRET

NAMES: Final = {"w": "wire", "b": "body", "s": "signature"}
CANARY: Final = "Zilpzalp"
"""Planted in bodies; nothing that is said about a body may repeat it."""

SHIFTS_S: Final = (0, 90, -91, 91)
"""How far the unsigned time of a request is from the clock."""

FRAMINGS: Final = ("length", "length", "length", "length", "prefixed", "chunked", "1.0", "cap")
"""How the body is sent, and its signature; the last pads it with spaces, to the cap or one beyond it."""

SIGNERS: Final = {"default": SECRET, "rotated": PREVIOUS, "narrow": NARROW, "nobody": SECRET}
"""Each endpoint that is asked for, and who signs."""

PIECES_BYTES: Final = (1, 2, 3, 5, 11, 64, 300, 4_000)
SENDERS: Final = (SenderManner.READS, SenderManner.READS, SenderManner.CHOKES, SenderManner.LEAVES)

_PEPPER: Final = b"p" * 32
_OTHERS: Final = "x" * 40
_KEYS: Final = tuple(bytes(range(length)) for length in (1, 32, 63, 64, 65, 200))
_PIECES_MAX: Final = 400


class Input(NamedTuple):
    """One input, as its subject reads it."""

    subject: str
    how: int
    payload: bytes

    def written(self) -> bytes:
        return self.subject.encode() + bytes([self.how]) + self.payload


def read(data: bytes) -> Input:
    """Any bytes are an input of some subject."""
    letter, how = data[:1], data[1] if len(data) > 1 else 0
    names = tuple(NAMES)
    name = letter.decode("latin-1") or names[0]
    return Input(name if name in NAMES else names[ord(name) % len(names)], how, data[2:])


def use(*, shift_s: int = 0, endpoint: str = "default", framing: str = "length", again: bool = False) -> int:
    """The byte that says how a body is used."""
    return SHIFTS_S.index(shift_s) | tuple(SIGNERS).index(endpoint) << 2 | FRAMINGS.index(framing) << 4 | again << 7


class Subjects:
    """Everything that is fuzzed, and what was seen so far."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self._noted: list[str] = []
        self._own, self._others = FuzzSite(), FuzzSite(_OTHERS)
        self._run: dict[str, Callable[[int, bytes], None]] = {"w": self._wire, "b": self._body, "s": self._signature}

    def try_one(self, data: bytes) -> frozenset[str]:
        """Let one input happen.

        Returns:
            What was seen of it, for whoever looks for inputs unlike those before.

        Raises:
            Exception: something is not as it should be.
        """
        found = read(data)
        self._noted = [NAMES[found.subject]]
        self._run[found.subject](found.how, found.payload)
        self.seen.update(self._noted)
        return frozenset(self._noted)

    def close(self) -> None:
        self._own.close()
        self._others.close()

    # The wire: any bytes of a connection. They may hold what was signed with our secret, or with another's.

    def _wire(self, how: int, payload: bytes) -> None:
        forged = bool(how & 8)
        site = self._others if forged else self._own
        whole = site.exchange(payload)
        pieces = site.exchange(*_cut(payload, PIECES_BYTES[how & 7]), sender=SENDERS[how >> 4 & 3])
        self._noted += [told.word for told in whole.told]
        _judge_pieces(whole, pieces, SENDERS[how >> 4 & 3])
        if forged:
            assert not any(told.accepts for told in whole.told), "a forgery is accepted"
            assert not whole.records, "a forgery is written"
        else:
            self._judge_requests(payload, whole)

    def _judge_requests(self, payload: bytes, outcome: Outcome) -> None:
        """Each request has the answer that it must have, and what was written is what was signed."""
        known: set[bytes] = set()
        signed = []
        for asked, told in zip(fuzz_http.requests(payload), outcome.told, strict=False):
            if asked is None:
                assert not told.accepts, "what cannot be read is accepted"
                break
            # What was not read to its end, in the answerer's eyes, was no HEAD yet.
            assert asked.method != b"HEAD" or told.status == 400 or not told.content, "HEAD is answered with content"
            if not asked.is_odd and (refused := fuzz_http.edge(asked)):
                assert told.word == refused, f"expected {refused}, not {told.word}"
            elif asked.target in fuzz_http.PATHS and not asked.is_odd:
                read = self._parsed(asked.body)
                # What came just before it may be written by now, or not yet.
                expected = {fuzz_http.word(asked, read, known=seen) for seen in (False, asked.body in known)}
                assert told.word in expected, f"expected {expected}, not {told.word}"
            if told.accepts or told.status == 400:
                known.add(asked.body)
            if told.accepts:
                assert fuzz_http.may_be_accepted(asked), "it is believed, and nobody signed it"
                signed.append(asked.body)
            if told.fields.get("connection") == "close":
                break
        written = [_told_of(topic, message) for topic, message in outcome.records]
        assert {body for body in written if body is not None} <= known, "more is written than was answered so"
        assert set(signed) <= set(written), "accepted, and not written"

    # An authentic body, in a request that is right but for its time.

    def _body(self, how: int, payload: bytes) -> None:
        endpoint, framing = tuple(SIGNERS)[how >> 2 & 3], FRAMINGS[how >> 4 & 7]
        again = bool(how & 128)
        if framing == "cap":
            payload, again = payload.ljust(BODY_MAX_BYTES + again), False
        if framing == "1.0":
            again = False  # its connection ends with the first answer
        told = self._parsed(payload)
        header_us = NOW_US + SHIFTS_S[how & 3] * 1_000_000
        asked = _request(payload, endpoint, header_us, framing)
        outcome = self._own.exchange(*[asked] * (1 + again), sender=SenderManner.WAITS)
        self._noted += [told.word for told in outcome.told]
        assert len(outcome.told) == 1 + again, f"{len(outcome.told)} answers"
        assert CANARY.encode() not in outcome.written, "an answer quotes the body"
        words, known = [], False
        for _ in outcome.told:
            words.append(_expected(told, payload, endpoint, header_us, known=known))
            known = words[-1].startswith("200")
        assert [answer.word for answer in outcome.told] == words, f"expected {words}"
        _judge_records(outcome.records, words, payload, told)

    def _parsed(self, raw: bytes) -> Delivery | Malformed:
        try:
            value, is_json = fuzz_reference.strict(raw), True
        except ValueError:
            value, is_json = None, False
        try:
            read_value, is_read = webhook.read_json(raw), True
        except Malformed:
            read_value, is_read = None, False
        assert (is_json, repr(value)) == (is_read, repr(read_value)), "two readers of JSON differ"
        try:
            told = webhook.parse(raw)
        except Malformed as fault:
            _judge_fault(fault)
            self._noted += [f"fault {fault}", "unknown event" if isinstance(fault, UnknownEvent) else "malformed"]
            return fault
        self._noted.append("parsed")
        _judge_delivery(told, value)
        return told

    # A signature, of whatever shape, over whatever bytes.

    def _signature(self, how: int, payload: bytes) -> None:
        header, _, body = payload.partition(b"\n")
        claim = parse_claim(header)
        assert claim == fuzz_reference.claim_in(header), "another shape"
        self._noted.append("claim" if claim else "no claim")
        current, previous = _KEYS[how % len(_KEYS)], _KEYS[how // len(_KEYS) % len(_KEYS)]
        macs = [fuzz_reference.mac(secret, body) for secret in (current, previous)]
        in_force, expired = Secrets(current, previous, NOW_US + 1), Secrets(current, previous, NOW_US)
        for tried in (claim, *macs, macs[0][:-1] + bytes([macs[0][-1] ^ (how or 1)])):
            if tried is None:
                continue
            assert bool(verify(in_force, tried, body, NOW_US)) == (tried in macs), "rotated"
            assert bool(verify(expired, tried, body, NOW_US)) == (tried == macs[0]), "expired"
            assert bool(verify(Secrets(current), tried, body, NOW_US)) == (tried == macs[0]), "plain"
            assert not verify(None, tried, body, NOW_US), "nobody's endpoint believes"
        assert parse_claim(sign(current, body).encode()) == macs[0], "its own signature"


def _cut(payload: bytes, size: int) -> list[bytes]:
    size = max(size, len(payload) // _PIECES_MAX)
    return [payload[start : start + size] for start in range(0, len(payload), size)]


def _judge_pieces(whole: Outcome, pieces: Outcome, sender: SenderManner) -> None:
    """It is no matter in which pieces bytes come, and whether their sender reads; who leaves has asked for less."""
    words, others = ([told.word for told in outcome.told] for outcome in (whole, pieces))
    if sender is SenderManner.LEAVES:
        words, records = words[: len(others)], whole.records[: len(pieces.records)]
    else:
        records = whole.records
    assert words == others, f"pieces are answered otherwise: {words}, {others}"
    assert records == pieces.records, "pieces are written otherwise"


def _told_of(topic: str, message: Message) -> bytes | None:
    """The body that a record carries; None of a re-check."""
    if topic == named(DEAD_LETTERS, ""):
        return base64.b64decode(codec.decode(DeadLetter, message.value).body_base64 or "")
    is_recheck = codec.texts(message.headers)["ce_type"] == Recheck.ce_type
    return None if is_recheck else message.value


def _request(body: bytes, endpoint: str, header_us: int, framing: str) -> bytes:
    signature = "sha256=" * (framing == "prefixed") + sign(SIGNERS[endpoint].encode(), body)
    chunked = framing == "chunked"
    lines = [
        f"POST /v1/genesys/lifecycle/{endpoint} HTTP/{'1.0' if framing == '1.0' else '1.1'}",
        "Host: localhost",
        "Connection: keep-alive",
        "Content-Type: application/json",
        "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}",
        f"X-Genesys-Signature: {signature}",
        f"X-Genesys-Event-Timestamp: {rfc3339(header_us)}",
    ]
    if chunked:
        halves = body[: len(body) // 2], body[len(body) // 2 :]
        body = b"".join(b"%x\r\n%s\r\n" % (len(half), half) for half in halves if half) + b"0\r\n\r\n"
    return "\r\n".join([*lines, "", ""]).encode() + body


def _expected(told: Delivery | Malformed, body: bytes, endpoint: str, header_us: int, *, known: bool) -> str:
    if len(body) > BODY_MAX_BYTES:
        return "413"
    if endpoint not in BOUND:
        return "401"
    return fuzz_reference.word(told, now_us=NOW_US, header_us=header_us, known=known, bound_to=BOUND[endpoint])


def _judge_records(
    records: Sequence[tuple[str, Message]], words: Sequence[str], body: bytes, told: Delivery | Malformed
) -> None:
    """Every answered delivery is written, in its order, with its bytes unchanged."""
    rest = list(records)
    is_buried = False
    for word in words:
        if word in {"200 queued", "200 duplicate_handled"}:
            topic, message = rest.pop(0)
            assert isinstance(told, Delivery), "accepted, and no delivery"
            assert (topic, message.value) == (named(RECEIVED, ""), body), "another body"
            assert message.key == told.key.encode(), "another key"
            assert CANARY not in str(message.headers), "a header quotes the body"
        elif word in {"200 parked", "400"} and not is_buried:
            topic, message = rest.pop(0)
            letter = codec.decode(DeadLetter, message.value)
            assert topic == named(DEAD_LETTERS, ""), "another topic"
            assert base64.b64decode(letter.body_base64 or "") == body, "another body"
            assert CANARY not in str([letter.detail, letter.headers, message.headers]), "a dead letter quotes the body"
            is_buried = True
    if words[0] == "401" and rest:
        topic, message = rest.pop(0)
        assert _told_of(topic, message) is None, "a refused body is written"
        assert CANARY not in str(message), "a re-check quotes the body"
    assert not rest, "more is written than was answered"


def _judge_fault(fault: Malformed) -> None:
    """It names a field of the schema and a rule, and quotes nothing."""
    assert fault.field in fuzz_reference.FIELDS, "a field of no schema"
    assert str(fault) == f"{fault.field}: {fault.rule}", "another text"
    assert CANARY not in str(fault), "a refusal quotes the body"


def _judge_delivery(told: Delivery, value: object) -> None:
    """Every delivery that the parser accepts is usable by every reader behind it."""
    assert fuzz_reference.SCHEMA.is_valid(value), "the published schema refuses it"
    assert json.dumps(told.body) == json.dumps(value), "another body"
    (claim,) = identify(told, _PEPPER)
    assert claim.uid[:2] in {"e:", "s:", "f:"}, "another tier"
    text = canonical(told.body)
    assert canonical(json.loads(text, parse_int=float)) == text, "its canonical form is not canonical"
    assert told.key == told.key.lower(), "a key in capitals"
    rfc3339(told.at_us)
