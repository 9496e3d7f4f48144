"""Rulings of operators: an approval or a refusal, by name, of exactly one set of keys.

Rule: a ruling names its set by a digest of the keys. So a ruling for another set rules nothing, whichever brake holds
the removals: the reconciler's before an observation, or the provisioner's before the first destructive call.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from schemas.removal import set_digest
from schemas.values import Key


@dataclass(frozen=True, slots=True)
class RefusedRemovals:
    """An operator's refusal to remove a set of tenants.

    Attributes:
        digest: `removals_digest` (schemas/removal.py) of the whole refused set.
        by: Name of the operator.
        reason: The operator's reason; empty if none was given.
        keys: The refused keys; fewer than the refused set after a later approval of some.
        expires_us: End of the refusal, microseconds UTC.
    """

    digest: str
    by: str
    reason: str
    keys: frozenset[Key]
    expires_us: int


def names(given: str, present: str | None) -> bool:
    """True if an operator's text names the present set; no proof, since every operator sees the digests.

    Args:
        given: The digest that the operator gave.
        present: Digest of the present set; None for an empty set.
    """
    return given == present


def newcomers_digest(keys: Iterable[Key]) -> str:
    """Returns the digest of exactly these new tenants; differs from the digest of a removal of the same keys."""
    return set_digest(keys, "create")


def orphans_digest(resources: Iterable[str]) -> str:
    """Returns the digest of exactly these orphans.

    Args:
        resources: Key, generation and step of each resource, in one text.
    """
    return set_digest(resources, "orphans")


def in_force(refusals: Iterable[RefusedRemovals], now_us: int) -> Mapping[Key, RefusedRemovals]:
    """Returns the refused keys, each with the refusal that lasts longest; without expired refusals.

    Args:
        refusals: Refusals as stored.
        now_us: Our clock, microseconds UTC.
    """
    lasting = sorted((one for one in refusals if now_us < one.expires_us), key=lambda one: one.expires_us)
    return {key: refusal for refusal in lasting for key in refusal.keys}


def without_keys(refusals: Iterable[RefusedRemovals], keys: frozenset[Key], now_us: int) -> tuple[RefusedRemovals, ...]:
    """Returns the refusals to store after an approval of `keys`: without these keys, and without expired refusals."""
    left = (
        RefusedRemovals(one.digest, one.by, one.reason, one.keys - keys, one.expires_us)
        for one in refusals
        if now_us < one.expires_us
    )
    return tuple(one for one in left if one.keys)
