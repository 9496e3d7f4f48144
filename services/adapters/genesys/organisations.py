"""Reads the folder of organisation files. A secret leaves this module only inside `SecretStr`.

Rule: one bad file costs one organisation, never the run; what is wrong is said by field, never by value.
"""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from schemas.genesys import Organisation


@dataclass(frozen=True, slots=True)
class Organisations:
    """What the folder holds.

    Attributes:
        known: By organisation id.
        faults: By file name without `.json`, or by the folder: why it cannot be used.
    """

    known: dict[str, Organisation] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def load(folder: Path) -> Organisations:
    """Read every `{orgId}.json`; a folder that does not exist has none, and one that cannot be read is a fault."""
    found = Organisations()
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".json")
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


def _organisation(path: Path) -> Organisation | str:
    try:
        read = Organisation.model_validate_json(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValidationError as error:
        faults = error.errors(include_input=False, include_url=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['type']}" for fault in faults)
    if read.org_id != path.stem.lower():
        return "org_id: is not the name of the file"
    return read
