"""Builds the requests of a described API: late references are replaced, and the URL stays at its origin.

Rules:

- The value of a reference is percent-encoded in a path, so a tenant's value cannot lead to a different path.
- A URL that a system has given (`Location`, a next link) is used only if scheme, host and port are those of the base
  URL. Otherwise credentials would go to a foreign host.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlencode, urljoin, urlsplit

from services.core.rest.description import Described
from services.core.saga.references import FilledText, as_text, fill_late, late_value

_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class RestRequest:
    """A request to a foreign API.

    Attributes:
        method: HTTP method.
        url: Absolute URL, with query.
        headers: Header fields of the description.
        body: JSON body; None for no body.
        form: Fields of a form body; None for no form.
    """

    method: str
    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Any = field(default=None, repr=False)
    form: Mapping[str, str] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class NoRequest:
    """The request cannot be built.

    Attributes:
        missing: The needed late references without a value.
        reason: The reason in a few words, without values.
    """

    missing: tuple[str, ...]
    reason: str


Known = Mapping[str, Mapping[str, Any]]
"""Values of the late references by root and name."""


def build(
    verb: Described, base: str, known: Known, *, headers: Mapping[str, Any], query: Mapping[str, Any] | None = None
) -> RestRequest | NoRequest:
    """Builds the request of a verb.

    Args:
        verb: The verb, with replaced references but for the late ones.
        base: Base URL of the system.
        known: Values of the late references.
        headers: Header fields of every request of the step.
        query: Further parameters, of the page of a listing.
    """
    path, missing = _path(verb.path, known)
    parts, missing_elsewhere = fill_late(
        {
            "query": {**verb.query, **(query or {})},
            "headers": {**headers, **verb.headers},
            "body": verb.body,
            "form": verb.form,
        },
        known,
    )
    if missing or missing_elsewhere:
        names = tuple(dict.fromkeys((*missing, *missing_elsewhere)))
        return NoRequest(names, f"missing: {', '.join(names)}")
    url = at_origin(base, path)
    if url is None:
        return NoRequest((), "the url leads away from the system")
    return RestRequest(
        verb.method,
        with_query(url, parts["query"]),
        {name: as_text(value) for name, value in parts["headers"].items()},
        parts.get("body"),
        None if parts.get("form") is None else {name: as_text(value) for name, value in parts["form"].items()},
    )


def at_origin(base: str, path: str) -> str | None:
    """Returns the URL of a path below a base URL, or a whole URL; None for a URL of a different origin."""
    if not path.startswith(("http://", "https://")):
        return base.rstrip("/") + path
    return path if same_origin(base, path) else None


def absolute(url: str, relative: str) -> str | None:
    """Returns a URL that a system has given, absolute; None for a URL of a different origin."""
    try:
        target = urljoin(url, relative)
    except ValueError:
        return None
    return target if same_origin(url, target) else None


def same_origin(left: str, right: str) -> bool:
    """True if scheme, host and port of two URLs are equal, and no URL names a user."""
    try:
        one, two = urlsplit(left), urlsplit(right)
        ports = (one.port or _PORTS.get(one.scheme), two.port or _PORTS.get(two.scheme))
    except ValueError:
        return False
    is_plain = one.username is None and two.username is None
    return is_plain and (one.scheme, one.hostname) == (two.scheme, two.hostname) and ports[0] == ports[1]


def with_query(url: str, query: Mapping[str, Any]) -> str:
    """Returns a URL with parameters added to its query; a parameter of an equal name is replaced by neither side."""
    if not query:
        return url
    pairs = [(name, as_text(item)) for name, value in query.items() for item in _values(value)]
    separator = "&" if urlsplit(url).query else "?"
    return url + separator + urlencode(pairs, quote_via=quote, safe="")


def _values(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _path(path: Any, known: Known) -> tuple[str, tuple[str, ...]]:
    """Returns a path with encoded values, and the late references without a value."""
    if not isinstance(path, FilledText):
        return str(path), ()
    if len(path.parts) == 1 and path.parts[0].late is not None:
        # A whole URL from an answer: `at_origin` judges it.
        value = late_value(path.parts[0], known)
        return ("", (path.parts[0].late,)) if value is None else (as_text(value), ())
    written, missing = "", []
    for part in path.parts:
        value = late_value(part, known) if part.late is not None else part.text
        if value is None and not part.optional:
            missing.append(part.late or "")
        encode = part.filled or part.late is not None
        written += quote(as_text(value), safe="") if encode and value is not None else as_text(value or "")
    return written, tuple(missing)
