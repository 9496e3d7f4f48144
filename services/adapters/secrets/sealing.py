"""Seals (encrypts) secret outputs of saga steps before the journal stores them, and opens (decrypts) sealed outputs.

Rules:
- AES-256-GCM under a key derived (HKDF-SHA256) from the newest secret of `material.outputs`. Older secrets still open,
  so a key can be rotated.
- A sealed value is bound to its *context* (key, generation, step, name) as associated data, and opens nowhere else.
- Sealing is deterministic: equal values in a context seal equally, so a step's unchanged inputs compare equal. The
  nonce is a keyed hash of context and value. The hash must cover both, since GCM is broken by a nonce used for two
  different inputs.
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
    """A sealed value that no key of the keyring opens, or that was never a sealed value; the text is the context."""


class Sealer:
    """Seals values with the newest key, and opens values with any key of the keyring."""

    def __init__(self, secrets: Sequence[SecretStr]) -> None:
        """Derive the keys.

        Args:
            secrets: `material.outputs`, newest first.
        """
        # 64 bytes each: 32 for AES-256, 32 for the nonce's hash. One key must not serve two purposes.
        derived = [HKDF(SHA256(), 64, None, b"lifecycle outputs").derive(raw(secret)) for secret in secrets]
        self._keys = [(AESGCM(key[:32]), key[32:]) for key in derived]

    def seal(self, context: str, outputs: Mapping[str, Any], secret: frozenset[str]) -> dict[str, Any]:
        """Return the outputs with each secret output replaced by its sealed form.

        Args:
            context: Key, generation and step of the outputs.
            outputs: Values by name.
            secret: Names of the secret outputs.
        """
        # A public output in the form of a sealed one comes from an outside system. It is sealed too, since `open` would
        # otherwise try to decrypt it and fail.
        return {
            name: {MARK: self._seal(f"{context}/{name}", value)} if name in secret or _looks_sealed(value) else value
            for name, value in outputs.items()
        }

    def open(self, context: str, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the outputs with each sealed output replaced by its plain value.

        Raises:
            Unsealable: no key opens a sealed output.
        """
        return {
            name: self._open(f"{context}/{name}", value[MARK]) if _looks_sealed(value) else value
            for name, value in outputs.items()
        }

    def _seal(self, context: str, value: Any) -> str:
        cipher, nonce_key = self._keys[0]
        # Sorted keys: equal objects must give equal bytes, or sealing would not be deterministic.
        plain = json.dumps(value, sort_keys=True).encode()
        nonce = hmac.digest(nonce_key, context.encode() + b"\0" + plain, "sha256")[:_NONCE_BYTES]
        return base64.b64encode(nonce + cipher.encrypt(nonce, plain, context.encode())).decode()

    def _open(self, context: str, sealed: Any) -> Any:
        try:
            packed = base64.b64decode(sealed, validate=True)
        except (TypeError, ValueError):
            raise Unsealable(context) from None
        if len(packed) < _NONCE_BYTES:
            raise Unsealable(context)
        # A sealed value does not name its key, so every key is tried, the newest first. GCM's tag finds the right one.
        for cipher, _ in self._keys:
            try:
                return json.loads(cipher.decrypt(packed[:_NONCE_BYTES], packed[_NONCE_BYTES:], context.encode()))
            except InvalidTag:
                continue
        raise Unsealable(context)


def _looks_sealed(value: Any) -> bool:
    return isinstance(value, Mapping) and MARK in value
