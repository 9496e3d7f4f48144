"""Redaction of URLs for logs and terminals.

Rule: scheme, host, port and path are shown; user, password, query and fragment may hold a secret and are removed.
"""

import re
from typing import Final
from urllib.parse import urlsplit

_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^\s\"'()<>]+", re.IGNORECASE)


def redacted_url(url: str) -> str:
    """Returns scheme, host, port and path of a URL; `(no URL)` for every further text."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port is None else f":{parts.port}"
    except ValueError:
        return "(no URL)"
    # `parts.netloc` would include user and password. `hostname` drops the brackets of an IPv6 address, so they come
    # back here.
    host = parts.hostname or ""
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}{parts.path}" if host else "(no URL)"


def redacted_text(text: str) -> str:
    """Returns a text, as a library's error message, with every URL redacted."""
    return _URL.sub(lambda found: redacted_url(found[0]), text)
