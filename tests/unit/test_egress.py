"""The SSRF set: every hostile form of `crmEndpoint`, judged without a socket."""

import pytest

from services.core.saga.egress import Allowed, EgressDenied, judge, judge_addresses, mapped, matches

SALESFORCE = ("*.salesforce.com",)


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("https://acme.salesforce.com", "acme.salesforce.com", ""),
        ("https://acme.salesforce.com/", "acme.salesforce.com", ""),
        ("https://ACME.my.Salesforce.com:443/services/data", "acme.my.salesforce.com", "/services/data"),
    ],
)
def test_a_plain_https_url_of_an_allowed_host_is_allowed(url: str, host: str, path: str) -> None:
    assert judge(url, SALESFORCE) == Allowed(host, path)


@pytest.mark.parametrize(
    "url",
    [
        "http://acme.salesforce.com",
        "https://acme.salesforce.com:8443",
        "https://acme.salesforce.com:443:443",
        "https://user@acme.salesforce.com",
        "https://user:pass@acme.salesforce.com",
        "https://acme.salesforce.com@169.254.169.254",
        "https://169.254.169.254\\@acme.salesforce.com",
        "https://acme.salesforce.com\\@evil.example",
        "https://evil.example#.salesforce.com",
        "https://evil.example?x=.salesforce.com",
        "https://evil.example/.salesforce.com",
        "https://salesforce.com",
        "https://evilsalesforce.com",
        "https://acme.salesforce.com.evil.example",
        "https://acme.salesforce.com.",
        "https://.salesforce.com",
        "https://acme..salesforce.com",
        "https://-acme.salesforce.com",
        "https://acme_x.salesforce.com",
        "https://acme.s\u0430lesforce.com",
        "https://acme。salesforce.com",
        "https://acme.salesforce.com/ ",
        " https://acme.salesforce.com",
        "https://acme.salesforce.com\n",
        "https://acme.salesforce.com\r\nHost: evil.example",
        "https://acme.salesforce.com\t",
        "https://acme.salesforce.com/\x00",
        "https://acme.salesforce.com/a/../../b",
        "https://acme.salesforce.com/%2e%2e/b",
        "https:/acme.salesforce.com",
        "https:acme.salesforce.com",
        "//acme.salesforce.com",
        "file:///etc/passwd",
        "gopher://acme.salesforce.com",
        "",
        "https://" + "a" * 64 + ".salesforce.com",
        "https://acme.salesforce.com/" + "a" * 3000,
    ],
)
def test_any_other_form_of_url_is_refused(url: str) -> None:
    assert isinstance(judge(url, SALESFORCE), EgressDenied)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "017700000001",
        "0.0.0.0",
        "[::1]",
        "[::ffff:169.254.169.254]",
        "169.254.169.254",
        "1.2.3.0x4",
        "localhost",
    ],
)
def test_an_address_or_a_bare_name_is_refused_even_where_every_host_is_allowed(host: str) -> None:
    assert isinstance(judge(f"https://{host}/", (host, "*.1", "*.254", "*.0x4")), EgressDenied)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.1",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001::1",
        "2001:db8::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "not an address",
        "",
    ],
)
def test_a_host_with_a_non_public_address_is_refused(address: str) -> None:
    assert isinstance(judge_addresses([address]), EgressDenied)
    assert isinstance(judge_addresses(["93.184.215.14", address]), EgressDenied)


@pytest.mark.parametrize("address", ["93.184.215.14", "8.8.8.8", "2606:2800:21f:cb07::1", "64:ff9b::808:808"])
def test_a_public_address_is_allowed(address: str) -> None:
    assert judge_addresses([address]) is None


def test_a_host_without_an_address_is_refused() -> None:
    assert isinstance(judge_addresses([]), EgressDenied)


def test_the_map_replaces_the_host_and_keeps_the_path() -> None:
    allowed = judge("https://acme.salesforce.com/services", SALESFORCE)
    assert isinstance(allowed, Allowed)
    assert mapped(allowed, {"*.salesforce.com": "http://127.0.0.1:9/crm/"}) == "http://127.0.0.1:9/crm/services"
    assert mapped(allowed, {"*.example.com": "http://127.0.0.1:9"}) is None


def test_two_hosts_of_one_pattern_are_mapped_to_two_locations() -> None:
    local = {"*.salesforce.com": "http://127.0.0.1:9/crm/{host}"}
    allowed = [judge(f"https://{name}.salesforce.com/a", SALESFORCE) for name in ("Acme", "acme2")]
    found = [mapped(one, local) for one in allowed if isinstance(one, Allowed)]
    assert found == [f"http://127.0.0.1:9/crm/{name}.salesforce.com/a" for name in ("acme", "acme2")]


def test_a_star_matches_subdomains_and_not_the_domain_itself() -> None:
    assert matches("a.b.salesforce.com", "*.salesforce.com")
    assert not matches("salesforce.com", "*.salesforce.com")
    assert not matches("xsalesforce.com", "*.salesforce.com")
    assert matches("crm.example.com", "CRM.example.com")
