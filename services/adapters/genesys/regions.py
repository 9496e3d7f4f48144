"""The hosts of Genesys Cloud by region.

Rule: a region is named by the AWS name or by the domain; the hosts are `login.DOMAIN` and `api.DOMAIN`.
Source: the platform's list of regions (17, read 2026-11).
"""

from typing import Final

DOMAINS: Final[dict[str, str]] = {
    "us-east-1": "mypurecloud.com",
    "us-east-2": "use2.us-gov-pure.cloud",
    "us-west-2": "usw2.pure.cloud",
    "ca-central-1": "cac1.pure.cloud",
    "mx-central-1": "mxc1.pure.cloud",
    "sa-east-1": "sae1.pure.cloud",
    "eu-west-1": "mypurecloud.ie",
    "eu-west-2": "euw2.pure.cloud",
    "eu-central-1": "mypurecloud.de",
    "eu-central-2": "euc2.pure.cloud",
    "me-central-1": "mec1.pure.cloud",
    "ap-south-1": "aps1.pure.cloud",
    "ap-northeast-1": "mypurecloud.jp",
    "ap-northeast-2": "apne2.pure.cloud",
    "ap-northeast-3": "apne3.pure.cloud",
    "ap-southeast-1": "apse1.pure.cloud",
    "ap-southeast-2": "mypurecloud.com.au",
}


def hosts_of(region: str) -> tuple[str, str] | None:
    """Return the login and the API base URL of a region; None for an unknown region."""
    domain = DOMAINS.get(region, region)
    return (f"https://login.{domain}", f"https://api.{domain}") if domain in DOMAINS.values() else None
