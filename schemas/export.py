"""Writes the JSON Schema (draft 2020-12) of every record and of both bodies from Genesys into `schemas/json`.

Usage: `python -m schemas.export` writes the files. With `--check` the program writes nothing, lists every difference
and ends with status 1 if the list is not empty.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from schemas import hint, webhook
from schemas.audit import Audit
from schemas.dead_letter import DeadLetter
from schemas.event import Event, Observed, Recheck
from schemas.hint_schema import ENVELOPE
from schemas.outcome import Outcome
from schemas.seal import Seal
from schemas.tenant import Desired, Tenant
from schemas.webhook_schema import BODY

FOLDER: Final = Path(__file__).with_name("json")
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
RECORDS: Final = (Event, Observed, Recheck, Desired, Outcome, Tenant, Audit, Seal, DeadLetter)
"""Every record class with a `ce_type`, in the order of an event's journey."""


def documents() -> dict[str, dict[str, Any]]:
    """Returns the JSON Schemas by `ce_type`."""
    found: dict[str, dict[str, Any]] = {webhook.CE_TYPE: BODY, hint.CE_TYPE: ENVELOPE}
    for record in RECORDS:
        found[record.ce_type] = record.model_json_schema(mode="serialization", by_alias=True)
    return {name: {"$schema": _DIALECT, "$id": f"urn:genesys-lifecycle:{name}", **body} for name, body in found.items()}


def files() -> dict[str, str]:
    """Returns the expected text of every file in `FOLDER`, by file name."""
    return {
        f"{name}.json": json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        for name, document in documents().items()
    }


def drift(folder: Path) -> list[str]:
    """Returns the differences between a folder and the expected files, a sentence each."""
    wanted = files()
    present = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return [f"{name} is not a record" for name in sorted(present.keys() - wanted.keys())] + [
        f"{name} {'differs' if name in present else 'is missing'}"
        for name, text in wanted.items()
        if present.get(name) != text
    ]


def write(folder: Path) -> None:
    """Writes the expected files and removes every further `*.json` from the folder."""
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.json"):
        path.unlink()
    for name, text in files().items():
        (folder / name).write_text(text, encoding="utf-8")


def main(arguments: Sequence[str]) -> int:
    """Runs the program and returns the exit status: 1 if `--check` finds a difference, else 0."""
    if "--check" not in arguments:
        write(FOLDER)
        return 0
    found = drift(FOLDER)
    for sentence in found:
        sys.stderr.write(f"schemas/json: {sentence}; run `python -m schemas.export`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
