"""Reads the organisation files of ORGS_DIR: Genesys API credentials and region.

Rules: a bad file costs a single organisation, never the run. A fault names the field, never the value. A secret leaves
this module only inside `SecretStr`.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from schemas.genesys import Organisation

_WORDS: Final = {
    "json_invalid": "is not JSON",
    "missing": "is missing",
    "extra_forbidden": "is no field of such a file",
    "string_pattern_mismatch": "must be a UUID",
    "string_too_short": "is empty",
}
"""Type of a pydantic error to our words; the library's own texts of these types tell less, or quote the file."""


@dataclass(frozen=True, slots=True)
class Organisations:
    """The contents of the folder.

    Attributes:
        known: Organisations by id.
        faults: Reasons for unusable files, by file name without `.json`; for an unusable folder, by its path.
    """

    known: dict[str, Organisation] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def load(folder: Path) -> Organisations:
    """Read every `{orgId}.json` of a folder. A missing folder counts as empty; an unreadable folder is a fault."""
    found = Organisations()
    try:
        paths = paths_in(folder)
    except FileNotFoundError:
        return found
    except OSError as error:
        found.faults[str(folder)] = f"the folder cannot be read: {error.strerror}"
        return found
    for path in paths:
        read = _organisation(path)
        if isinstance(read, str):
            found.faults[path.stem.lower()] = read
        else:
            found.known[read.org_id] = read
    return found


def load_one(folder: Path, org_id: str) -> Organisation | str:
    """Read the file of a single organisation; return the organisation, or the fault in words."""
    try:
        paths = [path for path in paths_in(folder) if path.stem.lower() == org_id]
    except OSError as error:
        return f"the folder cannot be read: {error.strerror}"
    return _organisation(paths[0]) if paths else "no file"


def paths_in(folder: Path) -> list[Path]:
    """Return the organisation files of a folder, sorted.

    Raises:
        OSError: the folder is missing or cannot be read.
    """
    return sorted(path for path in folder.iterdir() if path.suffix == ".json")


def _organisation(path: Path) -> Organisation | str:
    """Read a file; return the organisation, or the fault in words."""
    try:
        text = path.read_bytes()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    read = parse(text)
    if isinstance(read, Organisation) and read.org_id != path.stem.lower():
        return "org_id: is not the name of the file"
    return read


def parse(text: bytes) -> Organisation | str:
    """Parse the text of a file; return the organisation, or the fault in words."""
    try:
        return Organisation.model_validate_json(text)
    except ValidationError as error:
        # Without input and context: both may quote the client secret.
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'file'}: {_WORDS.get(fault['type'], fault['msg'])}"
            for fault in faults
        )
