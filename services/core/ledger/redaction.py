"""Removes the secrets of URLs from the published part of a configuration: user, password, query and fragment.

Problem: people keep passwords and tokens in URLs, and a URL may stand inside a sentence, behind a second scheme
(`jdbc:postgresql://…`), without a scheme, or with backslashes. A parser of URLs finds none of these.

Rule: every text is redacted as a text, word by word. A word of doubtful meaning loses more, never less; a text with an
`@` of unknown meaning becomes None. A text without user, query and fragment stays equal to the byte.
"""

import re
from bisect import bisect_left
from typing import Any, Final
from urllib.parse import urlsplit

_WORD: Final = re.compile(r"\S+")
_MARK: Final = r"(?<![^\s:@])//+"
"""Begin of an authority. A `//` behind a different character belongs to a path, or to a password."""
_USER: Final = re.compile(rf"({_MARK})[^/?#\\]*@")
"""Mark and user. White space is part of the user, as for `urlsplit`: a password may end with a blank."""
_USER_WITHOUT_MARK: Final = re.compile(rf"(?<!\S)(?:(?!{_MARK})\S)+@")
"""User at the begin of a word without scheme, as in `user:password@host`, or with a scheme but without `//`."""
_COLON: Final = re.compile(r":(?!//|\d*(?:[/\\\s]|$))")
"""Colon of neither a scheme nor a port nor a sentence."""
_DATABASE: Final = re.compile(r"[(\[{<\"']*(?:j|r2)dbc:", re.IGNORECASE)
"""Begin of a URL with several schemes, as in `jdbc:postgresql://user@host`."""
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
    if _is_doubtful_user(text[:end]):
        return None
    kept = _USER_WITHOUT_MARK.sub("", _USER.sub(r"\1", text[:end]))
    # An `@` is left in a path or a query. Beside a strange colon or a removed user, the password may have held an
    # unencoded `/`, `?` or `#`, as in `https://user:pass/word@host`: the host and the rest of it cannot be told apart.
    doubtful = "@" in kept or "@" in text[end:]
    return None if doubtful and (kept != text[:end] or _COLON.search(kept)) else kept


def _is_doubtful_user(text: str) -> bool:
    """True if a password may hold the begin of an authority, as in `user:word://x@host` or `//user:word://x@host`.

    A second scheme looks alike: only those of databases are taken for schemes.
    """
    users = [found.start() for found in _USER.finditer(text)]
    for word in _WORD.finditer(text) if users else ():
        inside = users[bisect_left(users, word.start()) : bisect_left(users, word.end())]
        if inside:
            before = text[word.start() : inside[0]].removesuffix(":")
            if len(inside) > 1 or "//" in before or (":" in before and not _DATABASE.match(before)):
                return True
    return False


def _query_start(text: str) -> int:
    """Returns the index of the first query or fragment, or the length of the text."""
    # A query with a space is no rarity, so the whole rest of the text counts as query.
    url = re.search(_MARK, text)
    for word in _WORD.finditer(text):
        # Indices instead of slices: a word of 100,000 question marks must not take quadratic time.
        first = len(word[0]) - len(word[0].lstrip(_OPENING))
        letter = max((found.start() for found in re.finditer(r"\w", word[0])), default=-1)
        equal, mark = word[0].rfind("="), re.search(_MARK, word[0])
        for found in re.finditer("[?#]", word[0]):
            at = found.start()
            # In a sentence `is it?`, `(what?)` and `#5` are no queries. Behind the begin of a URL even `#5` may be a
            # fragment, cut off from the URL by a blank.
            is_behind = url is not None and url.start() < word.start() + at
            in_url = mark is not None and mark.start() < at
            if word[0] == text or in_url or equal > at or (letter > at and (is_behind or at > first)):
                return word.start() + at
    return len(text)
