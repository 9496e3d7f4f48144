"""What stands in a keyring file, as JSON: a fresh one, one more endpoint, another secret. Pure but for the dice.

Rule: a secret is never replaced without a trace: the former one is kept until an instant, or given up by name.
"""

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from schemas.keyring import Previous
from schemas.times import rfc3339
from schemas.values import Json
from services.adapters.process.clock import now_us
from services.cli.exits import CommandError, Exit
from services.cli.files import create_json

ANYBODY: Final = ("*",)
_SECRET_BYTES = 32
_FINGERPRINT: Final = b"lifecycle keyring fingerprint\0"
"""Keeps fingerprints apart from everything else under `material.identity`, which is JSON."""
_FINGERPRINT_BYTES: Final = 4


def secret() -> str:
    """A secret that nobody has."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def endpoint(
    now_us: int, orgs: Sequence[str] = ANYBODY, integrations: Sequence[str] = ANYBODY, *, restamps: bool = True
) -> Json:
    """An endpoint with a fresh secret."""
    return {
        "current": _current(now_us),
        "previous": None,
        "orgs": [*orgs],
        "integrations": [*integrations],
        "restamps": restamps,
    }


def fresh(now_us: int) -> Json:
    """A keyring with one endpoint `default` and key material, as the file holds it (schemas/keyring.py)."""
    return {
        "endpoints": {"default": endpoint(now_us)},
        "material": {
            "identity": secret(),
            "configuration": secret(),
            "audit": [secret()],
            "seal": [secret()],
            "outputs": [secret()],
        },
    }


def rotated(endpoint: Json, now_us: int, overlap_us: int) -> Json:
    """The endpoint with a fresh secret; the one it had counts for `overlap_us` more, and not at all for 0."""
    kept = {"secret": endpoint["current"]["secret"], "not_after": rfc3339(now_us + overlap_us)}
    return {**endpoint, "current": _current(now_us), "previous": kept if overlap_us else None}


def fingerprint(key: bytes | None, of: bytes) -> str | None:
    """Computes the keyed fingerprint of a secret; None without a key.

    A plain hash, however short, would confirm a guess of a weak secret. This one is keyed with `material.identity`,
    which stays the same as long as the installation; whoever has that key has the secrets as well.

    Args:
        key: `material.identity`.
        of: The secret.
    """
    if key is None:
        return None
    return hmac.digest(key, _FINGERPRINT + of, "sha256")[:_FINGERPRINT_BYTES].hex()


def _current(now_us: int) -> Json:
    return {"secret": secret(), "made_at": rfc3339(now_us)}


def counts(previous: Previous | None, now_us: int) -> bool:
    """Whether a previous secret is still believed."""
    return previous is not None and now_us < previous.not_after


def init(path: Path) -> None:
    """Write a fresh keyring; one that exists is never replaced, since a journal may live by its `identity`.

    Raises:
        Failure: there is one, or none can be written there.
    """
    try:
        create_json(path, fresh(now_us()))
    except FileExistsError:
        raise CommandError(Exit.UNUSABLE, f"{path} exists; a keyring is never overwritten") from None
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be made: {error.strerror}") from None
