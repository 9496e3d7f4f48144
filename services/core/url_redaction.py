"""URLs as they may be shown: a user, a password and a query may hold a secret, scheme, host, port and path do not."""

import re
from typing import Final
from urllib.parse import urlsplit

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'()<>]+", re.IGNORECASE)


def shown(url: str) -> str:
    """The scheme, host, port and path of a URL; of what is no URL, nothing."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "(no URL)"
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}" if host else "(no URL)"


def shown_in(text: str) -> str:
    """A library's words with every URL in them as it may be shown."""
    return _URL.sub(lambda found: shown(found[0]), text)
