"""Removes the secrets of URLs from the published part of a configuration: user, password, query and fragment.

Problem: people keep passwords and tokens in URLs, and a URL may stand inside a sentence, behind a second scheme
(`jdbc:postgresql://…`), without a scheme, or with backslashes. A parser of URLs finds none of these.

Rule: every text is redacted as a text, word by word. A word of doubtful meaning loses more, never less; a text with an
`@` of unknown meaning becomes None. A text without user, query and fragment stays equal to the byte.
"""

import re
from typing import Any, Final
from urllib.parse import urlsplit

_WORD: Final = re.compile(r"\S+")
_MARK: Final = r"(?<![^\s:@])//+"
"""Begin of an authority. A `//` behind a different character belongs to a path, or to a password."""
_USER: Final = re.compile(rf"({_MARK})[^/?#\\]*[^/?#\\\s]@")
"""Mark and user. White space is part of the user, as for `urlsplit`, but not before the `@`: see `ask @team`."""
_USER_WITHOUT_MARK: Final = re.compile(rf"(?<!\S)(?:(?!{_MARK})\S)+@")
"""User at the begin of a word without scheme, as in `user:password@host`, or with a scheme but without `//`."""
_COLON: Final = re.compile(r":(?!//|\d*(?:[/\\\s]|$))")
"""Colon of neither a scheme nor a port nor a sentence."""
_OPENING: Final = "([{<\"'"


def redacted(value: Any) -> Any:
    """Returns a JSON value with every text and every name redacted; an invalid text becomes None, without a name."""
    if isinstance(value, dict):
        names = ((_redacted(name), inner) for name, inner in value.items())
        return {name: redacted(inner) for name, inner in names if name is not None}
    if isinstance(value, list):
        return [redacted(inner) for inner in value]
    return _redacted(value) if isinstance(value, str) else value


def _redacted(text: str) -> str | None:
    """Returns a text without user, query and fragment of any URL inside; None for an invalid URL."""
    try:
        urlsplit(text)
    except ValueError:
        return None
    end = _query_start(text)
    kept = _USER_WITHOUT_MARK.sub("", _USER.sub(r"\1", text[:end]))
    # An `@` is left in a path or a query. Beside a strange colon or a removed user, the password may have held an
    # unencoded `/`, `?` or `#`, as in `https://user:pass/word@host`: the host and the rest of it cannot be told apart.
    doubtful = "@" in kept or "@" in text[end:]
    return None if doubtful and (kept != text[:end] or _COLON.search(kept)) else kept


def _query_start(text: str) -> int:
    """Returns the index of the first query or fragment, or the length of the text."""
    # A query with a space is no rarity, so the whole rest of the text counts as query.
    for word in _WORD.finditer(text):
        before, mark, after = _at_query(word[0])
        if mark and (word[0] == text or re.search(_MARK, before) or _is_query(before, after)):
            return word.start() + len(before)
    return len(text)


def _at_query(word: str) -> tuple[str, str, str]:
    """Splits a word at the first `?` or `#`."""
    at = re.search("[?#]", word)
    return (word[: at.start()], at[0], word[at.end() :]) if at else (word, "", "")


def _is_query(before: str, after: str) -> bool:
    """True if the text behind a `?` or `#` in a sentence may be a query; False for `is it?`, `(what?)` and `#5`."""
    return "=" in after or bool(before.lstrip(_OPENING) and re.search(r"\w", after))
