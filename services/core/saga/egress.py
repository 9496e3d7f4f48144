"""Egress rules for URLs from an event: pure decisions, made before any socket is opened.

Problem: a tenant names the URL of the tenant's CRM, and the provisioner calls that URL from inside the operator's
network. Without rules a tenant could reach the metadata service of the cloud or an internal host (server-side request
forgery).

Rule: a URL is refused unless the rules allow the URL as a whole. The URL is matched against one narrow regular
expression instead of being parsed, because two parsers may disagree about the host of a strange URL, and the attacker
chooses the weaker parser. A host is allowed only if *every* address of the host is public, because any of the addresses
may be the one in use.

Two checks are needed, in this order: `judge` looks at the text, and `judge_addresses` at the resolved addresses. The
caller must connect to one of the judged addresses and must not resolve the name again: a second resolution may answer
otherwise (DNS rebinding).
Sources: OWASP SSRF prevention; WHATWG URL, "ends in a number"; RFC 6890 and the IANA special-purpose registries.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
# No user, query or fragment, no port but 443, and at least two labels: the endpoint of a CRM needs nothing more.
_URL = re.compile(
    rf"https://(?P<host>{_LABEL}(?:\.{_LABEL})+)(?::443)?(?P<path>(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]*)*)",
    re.IGNORECASE | re.ASCII,
)
# Browsers and some resolvers parse a host with a numeric last label as an IPv4 address (127.0.0.1, 0x7f.1).
_NUMERIC = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
_URL_MAX = 2048
_HOST_MAX = 253
_EMBEDDING = (
    (IPv6Network("::/96"), 0),
    (IPv6Network("::ffff:0:0/96"), 0),
    (IPv6Network("64:ff9b::/96"), 0),
    (IPv6Network("2002::/16"), 80),
)
"""IPv6 networks with an embedded IPv4 address, and the number of bits to the right of the IPv4 address."""
_NEVER = (IPv6Network("64:ff9b:1::/48"), IPv6Network("2001::/32"), IPv6Network("fec0::/10"))
"""Local NAT64, Teredo and site-local addresses: the address does not tell where the packets end, so all are refused."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """An allowed URL in its normal form.

    Attributes:
        host: Host name, lower-cased.
        path: Path without a trailing slash; may be empty.
    """

    host: str
    path: str

    @property
    def url(self) -> str:
        """Returns the judged URL, built from the parsed parts and never from the text of the event."""
        return f"https://{self.host}{self.path}"


@dataclass(frozen=True, slots=True)
class EgressDenied:
    """A forbidden URL or address; `reason` names the rule and never the URL, because a URL may hold secrets."""

    reason: str


def judge(url: str, allow: Sequence[str]) -> Allowed | EgressDenied:
    """Judges a URL from an event by the text alone; nothing is resolved.

    Args:
        url: URL as the event gave it.
        allow: Host patterns: `host.name`, or `*.name` for every host below `name`.

    Returns:
        The URL in its normal form, or the broken rule.
    """
    found = _URL.fullmatch(url) if len(url) <= _URL_MAX else None
    if found is None:
        return EgressDenied("not a plain https URL of a host name on port 443")
    host = found["host"].lower()
    if len(host) > _HOST_MAX or _NUMERIC.fullmatch(host.rpartition(".")[2]):
        return EgressDenied("not a host name")
    # An HTTP client resolves dot segments before it sends, so the request would go to another path than the judged one.
    segments = found["path"].lower().replace("%2e", ".").split("/")
    if ".." in segments or "." in segments:
        return EgressDenied("the path climbs")
    if not any(matches(host, pattern) for pattern in allow):
        return EgressDenied("the host is not on the allow-list")
    return Allowed(host, found["path"].rstrip("/"))


def matches(host: str, pattern: str) -> bool:
    """True if a lower-case host matches a pattern; `*.name` does not match `name` alone."""
    wanted = pattern.lower()
    if wanted.startswith("*."):
        # The dot stays in the suffix: `evilsalesforce.com` must not match `*.salesforce.com`.
        return len(host) > len(wanted) - 1 and host.endswith(wanted[1:])
    return host == wanted


def mapped(allowed: Allowed, egress_map: Mapping[str, str]) -> str | None:
    """Returns the local substitute for an allowed URL (the first matching pattern wins), or None.

    Args:
        allowed: URL as judged; a refused URL never reaches the map.
        egress_map: Host pattern to local URL. `{host}` in the local URL is replaced with the host, so two hosts stay
            two locations (docs/decisions/0011).
    """
    for pattern, local in egress_map.items():
        if matches(allowed.host, pattern):
            return local.rstrip("/").replace("{host}", allowed.host) + allowed.path
    return None


def judge_addresses(addresses: Sequence[str]) -> EgressDenied | None:
    """Returns None if the host has addresses and every address is public unicast, else the refusal.

    Args:
        addresses: Every address from the resolver, as text.
    """
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
        # A scope id (`fe80::1%eth0`) names an interface of this machine.
        if address.scope_id is not None or any(address in network for network in _NEVER):
            return False
        for network, trailing_bits in _EMBEDDING:
            if address in network:
                # The packets end at the embedded IPv4 address: `::ffff:127.0.0.1` is the loopback address.
                return _is_public_v4(IPv4Address((int(address) >> trailing_bits) & 0xFFFFFFFF))
        # `is_global` alone is true for some multicast and reserved addresses.
        return address.is_global and not (address.is_multicast or address.is_reserved or address.is_link_local)
    return _is_public_v4(address)


def _is_public_v4(address: IPv4Address) -> bool:
    return address.is_global and not (address.is_multicast or address.is_reserved)
