"""Writes and removes the file of an organisation in ORGS_DIR.

Rule: a file is valid before it is written, replaced as a whole, and readable by its owner alone. Fields not named by a
change are written back as read.
"""

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

import typer

from schemas.genesys import Organisation
from services.adapters.genesys import organisations
from services.cli.exits import CommandError, Exit
from services.cli.files import create_json, replace_json

_SECRET_MAX: Final = 10_000
"""Longest client secret that is read, characters."""


def path_of(folder: Path, org_id: str) -> Path:
    """Returns the path of an organisation's file: the present file in any case of letters, else the path of a new file.

    Raises:
        CommandError: the folder cannot be read (UNUSABLE).
    """
    return paths_by_id(folder).get(org_id, folder / f"{org_id}.json")


def paths_by_id(folder: Path) -> dict[str, Path]:
    """Returns the files of a folder by the name in lower case, without `.json`; empty for a missing folder.

    Raises:
        CommandError: the folder cannot be read (UNUSABLE).
    """
    try:
        paths = organisations.paths_in(folder)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"ORGS_DIR: {folder}: {error.strerror}") from None
    # Of two files whose names differ in the case of letters the first counts.
    return {path.stem.lower(): path for path in reversed(paths)}


def changed(
    former: Organisation | None,
    org_id: str,
    fields: Mapping[str, Any],
    secret: str,
    cleared: Collection[str] = (),
) -> Organisation:
    """Returns an organisation with the fields of a command, on top of the former ones.

    Args:
        former: The present file's content; None for a new or broken file.
        org_id: Organisation id.
        fields: Field of `Organisation` to the given value; None and () keep the former value.
        secret: The client secret.
        cleared: Fields that lose their former values.

    Raises:
        CommandError: a field cannot be used (UNUSABLE).
    """
    content = {} if former is None else _content(former)
    content = {name: value for name, value in content.items() if name not in cleared}
    content |= {name: value for name, value in fields.items() if value not in (None, ())}
    if "client_id" not in content:
        raise CommandError(Exit.UNUSABLE, "--client-id: needed: the id of the OAuth client in Genesys")
    if fields.get("integration_types") or "integration_types" in cleared:
        # The earlier form names a type of its own, which an operator who names the types does not mean any more.
        content.pop("integration_type", None)
    made = organisations.parse(_json({**content, "org_id": org_id, "client_secret": secret}))
    if isinstance(made, str):
        raise CommandError(Exit.UNUSABLE, f"the organisation's file would not be valid: {made}")
    return made


def write(path: Path, organisation: Organisation, *, replace: bool) -> None:
    """Writes the file of an organisation, as a whole or not at all.

    Args:
        path: From `path_of`.
        organisation: The content.
        replace: True to replace a present file.

    Raises:
        CommandError: a file exists (REFUSED), or the folder cannot be written (UNUSABLE).
    """
    content = {**_content(organisation), "client_secret": organisation.client_secret.get_secret_value()}
    try:
        if replace:
            # A symbolic link stays, and its target is replaced, as with the keyring.
            replace_json(path.resolve(), content)
        else:
            create_json(path, content)
    except FileExistsError:
        raise exists(path) from None
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be written: {error.strerror}") from None


def remove(path: Path) -> None:
    """Removes the file of an organisation.

    Raises:
        CommandError: the file cannot be removed (UNUSABLE).
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{path}: cannot be removed: {error.strerror}") from None


def exists(path: Path) -> CommandError:
    """Returns the error for a present file."""
    return CommandError(Exit.REFUSED, f"{path} exists; --replace writes it anew, and keeps what is not named")


def read_secret() -> str:
    """Reads the client secret: from the terminal without echo, else all of standard input.

    Raises:
        CommandError: standard input has no usable secret (UNUSABLE).
        KeyboardInterrupt: Ctrl-C or the end of input at the prompt.
    """
    if sys.stdin.isatty():
        try:
            text = str(typer.prompt("Client secret", hide_input=True, err=True))
        except typer.Abort:
            # click turns Ctrl-C at a prompt into Abort; `main` expects KeyboardInterrupt and ends with 130.
            raise KeyboardInterrupt from None
    else:
        text = sys.stdin.read(_SECRET_MAX + 1)
    secret = text.strip()
    if not secret:
        raise CommandError(Exit.UNUSABLE, "standard input: no client secret; pipe it in, or type it at a terminal")
    if len(secret) > _SECRET_MAX or not (secret.isprintable() and len(secret.split()) == 1):
        raise CommandError(Exit.UNUSABLE, "standard input: not a client secret, which is one word of one line")
    return secret


def _content(organisation: Organisation) -> dict[str, Any]:
    """Returns the fields of a file, without the client secret and without empty fields."""
    content = organisation.model_dump(mode="json", exclude={"client_secret"}, exclude_none=True)
    return {name: value for name, value in content.items() if value != []}


def _json(content: Mapping[str, Any]) -> bytes:
    import json

    return json.dumps(content).encode()
