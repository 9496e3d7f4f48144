"""Reads the keyring file. A secret leaves this module only inside `SecretStr`."""

from pathlib import Path

from pydantic import SecretStr, ValidationError

from schemas.keyring import Keyring, Material
from services.adapters.settings import Unusable


def load(path: Path) -> Keyring:
    """Read the whole keyring.

    Raises:
        Unusable: no such file, not JSON, or not a keyring; the text names fields, never values.
    """
    try:
        return Keyring.model_validate_json(path.read_bytes())
    except OSError as error:
        raise Unusable(f"KEYRING_FILE: {path}: {error.strerror}; make one with `lifecycle keyring init`") from None
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc']))}: {f['type']}" for f in error.errors(include_input=False)]
        raise Unusable("\n".join(f"KEYRING_FILE: {path}: {fault}" for fault in faults)) from None


def material(path: Path) -> Material:
    """Read the house's key material.

    Raises:
        Unusable: as `load`, or the file has none.
    """
    found = load(path).material
    if found is None:
        raise Unusable(f"KEYRING_FILE: {path}: material: missing; this service needs it")
    return found


def raw(secret: SecretStr) -> bytes:
    """The MAC key of a secret: its UTF-8 bytes."""
    return secret.get_secret_value().encode()
