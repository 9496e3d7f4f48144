"""Strict rules on URLs and paths in a plan given by the operator: origin, plain http, and secrets.

Rules:
- A URL may hold no secret, neither as text nor by a reference: URLs reach the logs of proxies and systems.
- A URL of the operator may depend on nothing that an event gives, or an event could choose a host inside the operator's
  network.
- A URL that the plan gives in full, but does not declare as the operator's, is called under the egress rules. If these
  rules would refuse every call, the plan is refused instead.
- A URL of the operator with a host outside the operator's network needs https.

A value of the environment (`{settings.…}`) is not judged for plain http: the environment is the operator's own.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlsplit

from services.core.saga.egress import EgressDenied, judge, judge_addresses
from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan_forms import Form, PlanKey
from services.core.saga.references import REFERENCE, references

_USER: Final = re.compile(r"[a-z][a-z0-9+.-]*://[^/?#]*@", re.IGNORECASE)
_SECRET: Final = re.compile(r"(secret|passw(or)?d|passphrase|token|api[_-]?key|private[_-]?key)s?", re.IGNORECASE)
_SECRET_PARAMETER: Final = re.compile(r"[?&;]([A-Za-z0-9_.-]+)=([^&;#]+)")
_PRESIGNED: Final = frozenset({"sig", "signature", "x-amz-signature", "x-goog-signature"})
"""Query parameters of a URL that is signed beforehand."""
_OF_URLS: Final = frozenset({Form.URL, Form.BASE_URL, Form.PATH})
_UNKNOWN: Final = "reference"
"""Stands in a URL for a reference without a value at the time of the check."""
_INSIDE: Final = frozenset({
    "local", "localhost", "localdomain", "internal", "intranet", "private", "corp", "home", "lan", "svc", "consul",
    "test", "invalid", _UNKNOWN,
})  # fmt: skip
"""Last labels of hosts inside a network; `home.arpa` is the only further name (RFC 8375, RFC 6762, RFC 2606)."""


@dataclass(frozen=True, slots=True)
class EarlierStep:
    """A step before the checked step.

    Attributes:
        row: The step as written.
        kind: Traits of the step's kind.
    """

    row: Mapping[str, Any]
    kind: KindTraits

    @property
    def outputs(self) -> Collection[str]:
        """Returns the names of the step's outputs."""
        return self.kind.outputs_of(self.row)

    @property
    def is_of_event(self) -> bool:
        """True if an event may name the step's system."""
        return self.row.get("url_from", "event") == "event" and "url_from" in {key.name for key in self.kind.keys}

    def seals(self, output: str) -> bool:
        """True if the output is a secret."""
        return output in self.kind.secret_outputs_of(self.row)


@dataclass(frozen=True, slots=True)
class UrlRules:
    """Facts of the check.

    Attributes:
        settings: Values of `{settings.NAME}`.
        allow: Allow-list of hosts for a URL from an event; None if the allow-list is not known.
        earlier: The earlier steps by name.
    """

    settings: Mapping[str, Any]
    allow: Sequence[str] | None
    earlier: Mapping[str, EarlierStep]


def is_secret_name(name: str) -> bool:
    """True if a name ends with a word for a secret: `client_secret`, `crmApiKey`; false for `tokenUrl`."""
    return any(found.end() == len(name) for found in _SECRET.finditer(name))


def url_faults(row: Mapping[str, Any], kind: KindTraits, rules: UrlRules) -> Iterator[str]:
    """Yields one sentence per fault in the URLs and paths of a step.

    Args:
        row: The step as written; no type is taken for granted.
        kind: Traits of the step's kind.
        rules: Facts of the check.
    """
    is_operators = row.get("url_from") == "operator" or "url_from" not in {key.name for key in kind.keys}
    for key, form, url in _urls(kind.keys, row):
        yield from (f"{key}: {fault}" for fault in _secret_faults(url, kind, rules))
        if form is not Form.PATH:
            fault = _operators_fault(url) if is_operators else _event_fault(url, rules)
            if fault:
                yield f"{key}: {fault}"


def origin_faults(row: Mapping[str, Any], rules: UrlRules) -> Iterator[str]:
    """Yields a fault if a URL that depends on an event is declared as the operator's."""
    if row.get("url_from") != "operator":
        return
    paths = [path.split(".") for path, _ in references(row.get("url", ""))]
    if any(path[0] == "configuration" for path in paths):
        yield 'url_from: must be "event", since the url names the configuration, which an event gives'
    # What a system answers is as little trusted as the origin of the system's URL.
    for name in dict.fromkeys(path[1] for path in paths if path[0] == "steps" and len(path) > 1):
        if name in rules.earlier and rules.earlier[name].is_of_event:
            yield f'url_from: must be "event", since the url names an output of {name}, whose system an event names'


def _urls(keys: Sequence[PlanKey], given: Any, above: str = "") -> Iterator[tuple[str, Form, str]]:
    """Yields name, form and text of every URL and path, those of nested tables included."""
    for key in keys:
        value = given.get(key.name) if isinstance(given, Mapping) else None
        if key.form in _OF_URLS and isinstance(value, str):
            yield above + key.name, key.form, value
        yield from _urls(key.keys, value, f"{above}{key.name}.")


def _secret_faults(url: str, kind: KindTraits, rules: UrlRules) -> Iterator[str]:
    where = " and ".join(sorted(kind.credentials)) or "a header or the body"
    if _USER.match(url):
        yield f"has a user or password in it, and URLs reach logs; take both out and use {where}"
    for name, value in _SECRET_PARAMETER.findall(url):
        is_named = is_secret_name(name) or name.lower() in _PRESIGNED
        # A reference is judged below, by the referenced name.
        if is_named and not REFERENCE.fullmatch(value):
            yield f"has a secret in its query ({name}), and URLs reach logs; take it out and use {where}"
    for path, _ in references(url):
        root, *names = path.split(".")
        sealed = len(names) == 2 and names[0] in rules.earlier and rules.earlier[names[0]].seals(names[1])
        is_named = bool(names) and is_secret_name(names[-1])
        if root == "secrets" or (root == "steps" and sealed) or (root in {"settings", "configuration"} and is_named):
            yield f"{{{path}}} is a secret, and URLs reach logs; take it out and use {where}"


def _event_fault(url: str, rules: UrlRules) -> str:
    """Returns the fault of a URL that the egress rules would refuse for every tenant; empty without a fault."""
    whole = _with_settings(url, rules.settings)
    if whole is None or not whole.startswith(("https://", "http://")):
        return ""  # known only at the call, or refused already by the form of the key
    allow = rules.allow if rules.allow is not None else (_host(whole),)
    denied = judge(whole, allow)
    if not isinstance(denied, EgressDenied):
        return ""
    remedy = "list the host in EGRESS_ALLOW" if "allow-list" in denied.reason else "write https://HOST/PATH"
    return (
        f"would be refused for every tenant as the URL of an event: {denied.reason}; "
        f'say url_from = "operator" if the system is yours, or {remedy}'
    )


def _operators_fault(url: str) -> str:
    """Returns the fault of an operator's URL; empty without a fault."""
    template = REFERENCE.sub(_UNKNOWN, url)
    if not template.startswith(("https://", "http://")):
        return ""
    host = _host(template)
    if not host:
        return "has no host, or a port out of range; write https://HOST or https://HOST:PORT"
    if template.startswith("http://") and _is_outside(host):
        return (
            "sends in clear text to a host outside your network; say https, or give the URL by {settings.…} "
            "if the way there is yours"
        )
    return ""


def _with_settings(url: str, settings: Mapping[str, Any]) -> str | None:
    """Returns the URL with the values of `{settings.…}`; None if anything else is missing in the URL."""
    for path, _ in references(url):
        root, _, name = path.partition(".")
        if root != "settings" or not isinstance(settings.get(name), str):
            return None
    return REFERENCE.sub(lambda found: str(settings[found[1].partition(".")[2]]), url)


def _host(url: str) -> str:
    """Returns the host of a URL in lower case; empty for a URL without a usable host or port."""
    try:
        parts = urlsplit(url)
        is_usable = parts.port != 0  # raises for a port out of range
    except ValueError:
        return ""
    return (parts.hostname or "") if is_usable else ""


def _is_outside(host: str) -> bool:
    """True if a host is a public address, or a name without a sign of a private network."""
    try:
        ip_address(host)
    except ValueError:
        labels = host.rstrip(".").split(".")
        return len(labels) > 1 and labels[-1] not in _INSIDE and labels[-2:] != ["home", "arpa"]
    return judge_addresses([host]) is None
