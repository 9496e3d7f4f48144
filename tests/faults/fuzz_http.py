"""The requests in the bytes of a connection, and how each must be answered: the referee of the wire.

Rule: nothing here asks the code that is judged. RFC 9112 is read strictly, and so is docs/webhook.md;
what this reader cannot read, no ingress may accept.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from schemas.webhook import BODY_MAX_BYTES, Delivery, Malformed
from tests.faults import fuzz_reference
from tests.faults.fuzz_site import BOUND, NOW_US
from tests.support.ingress_process import NARROW, PREVIOUS, SECRET

PATHS: Final = {
    b"/v1/genesys/lifecycle": "default",
    b"/api/v1/genesys/lifecycle": "default",
    **{f"/v1/genesys/lifecycle/{name}".encode(): name for name in (*BOUND, "nobody")},
}
SIGN: Final = {"default": (SECRET,), "rotated": (SECRET, PREVIOUS), "expired": (SECRET,), "narrow": (NARROW,)}
"""Who may sign, endpoint by endpoint."""

_LINE: Final = re.compile(rb"(GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|TRACE)( +)([!-~]+)( +)HTTP/(1\.[01])")
_FIELD: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\x00-\x08\x0a-\x1f\x7f]*?)[ \t]*")
_TARGET: Final = re.compile(rb"[/*A-Za-z]")
_TABBED: Final = re.compile(rb"transfer-encoding:.*\t[ \t]*$", re.IGNORECASE | re.DOTALL)
"""llhttp takes blanks behind a coding for white space, and refuses tabs."""
_FRAMING: Final = (b"content-length", b"transfer-encoding")
_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,8})(;[^\r\n]*)?\r\n")
_EXTENSION: Final = re.compile(rb"(?:;[a-z]+(?:=[a-z]+)?)*")
_HOST: Final = re.compile(rb"([\w.-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{0,5})?")
_EXPECTED: Final = re.compile(rb"[ \t,]*(100-continue[ \t]*(,[ \t,]*|$))*", re.IGNORECASE)
_JSON: Final = re.compile(rb"application/json[ \t]*(?:;.*)?", re.IGNORECASE)
_TIME: Final = re.compile(
    rb"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})"
)


class Request(NamedTuple):
    """One request.

    Attributes:
        method: As it was written.
        target: As it was written.
        version: `1.0` or `1.1`.
        fields: Names in lower case, and values.
        body: Without its chunks' frames.
        is_odd: One may refuse to read it.
    """

    method: bytes
    target: bytes
    version: bytes
    fields: Sequence[tuple[bytes, bytes]]
    body: bytes = b""
    is_odd: bool = False

    def all(self, name: bytes) -> list[bytes]:
        """The values of every field of this name."""
        return [value for other, value in self.fields if other == name]


def requests(data: bytes) -> Iterator[Request | None]:
    """The requests of a connection, in order; None for the first that cannot be read in one way only, and no other."""
    while data := data.lstrip(b"\r\n"):
        head, end, data = data.partition(b"\r\n\r\n")
        line, *lines = head.split(b"\r\n")
        begins, fields = _LINE.fullmatch(line), [_FIELD.fullmatch(field) for field in lines]
        if not end or begins is None or None in fields:
            yield None
            return
        named = [(field[1].lower(), field[2]) for field in fields if field]
        # llhttp refuses a target by its first byte, before it has seen the rest of the head.
        is_odd = len(begins[2] + begins[4]) > 2 or not _TARGET.match(begins[3]) or any(map(_TABBED.match, lines))
        framed = _body(Request(begins[1], begins[3], begins[5], named, is_odd=is_odd), data)
        if framed is None:
            yield None
            return
        found, data = framed
        yield _without_upgrade(found)


def word(asked: Request, told: Delivery | Malformed, *, known: bool) -> str:
    """The due answer to a request to one of `PATHS`.

    Args:
        asked: The request.
        told: What is made of its body, if it is authentic.
        known: Its bytes were written before.
    """
    endpoint = PATHS[asked.target]
    return (
        edge(asked)
        or _shape(asked)
        or _proof(asked, endpoint)
        or fuzz_reference.word(
            told, now_us=NOW_US, header_us=_time_us(asked) or 0, known=known, bound_to=BOUND[endpoint]
        )
    )


def may_be_accepted(asked: Request) -> bool:
    """True if a request to any path may have been accepted."""
    return not edge(asked) and not _shape(asked) and any(not _proof(asked, endpoint) for endpoint in SIGN)


def _body(asked: Request, rest: bytes) -> tuple[Request, bytes] | None:
    """The request with its body, and what is behind it."""
    lengths, codings = asked.all(_FRAMING[0]), asked.all(_FRAMING[1])
    if codings:
        chunked = [coding.lower() for coding in codings] == [b"chunked"] and not lengths and asked.version == b"1.1"
        return _chunks(asked, rest) if chunked else None
    if not lengths:
        return asked, rest
    if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
        return None
    length = int(lengths[0])
    return (asked._replace(body=rest[:length]), rest[length:]) if length <= len(rest) else None


def _without_upgrade(asked: Request) -> Request:
    """What it would be without: whether the field counts towards the caps is nobody's business."""
    rest = asked._replace(fields=[field for field in asked.fields if field[0] != b"upgrade"])
    return rest._replace(is_odd=asked.is_odd or edge(rest) != edge(asked))


def _chunks(asked: Request, rest: bytes) -> tuple[Request, bytes] | None:
    while chunk := _CHUNK.match(rest):
        size, rest = int(chunk[1], 16), rest[chunk.end() :]
        asked = asked._replace(is_odd=asked.is_odd or bool(chunk[2] and not _EXTENSION.fullmatch(chunk[2])))
        if not size:
            trailer, end, behind = (b"\r\n" + rest).partition(b"\r\n\r\n")
            fields = [_FIELD.fullmatch(field) for field in trailer.split(b"\r\n")[1:]]
            return (asked, behind) if end and all(f and f[1].lower() not in _FRAMING for f in fields) else None
        if rest[size : size + 2] != b"\r\n":
            return None
        asked, rest = asked._replace(body=asked.body + rest[:size]), rest[size + 2 :]
    return None


def edge(asked: Request) -> str | None:
    """The refusal of a request to any path for its head; None without one."""
    hosts = asked.all(b"host")
    if len(asked.target) > 8_000:
        return "414"
    if len(asked.fields) > 64 or sum(len(name) + len(value) for name, value in asked.fields) > 16 * 1024:
        return "431"
    if len(hosts) > 1 or (not hosts and asked.version == b"1.1") or not all(map(_HOST.fullmatch, hosts)):
        return "400"
    if not all(map(_EXPECTED.fullmatch, asked.all(b"expect"))):
        return "417"
    if asked.target == b"*":
        return "204" if asked.method == b"OPTIONS" else "400"
    return None


def _shape(asked: Request) -> str | None:
    """The refusal of a request to a webhook's path for its form; None without one."""
    kinds, codings = (asked.all(name) for name in (b"content-type", b"content-encoding"))
    if asked.method != b"POST":
        return "405"
    if len(asked.body) > BODY_MAX_BYTES:
        return "413"
    if len(kinds) != 1 or not _JSON.fullmatch(kinds[0]) or [c.lower() for c in codings] not in ([], [b"identity"]):
        return "415"
    return None


def _proof(asked: Request, endpoint: str) -> str | None:
    """The refusal for a missing or wrong proof; None with a valid proof."""
    signatures = asked.all(b"x-genesys-signature")
    claim = fuzz_reference.claim_in(signatures[0]) if len(signatures) == 1 else None
    macs = [fuzz_reference.mac(secret.encode(), asked.body) for secret in SIGN.get(endpoint, ())]
    return None if claim in macs and _time_us(asked) is not None else "401"


def _time_us(asked: Request) -> int | None:
    times = asked.all(b"x-genesys-event-timestamp")
    if len(times) != 1 or not _TIME.fullmatch(times[0]):
        return None
    try:
        return round(datetime.fromisoformat(times[0].decode()).timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        return None
