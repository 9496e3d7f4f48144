"""Reads the keyring file. A secret leaves this module only inside `SecretStr`; a fault quotes nothing of the file."""

import re
from pathlib import Path
from typing import Any, Final

from jiter import from_json
from pydantic import SecretStr, ValidationError

from schemas.keyring import Keyring, Material
from services.adapters.process.settings import Unusable

_WHERE: Final = re.compile(r"line \d+ column \d+$")


def load(path: Path) -> Keyring:
    """Read the whole keyring.

    Raises:
        Unusable: no such file, not JSON, or not a keyring; the text names fields, never values.
    """
    try:
        text = path.read_bytes()
    except OSError as error:
        cure = "; make one with `lifecycle keyring init`" if isinstance(error, FileNotFoundError) else ""
        raise Unusable(f"KEYRING_FILE: {path}: {error.strerror}{cure}") from None
    return parse(text, path)


def parse(text: bytes, path: Path) -> Keyring:
    """Read the text of a keyring.

    Raises:
        Unusable: not JSON, or not a keyring; the text names `path` and fields, never values.
    """
    try:
        # Of two endpoints of one name the first would be gone without a word.
        from_json(text, catch_duplicate_keys=True)
        return Keyring.model_validate_json(text)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, f['loc'])) or 'file'}: {_rule(f)}" for f in error.errors(include_input=False)]
    except ValueError as error:
        where = _WHERE.search(str(error))
        kind = "has a name twice" if "duplicate key" in str(error) else "is not JSON"
        faults = [f"file: {kind}{'' if where is None else ', at ' + where[0]}"]
    raise Unusable("\n".join(f"KEYRING_FILE: {path}: {fault}" for fault in faults)) from None


def _rule(fault: Any) -> str:
    """What a validator of ours says, or pydantic's sentence; neither quotes a value."""
    said = fault.get("ctx", {}).get("error")
    return str(said) if fault["type"] == "value_error" else str(fault["msg"])


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
