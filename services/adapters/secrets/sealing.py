"""Seals values that a step returned and that are secret, before they are stored, and opens them again.

Rule: AES-256-GCM under a key derived (HKDF-SHA256) from the newest `material.outputs`; older ones still open. What is
sealed is bound to its place and opens nowhere else. Equal values at one place seal equally (the nonce is a keyed
hash of both), so that a step whose inputs did not change is seen not to have changed.
"""

import base64
import hmac
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from pydantic import SecretStr

from services.adapters.secrets.keyring import raw

MARK: Final = "$sealed"
_NONCE_BYTES: Final = 12


class Unsealable(Exception):
    """No key of the keyring opens it, or it only looks as if it were sealed."""


class Sealer:
    """Seals with the newest key, opens with any."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        """Derive the keys.

        Args:
            secrets: `material.outputs`, newest first.
        """
        derived = [HKDF(SHA256(), 64, None, b"lifecycle outputs").derive(raw(secret)) for secret in secrets]
        self._keys = [(AESGCM(key[:32]), key[32:]) for key in derived]

    def seal(self, place: str, outputs: Mapping[str, Any], secret: frozenset[str]) -> dict[str, Any]:
        """Seal the outputs named in `secret`; `place` is where they belong (key, generation, step).

        So is any other that looks as if it were sealed: it is a stranger's, and `open` would take it for ours.
        """
        return {
            name: {MARK: self._seal(f"{place}/{name}", value)} if name in secret or _looks_sealed(value) else value
            for name, value in outputs.items()
        }

    def open(self, place: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Open what is sealed.

        Raises:
            Unsealable: no key opens one of them.
        """
        return {
            name: self._open(f"{place}/{name}", value[MARK]) if _looks_sealed(value) else value
            for name, value in outputs.items()
        }

    def _seal(self, place: str, value: Any) -> str:
        cipher, nonce_key = self._keys[0]
        plain = json.dumps(value, sort_keys=True).encode()
        nonce = hmac.digest(nonce_key, place.encode() + b"\0" + plain, "sha256")[:_NONCE_BYTES]
        return base64.b64encode(nonce + cipher.encrypt(nonce, plain, place.encode())).decode()

    def _open(self, place: str, sealed: Any) -> Any:
        try:
            packed = base64.b64decode(sealed, validate=True)
        except (TypeError, ValueError):
            raise Unsealable(place) from None
        if len(packed) < _NONCE_BYTES:
            raise Unsealable(place)
        for cipher, _ in self._keys:
            try:
                return json.loads(cipher.decrypt(packed[:_NONCE_BYTES], packed[_NONCE_BYTES:], place.encode()))
            except InvalidTag:
                continue
        raise Unsealable(place)


def _looks_sealed(value: Any) -> bool:
    return isinstance(value, Mapping) and MARK in value
