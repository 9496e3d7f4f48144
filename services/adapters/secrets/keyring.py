"""Reads the keyring file.

Rule: a secret leaves this module only inside `SecretStr` (or as the bytes of `raw`), and an error text quotes no value
of the file.
"""

import re
from pathlib import Path
from typing import Any, Final

from jiter import from_json
from pydantic import SecretStr, ValidationError

from schemas.keyring import Keyring, Material
from services.adapters.process.errors import Unusable

_WHERE: Final = re.compile(r"line \d+ column \d+$")


def load(path: Path) -> Keyring:
    """Read the whole keyring.

    Raises:
        Unusable: the file is missing, not JSON, or not a keyring; the text names fields, never values.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        cure = "; make one with `lifecycle keyring init`" if isinstance(error, FileNotFoundError) else ""
        raise Unusable(f"KEYRING_FILE: {path}: {error.strerror}{cure}") from None
    return parse(text, path)


def parse(text: bytes, path: Path) -> Keyring:
    """Parse the text of a keyring.

    Raises:
        Unusable: the text is not JSON, or not a keyring; the error names `path` and fields, never values.
    """
    try:
        # Pydantic keeps the last of two equal names. An endpoint entered twice would silently lose its first secrets.
        from_json(text, catch_duplicate_keys=True)
        return Keyring.model_validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc'])) or 'file'}: {_rule(f)}" for f in error.errors(include_input=False)]
    except ValueError as error:
        # Only the position is taken from jiter's text: the rest may quote a part of the file.
        where = _WHERE.search(str(error))
        kind = "has a name twice" if "duplicate key" in str(error) else "is not JSON"
        faults = [f"file: {kind}{'' if where is None else ', at ' + where[0]}"]
    raise Unusable("\n".join(f"KEYRING_FILE: {path}: {fault}" for fault in faults)) from None


def _rule(fault: Any) -> str:
    """Return the text of our own validator's error, or else pydantic's text; neither quotes a value."""
    said = fault.get("ctx", {}).get("error")
    return str(said) if fault["type"] == "value_error" else str(fault["msg"])


def material(path: Path) -> Material:
    """Read the system's own key material, in contrast to the endpoints' secrets.

    Raises:
        Unusable: as for `load`, or the file has no key material.
    """
    found = load(path).material
    if found is None:
        raise Unusable(f"KEYRING_FILE: {path}: material: missing; this service needs it")
    return found


def raw(secret: SecretStr) -> bytes:
    """Return a secret's UTF-8 bytes, for use as a key."""
    return secret.get_secret_value().encode()
