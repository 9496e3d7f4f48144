"""Generated files: a make target writes the files, and `make check` compares only."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path


def write_or_compare(files: Mapping[Path, str], arguments: Sequence[str], target: str) -> int:
    """Writes each file with a different content, or names each such file on standard error.

    Args:
        files: The expected text of each file.
        arguments: Arguments of the program: nothing to write, the option of a check to compare.
        target: Make target that writes the files.

    Returns:
        The exit status: 1 if a check finds a difference, else 0.
    """
    differ = [file for file, text in files.items() if not file.is_file() or file.read_text(encoding="utf-8") != text]
    if "--check" not in arguments:
        for file in differ:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(files[file], encoding="utf-8")
        return 0
    here = Path.cwd()
    for file in differ:
        name = file.relative_to(here) if file.is_relative_to(here) else file
        sys.stderr.write(f"{name}: is not what `make {target}` writes; run it\n")
    return 1 if differ else 0
