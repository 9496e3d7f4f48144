"""Makes the keyring of a new installation: random secrets, in a file that its owner alone may read."""

import secrets
from pathlib import Path
from typing import Any

from services.cli.exits import Exit, Failure
from services.cli.files import replace_json

_SECRET_BYTES = 32


def fresh() -> dict[str, Any]:
    """A keyring with one endpoint `default` and key material, as the file holds it (spec section 2)."""

    def secret() -> str:
        return secrets.token_urlsafe(_SECRET_BYTES)

    return {
        "endpoints": {
            "default": {
                "current": {"secret": secret()},
                "previous": None,
                "orgs": ["*"],
                "integrations": ["*"],
                "restamps": True,
            }
        },
        "material": {
            "identity": secret(),
            "configuration": secret(),
            "audit": [secret()],
            "seal": [secret()],
            "outputs": [secret()],
        },
    }


def init(path: Path) -> None:
    """Write a fresh keyring; one that exists is never replaced, since a journal may live by its `identity`.

    Raises:
        Failure: there is one.
    """
    if path.exists():
        raise Failure(Exit.UNUSABLE, f"{path} exists; a keyring is never overwritten")
    replace_json(path, fresh())
