"""Which URLs that came from an event may be called: pure decisions, made before any socket is opened.

Rule: what is not plainly allowed is refused. The URL is matched whole against one narrow shape instead of being parsed
leniently, so no two readers can disagree about its host; and a host is only as good as *every* address it resolves to.
Sources: OWASP SSRF prevention; WHATWG URL, "ends in a number"; RFC 6890 and the IANA special-purpose registries.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_URL = re.compile(
    rf"https://(?P<host>{_LABEL}(?:\.{_LABEL})+)(?::443)?(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)",
    re.IGNORECASE | re.ASCII,
)
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_URL_MAX = 2048
_HOST_MAX = 253
_EMBEDDING = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""Networks whose addresses carry an IPv4 address, and how many bits stand behind it."""
_NEVER = (IPv6Network("64:ff9b:1::/48"), IPv6Network("2001::/32"), IPv6Network("fec0::/10"))
"""Local NAT64, Teredo, site-local: they lead somewhere the address does not say."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """A URL that may be called, in the shape it was judged in.

    Attributes:
        host: Lower-cased.
        path: Without a trailing slash; may be empty.
    """

    host: str
    path: str

    @property
    def url(self) -> str:
        """The URL as judged, never the text it came from."""
        return f"https://{self.host}{self.path}"


@dataclass(frozen=True, slots=True)
class EgressDenied:
    """A URL or an address that may not be called; the reason names the rule, not the URL."""

    reason: str


def judge(url: str, allow: Sequence[str]) -> Allowed | EgressDenied:
    """Judge a URL from an event by its text alone.

    Args:
        url: As the event gave it.
        allow: Host patterns: `host.name`, or `*.name` for everything below `name`.
    """
    found = _URL.fullmatch(url) if len(url) <= _URL_MAX else None
    if found is None:
        return EgressDenied("not a plain https URL of a host name on port 443")
    host = found["host"].lower()
    if len(host) > _HOST_MAX or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return EgressDenied("not a host name")
    segments = found["path"].lower().replace("%2e", ".").split("/")
    if ".." in segments or "." in segments:
        return EgressDenied("the path climbs")
    if not any(matches(host, pattern) for pattern in allow):
        return EgressDenied("the host is not on the allow-list")
    return Allowed(host, found["path"].rstrip("/"))


def matches(host: str, pattern: str) -> bool:
    """Whether a lower-case host is meant by a pattern; `*.name` does not mean `name` itself."""
    wanted = pattern.lower()
    if wanted.startswith("*."):
        return len(host) > len(wanted) - 1 and host.endswith(wanted[1:])
    return host == wanted


def mapped(allowed: Allowed, egress_map: Mapping[str, str]) -> str | None:
    """The local URL that stands for an allowed one (first pattern that means its host), or None.

    Args:
        allowed: As judged.
        egress_map: Host pattern to local URL; `{host}` in it is the host, so that two hosts stay two places.
    """
    for pattern, local in egress_map.items():
        if matches(allowed.host, pattern):
            return local.rstrip("/").replace("{host}", allowed.host) + allowed.path
    return None


def judge_addresses(addresses: Sequence[str]) -> EgressDenied | None:
    """None when there is an address and every one of them is public unicast; one that is not taints them all."""
    if not addresses:
        return EgressDenied("the host has no address")
    if all(_is_public(address) for address in addresses):
        return None
    return EgressDenied("the host resolves to an address that is not public")


def _is_public(text: str) -> bool:
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.scope_id is not None or any(address in network for network in _NEVER):
            return False
        for network, behind in _EMBEDDING:
            if address in network:
                return _is_public_v4(IPv4Address((int(address) >> behind) & 0xFFFFFFFF))
        return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)
    return _is_public_v4(address)


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)
