"""Proves that a body was signed with an endpoint's secret; says nothing else about it.

Rule: a claim is 32 bytes before it is compared, both MACs are always computed, and they are compared in constant time.
An unknown endpoint and an absent or expired previous secret cost the same work and prove nothing.
Source: the guide (HMAC-SHA256 over the raw body, hex); RFC 2104, whose section 4 keeps the keyed states: half the work.
"""

from binascii import unhexlify
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

DIGEST_BYTES: Final = 32

_PREFIX: Final = b"sha256="
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))


class Proof(IntEnum):
    """The secret that proved a body; none is false."""

    NONE = 0
    CURRENT = 1
    PREVIOUS = 2


NONE: Final = Proof.NONE
CURRENT: Final = Proof.CURRENT
PREVIOUS: Final = Proof.PREVIOUS
"""Read once: an enumeration looks its members up each time, and this is asked at every request."""


class _Keyed:
    """HMAC-SHA256 under one key, of which both hashes have taken their block already."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def __call__(self, body: bytes) -> bytes:
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()


_NOBODY: Final = bytes(DIGEST_BYTES)
"""Key of the MACs computed for nobody. It is public, so a claim that matches it proves nothing."""

_MAC_OF_NOBODY: Final = _Keyed(_NOBODY)


@dataclass(frozen=True, slots=True)
class Secrets:
    """What may sign for one endpoint.

    Attributes:
        current: The secret in force, as bytes.
        previous: The one before it, or None.
        not_after_us: The previous secret is refused from this instant on, microseconds UTC.
    """

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)
    not_after_us: int = 0
    macs: tuple[_Keyed, _Keyed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keyed = _Keyed(self.current), _MAC_OF_NOBODY if self.previous is None else _Keyed(self.previous)
        object.__setattr__(self, "macs", keyed)


def claimed(header: bytes) -> bytes | None:
    """The 32 bytes that a signature header claims; None when it has not the shape of one."""
    digits = header.removeprefix(_PREFIX)
    if len(digits) != 2 * DIGEST_BYTES:
        return None
    try:
        return unhexlify(digits)  # nothing but digits; `bytes.fromhex` would take spaces
    except ValueError:
        return None


def verify(secrets: Secrets | None, claim: bytes, body: bytes, now_us: int) -> Proof:
    """Return which secret in force `claim` is the MAC of `body` under; `NONE`, which is false, for a forgery.

    Args:
        secrets: Those of the endpoint; None when there is no such endpoint.
        claim: 32 bytes, from `claimed`.
        body: The raw bytes, untouched.
        now_us: Microseconds UTC.
    """
    by_current, by_previous = (_MAC_OF_NOBODY, _MAC_OF_NOBODY) if secrets is None else secrets.macs
    is_current = compare_digest(by_current(body), claim)
    is_previous = compare_digest(by_previous(body), claim)
    if secrets is None:
        return NONE
    if is_current:
        return CURRENT
    in_force = secrets.previous is not None and now_us < secrets.not_after_us
    return PREVIOUS if is_previous and in_force else NONE


def sign(secret: bytes, body: bytes) -> str:
    """The signature header that the sender gives: 64 hex digits."""
    return digest(secret, body, "sha256").hex()
