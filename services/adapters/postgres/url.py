"""Puts a database's password into its URL, so that programs which compose an environment need not percent-encode it.

Rule: the password of the URL itself counts, as it does for libpq's PGPASSWORD. A URL whose user or password was not
percent-encoded is refused: libpq reads what stands behind its first `@` as the host, and waits for that.
"""

import re
from typing import Final
from urllib.parse import quote

_URL: Final = re.compile(r"(?P<scheme>postgres(?:ql)?://)(?P<place>[^/?]*)(?P<rest>.*)", re.DOTALL)
_OWN: Final = re.compile(r"\bpassword\s*=")


def complete(url: str, password: str | None) -> str:
    """The URL, or the connection string (`host=… user=…`), with the password in it.

    Args:
        url: As PostgreSQL's clients read it.
        password: As it is; None where there is none.

    Raises:
        ValueError: the URL's user or password is not percent-encoded; the text does not repeat it.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        if password is None or _OWN.search(url):
            return url
        escaped = password.replace("\\", "\\\\").replace("'", "\\'")
        return f"{url} password='{escaped}'"
    credentials, _, place = parts["place"].rpartition("@")
    if "@" in credentials or "@" in parts["rest"].partition("?")[0] or _cuts_password(place, parts["rest"]):
        raise ValueError("an @, a / or a ? stands in its user or password; percent-encode it (%40, %2F, %3F)")
    user, _, own = credentials.partition(":")
    if password is None or own:
        return url
    return f"{parts['scheme']}{user}:{quote(password, safe='')}@{place}{parts['rest']}"


def _cuts_password(place: str, rest: str) -> bool:
    """True if the `?` before the parameters stands in a password: what is before the next `@` is no parameter."""
    before, at, _ = rest.removeprefix("?").partition("@")
    _, colon, port = place.rpartition("]")[2].partition(":")
    is_no_port = bool(colon) and not port.split(",")[0].isdecimal()
    return rest.startswith("?") and bool(at) and ("=" not in before or is_no_port)
