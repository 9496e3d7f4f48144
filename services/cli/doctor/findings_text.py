"""Prints findings for a person: one line each, the remedy below, and the counts at the end."""

import sys
import textwrap
from collections import Counter
from collections.abc import Sequence
from shutil import get_terminal_size
from typing import Final

from services.cli.doctor.finding import Finding, Health

_MARKS: Final = {Health.WELL: "ok", Health.FAULT: "FAULT", Health.SKIPPED: "-"}
_MARK_WIDTH: Final = 6
_NARROWEST: Final = 60
_NARROWEST_TEXT: Final = 20


def findings_as_json(found: Sequence[Finding]) -> list[dict[str, str]]:
    """Returns findings as JSON."""
    return [{"what": f.what, "health": f.health, "detail": f.detail, "cure": f.cure} for f in found]


def print_findings(found: Sequence[Finding]) -> None:
    """Prints the findings; lines are folded to the width of a terminal, and left whole in a pipe."""
    wide = max(_NARROWEST, get_terminal_size().columns) if sys.stdout.isatty() else 0
    names = max(len(finding.what) for finding in found)
    for finding in found:
        head = f"{_MARKS[finding.health]:<{_MARK_WIDTH}}{finding.what:<{names}}  "
        _print(head, finding.detail, wide)
        if finding.cure:
            # Indented to the column of the detail, so that the remedies stand out of the list of subjects.
            _print(" " * len(head) + "→ ", finding.cure, wide)
    count = Counter(finding.health for finding in found)
    print(f"{count[Health.WELL]} well, {count[Health.FAULT]} faults, {count[Health.SKIPPED]} not looked at")


def _print(head: str, text: str, wide: int) -> None:
    """Prints a text behind its head, folded to `wide` columns; 0 leaves the text whole."""
    width = max(_NARROWEST_TEXT, wide - len(head))
    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False) if wide else [text]
    for number, line in enumerate(lines):
        print((head if number == 0 else " " * len(head)) + line)
