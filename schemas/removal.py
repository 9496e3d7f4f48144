"""The brake on removals: its default limits, and the digest by which an operator approves a set."""

from collections.abc import Iterable
from hashlib import sha256
from typing import Final

from schemas.values import Key

REMOVE_LEAST: Final = 5
REMOVE_PERCENT: Final = 2
"""Without an approval at most the greater of both is removed: a number of tenants, and a percentage
(docs/decisions/0002, docs/decisions/0041)."""

_DIGITS: Final = 16
"""Hex digits of a digest: an operator copies the digest, and has at most a few sets to tell apart."""


def set_digest(texts: Iterable[str], kind: str = "") -> str:
    """Returns the digest of a set of texts: hex digits of the SHA-256 of its lines.

    Args:
        texts: The set; sorted, one line each.
        kind: First line, unless empty: sets of two kinds have different digests.
    """
    lines = [kind] if kind else []
    return sha256("\n".join([*lines, *sorted(set(texts))]).encode()).hexdigest()[:_DIGITS]


def removals_digest(keys: Iterable[Key]) -> str:
    """Returns the digest of a removal of exactly these keys."""
    return set_digest(keys)
