"""The brake on removals: its default limits, and the digest by which an operator approves a set of keys."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from schemas.values import Key

REMOVE_LEAST: Final = 5
REMOVE_PERCENT: Final = 2
"""Without an approval at most the greater of both is removed: a number of tenants, and a percentage
(docs/decisions/0002, docs/decisions/0041)."""


def removals_digest(keys: Iterable[Key]) -> str:
    """Returns the digest of a set of keys: 16 hex digits of the SHA-256 of the sorted keys, joined by line feeds."""
    return sha256("\n".join(sorted(set(keys))).encode()).hexdigest()[:16]
