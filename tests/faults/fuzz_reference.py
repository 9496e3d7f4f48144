"""A second, independent judgement of a delivery: the reference of the fuzzer.

Rule: nothing here asks the code that is judged. Python's own `json` and `hmac`, the published JSON Schema, and
docs/webhook.md as it is written.
"""

import hmac
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jsonschema import Draft202012Validator

from schemas.webhook import Delivery, Malformed, Probe, UnknownEvent

_SCHEMAS: Final = Path(__file__).parents[2] / "schemas" / "json"
_BODY: Final = json.loads((_SCHEMAS / "genesys.webhook.v1.json").read_text(encoding="utf-8"))
SCHEMA: Final = Draft202012Validator(_BODY)
"""What is published of the body."""

FIELDS: Final = frozenset(
    {"body", *_BODY["properties"]}
    | {f"{n}.{field}" for n in ("configuration", "metadata") for field in _BODY["properties"][n]["properties"]}
)
"""What a refusal may name."""

_INTEGER_MAX: Final = 2**53 - 1
_DEPTH_MAX: Final = 32
_S: Final = 1_000_000
_WINDOW_US: Final = 90 * _S
_OLDEST_US: Final = (20 * 60 + 2 * 90 + 120) * _S
_SIGNATURE: Final = re.compile(rb"(?:sha256=)?([0-9A-Fa-f]{64})")


def strict(raw: bytes) -> Any:
    """The JSON of the specification's profile.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_refuse,
            parse_int=_integer,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("too deep") from None
    _walk(value, _DEPTH_MAX)
    return value


def claim_in(header: bytes) -> bytes | None:
    """The 32 bytes that a signature header claims."""
    found = _SIGNATURE.fullmatch(header)
    return bytes.fromhex(found[1].decode("ascii")) if found else None


def mac(secret: bytes, body: bytes) -> bytes:
    return hmac.new(secret, body, "sha256").digest()


def word(told: Delivery | Malformed, *, now_us: int, header_us: int, known: bool, bound_to: str) -> str:
    """The answer to an authentic delivery: the status, and the word for an accepted one.

    Args:
        told: What is made of its body.
        now_us: The clock.
        header_us: The unsigned time.
        known: These bytes were written before.
        bound_to: The one organisation of its endpoint; `*` is any.
    """
    if isinstance(told, Malformed) and not isinstance(told, UnknownEvent):
        return "400"
    signed_us = now_us if told.at_us is None else told.at_us
    if signed_us > now_us + _WINDOW_US or now_us - signed_us > _OLDEST_US:
        return "401"
    vouched = told.at_us is not None and (told.marked or known)
    if abs(now_us - header_us) > _WINDOW_US and not vouched:
        return "401"
    if told.key is not None and bound_to not in {"*", told.key[:36]}:
        return "403"
    if isinstance(told, UnknownEvent):
        return "200 proved" if isinstance(told, Probe) else "200 parked"
    return "200 duplicate_handled" if known else "200 queued"


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("twice")
    return found


def _refuse(word: str) -> Any:
    raise ValueError(word)


def _integer(digits: str) -> int:
    value = int(digits)
    if abs(value) > _INTEGER_MAX:
        raise ValueError("too large")
    return value


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("not finite")
    return value


def _walk(value: Any, deeper: int) -> None:
    """Refuse what is too deep, and text that is no Unicode."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict | list):
        if not deeper:
            raise ValueError("too deep")
        for inner in value:
            _walk(inner, deeper - 1)
        for inner in value.values() if isinstance(value, dict) else ():
            _walk(inner, deeper - 1)
