"""The content of a keyring file, as JSON: a new keyring, a new endpoint, a rotated secret.

Rule: no secret is replaced silently. The former one stays valid until an instant, or the operator gives it up by name.
"""

import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from schemas.keyring import Authority, Endpoint, HintEndpoint, Keyring, Previous
from schemas.times import rfc3339
from schemas.values import Json
from services.adapters.process.clock import now_us
from services.cli.exits import CommandError, Exit
from services.cli.files import create_json

ANYBODY: Final = ("*",)
_SECRET_BYTES = 32
_FINGERPRINT: Final = b"lifecycle keyring fingerprint\0"
"""Separates fingerprints from all further uses of `material.identity`, whose inputs are JSON."""
_FINGERPRINT_BYTES: Final = 4


def secret() -> str:
    """Returns a new random secret, URL-safe."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def endpoint(
    now_us: int, orgs: Sequence[str] = ANYBODY, integrations: Sequence[str] = ANYBODY, *, restamps: bool = True
) -> Json:
    """Returns an endpoint with a new secret.

    Args:
        now_us: The time, in microseconds since 1970.
        orgs: Organisations bound to the endpoint; `*` for any.
        integrations: Integrations bound to the endpoint; `*` for any.
        restamps: True if the sender changes `eventTimestamp` at a retry.
    """
    return {
        "current": _current(now_us),
        "previous": None,
        "orgs": [*orgs],
        "integrations": [*integrations],
        "restamps": restamps,
    }


def hint_endpoint(
    now_us: int,
    orgs: Sequence[str] = ANYBODY,
    accounts: Sequence[str] = ANYBODY,
    authority: Authority = Authority.API,
) -> Json:
    """Returns an endpoint for hints with a new secret.

    Args:
        now_us: The time, in microseconds since 1970.
        orgs: Organisations bound to the endpoint; `*` for any.
        accounts: AWS accounts bound to the endpoint; `*` for any.
        authority: `EVENT` if audits count as events.
    """
    made = {"current": _current(now_us), "previous": None, "orgs": [*orgs], "accounts": [*accounts]}
    # The default is left out: an earlier release refuses a field that it does not know.
    return made if authority is Authority.API else made | {"authority": authority.value}


def section_of(keyring: Keyring, name: str) -> str | None:
    """Returns the section of the file with an endpoint: `endpoints` or `hints`; None for an unknown name."""
    if name in keyring.endpoints:
        return "endpoints"
    return "hints" if name in keyring.hints else None


def held(keyring: Keyring, name: str) -> Endpoint | HintEndpoint:
    """Returns an endpoint of either sort.

    Raises:
        KeyError: no endpoint has this name.
    """
    return keyring.endpoints[name] if name in keyring.endpoints else keyring.hints[name]


def fresh(now_us: int) -> Json:
    """Returns a keyring with one endpoint `default` and key material (schemas/keyring.py)."""
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
    """Returns the endpoint with a new secret; the former secret stays valid for `overlap_us`, or is dropped for 0."""
    kept = {"secret": endpoint["current"]["secret"], "not_after": rfc3339(now_us + overlap_us)}
    return {**endpoint, "current": _current(now_us), "previous": kept if overlap_us else None}


def fingerprint(key: bytes | None, of: bytes) -> str | None:
    """Returns the keyed fingerprint of a secret; None without a key.

    A plain hash, however short, would confirm a guess of a weak secret. The key is `material.identity`, constant for
    the life of the installation; a holder of this key can read the secrets as well.

    Args:
        key: `material.identity`.
        of: The secret.
    """
    if key is None:
        return None
    return hmac.digest(key, _FINGERPRINT + of, "sha256")[:_FINGERPRINT_BYTES].hex()


def _current(now_us: int) -> Json:
    """Returns a new secret with the time of creation."""
    return {"secret": secret(), "made_at": rfc3339(now_us)}


def counts(previous: Previous | None, now_us: int) -> bool:
    """True if a previous secret is still valid."""
    return previous is not None and now_us < previous.not_after


def init(path: Path) -> None:
    """Writes a new keyring; an existing keyring is never replaced, since a journal may depend on the key `identity`.

    Raises:
        CommandError: a file exists, or the folder cannot be written (UNUSABLE).
    """
    try:
        # Creation and check are one system call (a hard link), so two simultaneous commands cannot replace each other's
        # keyring.
        create_json(path, fresh(now_us()))
    except FileExistsError:
        raise CommandError(Exit.UNUSABLE, f"{path} exists; a keyring is never overwritten") from None
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be made: {error.strerror}") from None
