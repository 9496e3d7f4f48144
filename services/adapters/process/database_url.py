"""Inserts a database's password into the database's URL, so that DATABASE_PASSWORD needs no percent-encoding.

Rules:
- A password in the URL takes precedence over the separate password, as over libpq's PGPASSWORD.
- A URL with an unencoded user or password is refused. libpq would take the text behind the first `@` for the host, and
  wait for a wrong host.
"""

import re
from typing import Final
from urllib.parse import quote

_URL: Final = re.compile(r"(?P<scheme>postgres(?:ql)?://)(?P<authority>[^/?]*)(?P<rest>.*)", re.DOTALL)
_OWN: Final = re.compile(r"\bpassword\s*=")


def complete(url: str, password: str | None) -> str:
    """Return the URL, or the connection string (`host=… user=…`), with the password inserted.

    Args:
        url: URL or libpq connection string.
        password: The password without any encoding; None for no password.

    Raises:
        ValueError: the URL's user or password is not percent-encoded; the text quotes neither.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        if password is None or _OWN.search(url):
            return url
        escaped = password.replace("\\", "\\\\").replace("'", "\\'")
        return f"{url} password='{escaped}'"
    # The last `@` before the first `/` or `?` ends the credentials. A further `@` before or behind proves an unencoded
    # character in them: an unencoded `/` or `?` would have cut the credentials short.
    credentials, _, address = parts["authority"].rpartition("@")
    if "@" in credentials or "@" in parts["rest"].partition("?")[0] or _cuts_password(address, parts["rest"]):
        raise ValueError("an @, a / or a ? stands in its user or password; percent-encode it (%40, %2F, %3F)")
    user, _, own = credentials.partition(":")
    if password is None or own:
        return url
    return f"{parts['scheme']}{user}:{quote(password, safe='')}@{address}{parts['rest']}"


def _cuts_password(address: str, rest: str) -> bool:
    """True if the first `?` belongs to an unencoded password and does not begin the parameters.

    An `@` must follow. The `?` is then part of a password if the text up to the `@` is no `name=value`, or if the
    supposed port before the `?` is not a number.
    """
    before, at, _ = rest.removeprefix("?").partition("@")
    _, colon, port = address.rpartition("]")[2].partition(":")
    is_no_port = bool(colon) and not port.split(",")[0].isdecimal()
    return rest.startswith("?") and bool(at) and ("=" not in before or is_no_port)
