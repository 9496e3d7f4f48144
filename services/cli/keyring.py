"""`lifecycle keyring`: makes the file of secrets (spec section 2)."""

from pathlib import Path
from typing import Annotated

import typer

from services.cli import environment

keyring = typer.Typer(help="The file of secrets.", no_args_is_help=True)


@keyring.callback()
def group() -> None:
    """The file of secrets."""


@keyring.command()
def init(path: Annotated[Path | None, typer.Argument(help="Default: KEYRING_FILE.")] = None) -> None:
    """Make a keyring with one endpoint `default` and fresh key material; never replaces one."""
    from services.cli import keys

    where = path or environment.service().keyring_file
    keys.init(where)
    print(f"{where}: made; the webhook of Genesys is signed with endpoints.default.current.secret")
