"""Files that others may read at any moment, or never: written whole, by rename, readable by their owner alone."""

import json
import os
from pathlib import Path
from typing import Any


def replace(path: Path, text: str) -> None:
    """Put `text` in place of whatever is at `path`; a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    staging = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(staging, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    staging.rename(path)


def replace_json(path: Path, value: Any) -> None:
    """`replace` with the JSON of a value."""
    replace(path, json.dumps(value, indent=2) + "\n")
