"""Parses values of options: a choice of words, a span of time, a folder, a path to write.

Rule: an option with an unknown name is refused, and the error lists the valid names.
"""

import os
import re
from collections.abc import Collection, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Final

from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from services.adapters.process.settings import Settings

PLACEHOLDER: Final = "YOU"
"""Stands for the operator in printed commands; never a name."""
TEXT_MOST: Final = 200
"""Characters of a name or a reason: an audit record per key carries both."""
KEY_HELP: Final = "orgId:integrationId, a tenantId, an organisation's id, or the beginning of one of these."
"""Help text of every argument that names a tenant."""

_NEAREST: Final = 3
_ALIKE: Final = 0.75
"""Least ratio of difflib; a letter left out, doubled or exchanged in a word of five is above it."""
_SPAN: Final = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_DURATION: Final = re.compile(
    r"P(?=.)(?:(\d{1,6})D)?(?:T(?=.)(?:(\d{1,6})H)?(?:(\d{1,6})M)?(?:(\d{1,6})S)?)?", re.ASCII
)
"""A duration of ISO 8601 without years, months, weeks and fractions."""
_UNIT_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION_S: Final = (86_400, 3_600, 60, 1)


def one_of(given: str, known: Collection[str], option: str, what: str) -> str:
    """Returns `given` if the word is known.

    Raises:
        CommandError: the word is unknown; the message lists the known words (UNUSABLE).
    """
    if given in known:
        return given
    raise CommandError(
        Exit.UNUSABLE, f"{option}: {given!r} is no {what}{nearest(given, known)}; there are {', '.join(known)}"
    )


def span_us(text: str, option: str, most: str) -> int:
    """Parses a span of time (`30s`, `15m`, `2h`, `7d`, `0`, or a duration of ISO 8601 as `PT1H`) to microseconds.

    Args:
        text: The value.
        option: Name of the option, for the error.
        most: Longest valid span, in the form of `text`.

    Raises:
        CommandError: the text is no span, or the span is longer than `most` (UNUSABLE).
    """
    span_s, most_s = _seconds(text), _seconds(most)
    # `most` is a constant of the program, never an input.
    assert most_s is not None
    if span_s is None or span_s > most_s:
        raise CommandError(
            Exit.UNUSABLE,
            f"{option}: {text!r} is neither 0 nor a number with s, m, h or d nor like PT1H, at most {most}",
        )
    return span_s * 1_000_000


def operator_name(settings: "Settings", by: str | None, reason: str) -> str:
    """Returns the operator's name for the audit trail: `--by`, else `LIFECYCLE_OPERATOR`.

    Raises:
        CommandError: no name is given, or the name or the reason cannot be used (UNUSABLE).
    """
    name = (by or settings.lifecycle_operator or "").strip()
    if not name or name == PLACEHOLDER:
        raise CommandError(
            Exit.UNUSABLE, "--by: say who rules, by --by or LIFECYCLE_OPERATOR; the audit trail keeps the name"
        )
    for option, text in (("--by", name), ("--reason", reason)):
        if len(text) > TEXT_MOST or not text.isprintable():
            raise CommandError(Exit.UNUSABLE, f"{option}: must be printable, and {TEXT_MOST} characters at most")
    return name


def folder(path: Path) -> Path:
    """Returns an existing state folder.

    Raises:
        CommandError: the folder does not exist (UNUSABLE).
    """
    if not path.is_dir():
        raise CommandError(Exit.UNUSABLE, f"--state-dir: {path}: no such folder; `lifecycle up` makes it")
    return path


def writable(path: Path, option: str) -> Path:
    """Returns a writable path; creates the folder.

    Raises:
        CommandError: the path cannot be written, with the reason (UNUSABLE).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"{option}: {path}: its folder cannot be made: {error.strerror}") from None
    if path.is_dir():
        raise CommandError(Exit.UNUSABLE, f"{option}: {path}: is a folder; name a file")
    # The folder decides: the file is replaced by a rename, which needs no right to the old file.
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise CommandError(Exit.UNUSABLE, f"{option}: {path.parent}: no right to write there")
    return path


def nearest(given: str, known: Iterable[str]) -> str:
    """Returns the words nearest to `given` as the end of a sentence; empty if none is near."""
    words, text = {word.lower(): word for word in known}, given.lower()
    prefixed = [word for word in words if text and word.startswith(text)]
    similar = get_close_matches(text, words, n=_NEAREST, cutoff=_ALIKE)
    found = list(dict.fromkeys([*prefixed, *similar]))[:_NEAREST]
    return f"; the nearest: {', '.join(words[word] for word in found)}" if found else ""


def _seconds(text: str) -> int | None:
    """Parses a span of time to seconds; None if the text is no span."""
    if text == "0":
        return 0
    if (found := _SPAN.fullmatch(text)) is not None:
        return int(found[1]) * _UNIT_S[found[2]]
    if (found := _DURATION.fullmatch(text)) is not None:
        return sum(int(number or 0) * unit_s for number, unit_s in zip(found.groups(), _DURATION_S, strict=True))
    return None
