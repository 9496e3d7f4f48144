"""Reads the secrets that a plan names: a file for each in SECRETS_DIR, else a value in PLAN_SECRETS.

Rule: a file is read at each use, so a renewed secret counts at once and no restart is needed. A secret is never logged,
and its name is: a missing secret is reported by name.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

SECRET_MAX_BYTES: Final = 1 << 16
"""Size limit of a secret; a larger file is no secret, and counts as missing."""


class NamedSecrets(Mapping[str, str]):
    """Secrets by name; a file counts before a given value."""

    def __init__(self, folder: Path | None, given: Mapping[str, str]) -> None:
        """Prepares the secrets; nothing is read yet.

        Args:
            folder: SECRETS_DIR; None: no files.
            given: PLAN_SECRETS.
        """
        self._folder, self._given = folder, given

    def __getitem__(self, name: str) -> str:
        """Returns a secret without the newline at its end.

        Raises:
            KeyError: no file and no value has this name, or the file cannot be used.
        """
        found = self._from_file(name)
        return self._given[name] if found is None else found

    def __iter__(self) -> Iterator[str]:
        """Yields the names of all secrets."""
        files = sorted(path.name for path in self._folder.iterdir() if _is_name(path.name)) if self._folder else []
        yield from dict.fromkeys((*files, *self._given))

    def __len__(self) -> int:
        """Returns the number of secrets."""
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        """Returns a text without any value."""
        return f"NamedSecrets({self._folder})"

    def _from_file(self, name: str) -> str | None:
        if self._folder is None or not _is_name(name):
            return None
        try:
            with (self._folder / name).open("rb") as file:
                content = file.read(SECRET_MAX_BYTES + 1)
            return content.decode().rstrip("\r\n") if len(content) <= SECRET_MAX_BYTES else None
        except (OSError, UnicodeDecodeError):
            return None


def _is_name(name: str) -> bool:
    # Kubernetes keeps folders such as `..data` beside the files, and a reference must not leave the folder.
    return not name.startswith(".") and "/" not in name
