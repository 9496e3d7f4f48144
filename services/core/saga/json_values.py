"""Compares JSON values sent to a system with the values that the system shows.

Rule: a number and its text are equal. Some systems show 64-bit numbers as text.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final

_NUMBER: Final = re.compile(r"-?(0|[1-9][0-9]{0,99})(\.[0-9]{1,99})?([eE][+-]?[0-9]{1,3})?", re.ASCII)


def difference(asked: Any, found: Any, path: str = "") -> str | None:
    """Returns the path of the first field with a value other than asked for; None without a difference.

    A field absent from `found` is no difference. A number and its text are equal: some systems show numbers as text.

    Args:
        asked: JSON value sent.
        found: JSON value shown.
        path: Path of both values from the top, each name after a dot.
    """
    if isinstance(asked, Mapping) and isinstance(found, Mapping):
        inner = (difference(asked[name], found[name], f"{path}.{name}") for name in asked if name in found)
        return next((different for different in inner if different), None)
    if isinstance(asked, list | tuple) and isinstance(found, list) and len(asked) == len(found):
        pairs = enumerate(zip(asked, found, strict=True))
        inner = (difference(left, right, f"{path}.{index}") for index, (left, right) in pairs)
        return next((different for different in inner if different), None)
    return None if equal(asked, found) else path.removeprefix(".")


def equal(asked: Any, found: Any) -> bool:
    """True if two JSON values are equal, a number and its text included."""
    # Python's True equals 1; in JSON they differ.
    if isinstance(asked, bool) or isinstance(found, bool):
        return asked is found
    if isinstance(asked, str) is isinstance(found, str):
        return bool(asked == found)
    left, right = _number(asked), _number(found)
    return left is not None and left == right


def _number(value: Any) -> Decimal | None:
    """Returns the number in a JSON number or in a text with the syntax of a JSON number; None for any further value."""
    text = str(value) if isinstance(value, str | int | float) else ""
    return Decimal(text) if _NUMBER.fullmatch(text) else None
