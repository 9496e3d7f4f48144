"""Proves that a body was signed with an endpoint's secret; says nothing else about it.

Rule: a claim is 32 bytes before it is compared, both MACs are always computed, and they are compared in constant time.
An unknown endpoint and an absent or expired previous secret cost the same work and prove nothing.
Source: the guide (HMAC-SHA256 over the raw body, hex); RFC 2104.
"""

import re
from dataclasses import dataclass, field
from hmac import compare_digest, digest
from typing import Final

DIGEST_BYTES: Final = 32

_SHAPE: Final = re.compile(rb"(?:sha256=)?([0-9A-Fa-f]{64})")
"""Checked first: `bytes.fromhex` would take spaces, and a comparison of texts raises on what is not ASCII."""

_NOBODY: Final = bytes(DIGEST_BYTES)
"""Key of the MACs computed for nobody. It is public, so a claim that matches it proves nothing."""


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


def claimed(header: bytes) -> bytes | None:
    """The 32 bytes that a signature header claims; None when it has not the shape of one."""
    found = _SHAPE.fullmatch(header)
    return None if found is None else bytes.fromhex(found[1].decode("ascii"))


def verify(secrets: Secrets | None, claim: bytes, body: bytes, now_us: int) -> bool:
    """Whether `claim` is the MAC of `body` under a secret in force.

    Args:
        secrets: Those of the endpoint; None when there is no such endpoint.
        claim: 32 bytes, from `claimed`.
        body: The raw bytes, untouched.
        now_us: Microseconds UTC.
    """
    current = _NOBODY if secrets is None else secrets.current
    previous = None if secrets is None else secrets.previous
    by_current = compare_digest(digest(current, body, "sha256"), claim)
    by_previous = compare_digest(digest(_NOBODY if previous is None else previous, body, "sha256"), claim)
    if secrets is None:
        return False
    return by_current or (by_previous and previous is not None and now_us < secrets.not_after_us)


def sign(secret: bytes, body: bytes) -> str:
    """The signature header that the sender gives: 64 hex digits."""
    return digest(secret, body, "sha256").hex()
