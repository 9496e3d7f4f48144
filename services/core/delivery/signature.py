"""Verification of webhook signatures: HMAC-SHA256 over the raw body under an endpoint's secret.

Rule: a claimed signature is decoded to 32 bytes first, two MACs are always computed, and both are compared in constant
time. An unknown endpoint and an absent or expired previous secret cost equal work and prove nothing.
Source: the guide (HMAC-SHA256 over the raw body, hex) and RFC 2104.
"""

from binascii import unhexlify
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from hmac import compare_digest, digest
from typing import Final

# Theory. A sender without a secret must learn nothing from the time of an answer: neither the existence of an endpoint,
# nor the existence of a previous secret, nor the number of right digits. So `verify` runs the same operations for every
# input. Missing secrets are replaced by a public dummy key, and `verify` decides about the dummy's result only after
# both comparisons. Never return early, never compare with `==`, and never skip the second MAC.
#
# HMAC hashes a block of 64 bytes made from the key before the message, inside and outside. RFC 2104, section 4 allows
# keeping the two hash states after these blocks: a verification then copies the states and saves two of the four or
# more SHA-256 blocks of a short body.

DIGEST_BYTES: Final = 32
"""Length of a MAC in bytes."""

_PREFIX: Final = b"sha256="
_BLOCK_BYTES: Final = 64
_INNER: Final = bytes(byte ^ 0x36 for byte in range(256))
_OUTER: Final = bytes(byte ^ 0x5C for byte in range(256))
"""Translation tables for the constants ipad and opad of RFC 2104."""


class Proof(IntEnum):
    """The secret under which a body was signed; `NONE` is falsy."""

    NONE = 0
    CURRENT = 1
    PREVIOUS = 2


NONE: Final = Proof.NONE
CURRENT: Final = Proof.CURRENT
PREVIOUS: Final = Proof.PREVIOUS
"""Module constants, because access to an enumeration's member is slower and happens for every request."""


class _Keyed:
    """HMAC-SHA256 under a key, with the hash states after the key's two blocks kept for reuse."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, key: bytes) -> None:
        block = (sha256(key).digest() if len(key) > _BLOCK_BYTES else key).ljust(_BLOCK_BYTES, b"\0")
        self._inner = sha256(block.translate(_INNER))
        self._outer = sha256(block.translate(_OUTER))

    def __call__(self, body: bytes) -> bytes:
        # The kept states must not take the body, so each call works on copies.
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(body)
        outer.update(inner.digest())
        return outer.digest()


_DUMMY_KEY: Final = bytes(DIGEST_BYTES)
"""Key in place of a missing secret. The key is public: a matching claim proves nothing, `verify` ignores a match."""

_DUMMY_MAC: Final = _Keyed(_DUMMY_KEY)


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of an endpoint.

    Attributes:
        current: The secret in force, as bytes.
        previous: The former secret, or None.
        not_after_us: The previous secret is refused from this instant on, microseconds UTC.
        macs: The prepared MACs of both secrets, with the dummy for a missing previous secret.
    """

    current: bytes = field(repr=False)
    previous: bytes | None = field(default=None, repr=False)
    not_after_us: int = 0
    macs: tuple[_Keyed, _Keyed] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keyed = _Keyed(self.current), _DUMMY_MAC if self.previous is None else _Keyed(self.previous)
        object.__setattr__(self, "macs", keyed)


def parse_claim(header: bytes) -> bytes | None:
    """Returns the 32 bytes of a signature header, with or without the prefix `sha256=`; None if malformed."""
    digits = header.removeprefix(_PREFIX)
    if len(digits) != 2 * DIGEST_BYTES:
        return None
    try:
        return unhexlify(digits)  # accepts hex digits only; `bytes.fromhex` would skip spaces
    except ValueError:
        return None


def verify(secrets: Secrets | None, claim: bytes, body: bytes, now_us: int) -> Proof:
    """Returns the secret in force under which `claim` is the MAC of `body`; `NONE` for a forgery.

    Args:
        secrets: The secrets of the endpoint; None for an unknown endpoint.
        claim: 32 bytes, from `claimed`.
        body: The raw bytes of the request, untouched.
        now_us: The present time, microseconds UTC.
    """
    by_current, by_previous = (_DUMMY_MAC, _DUMMY_MAC) if secrets is None else secrets.macs
    is_current = compare_digest(by_current(body), claim)
    is_previous = compare_digest(by_previous(body), claim)
    # Branches on the result are safe only from here on, after both comparisons.
    if secrets is None:
        return NONE
    if is_current:
        return CURRENT
    in_force = secrets.previous is not None and now_us < secrets.not_after_us
    return PREVIOUS if is_previous and in_force else NONE


def sign(secret: bytes, body: bytes) -> str:
    """Returns the signature header of a sender: 64 hex digits."""
    return digest(secret, body, "sha256").hex()
