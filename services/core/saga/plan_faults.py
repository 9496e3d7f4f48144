"""One fault of a plan: place in the file, and a sentence with the remedy.

Rule: a sentence names the step, the key and the remedy, and never a value of the plan, because a plan may hold a
secret. The caller puts the file's name in front.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_NAME_MAX: Final = 40
_AT: Final = re.compile(r"\(at line (\d+), column \d+\)")
_HEADER: Final = re.compile(r"\s*\[\[\s*step\s*\]\]")
_NAME_LINE: Final = re.compile(r"\s*name\s*=\s*[\"']([^\"']*)[\"']")
_KEY_LINE: Final = re.compile(r"\s*([A-Za-z0-9_-]+)\s*=")
_REMEDIES: Final = (
    ("Invalid value", "put text into double quotes"),
    ("Cannot overwrite", "a key may stand once in a step"),
    ("Duplicate inline table key", "a key may stand once in a table"),
    ("Expected '=' after", "write KEY = VALUE"),
    ("Expected ']]'", "write [[step]], with two brackets on each side"),
    ("initial character for a key", "write one KEY = VALUE a line, and a table in braces on one line"),
    ("inline table", "write a table in braces on one line"),
    ("Unclosed", "close the bracket or the brace"),
    ("Expected newline or end of document", "write one KEY = VALUE a line, and text in one pair of quotes"),
    ("Illegal character", "close the quotes on the line where they begin"),
    ("Unterminated", "close the quotes"),
    ("Unescaped '\\'", "double each backslash, or use single quotes"),
)
"""Words of `tomllib` for a fault, and the usual remedy; the first match counts."""


@dataclass(frozen=True, slots=True)
class PlanFault:
    """One fault.

    Attributes:
        number: Number of the step in the file, from 1; 0 for a fault outside every step.
        name: Name of the step; empty without a usable name.
        key: Key with the fault, a key of a table after a dot; empty for a fault of the step or the file as a whole.
        text: Fault and remedy, without the place.
    """

    number: int
    name: str
    key: str
    text: str

    def __str__(self) -> str:
        """Returns the whole sentence, without the file's name."""
        step = f"step {self.number} ({self.name or 'without a name'})" if self.number else ""
        sentence = ": ".join(part for part in (step, self.key, self.text) if part)
        # A quoted key or name may hold a line break, and a fault is one line.
        return sentence if sentence.isprintable() else sentence.encode("unicode_escape").decode()

    @property
    def is_reference(self) -> bool:
        """True if the text begins with the faulty reference; a key may hold several."""
        return self.text.startswith(("{", "${"))


def of_step(number: int, row: Mapping[str, Any], sentence: str) -> PlanFault:
    """Returns the fault of a step.

    Args:
        number: Number of the step, from 1.
        row: The step as written.
        sentence: Key, a colon, and the text.
    """
    key, _, text = sentence.partition(": ")
    return PlanFault(number, _shown_name(row.get("name")), key, text)


def of_file(sentence: str, key: str = "") -> PlanFault:
    """Returns a fault outside every step."""
    return PlanFault(0, "", key, sentence)


def not_toml(text: str, error: tomllib.TOMLDecodeError) -> PlanFault:
    """Returns the fault of a text that is not TOML: step and key of the line, `tomllib`'s words, and a remedy."""
    said = str(error)
    remedy = next((remedy for words, remedy in _REMEDIES if words in said), "correct the text there")
    found = _AT.search(said)
    lines = text.splitlines()[: int(found[1])] if found else []
    headers = [place for place, line in enumerate(lines) if _HEADER.match(line)]
    names = [name[1] for line in lines[headers[-1] :] if (name := _NAME_LINE.match(line))] if headers else []
    key = _KEY_LINE.match(lines[-1]) if lines else None
    return PlanFault(
        len(headers), _shown_name(names[0] if names else None), key[1] if key else "", f"not TOML: {said}; {remedy}"
    )


def in_order(faults: Sequence[PlanFault]) -> tuple[PlanFault, ...]:
    """Returns the faults in the order of the steps, those of the file first, each sentence once."""
    return tuple(sorted(dict.fromkeys(faults), key=lambda fault: fault.number))


def _shown_name(name: Any) -> str:
    """Returns a name as shown in a sentence: cut, and empty if not a text."""
    if not isinstance(name, str):
        return ""
    return name if len(name) <= _NAME_MAX else name[:_NAME_MAX] + "…"
