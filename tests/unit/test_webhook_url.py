"""The URL that Genesys is told: no user in it, and nothing that a parser drops."""

import pytest

from services.adapters.process.environment import read
from services.adapters.process.settings import Settings
from services.cli.exits import CommandError, Exit
from services.cli.webhook_registration import registration


@pytest.mark.parametrize(
    "url",
    [
        "https://user@hooks.acme.example/v1/genesys/lifecycle",
        "https://:password@hooks.acme.example/v1/genesys/lifecycle",
        "https://hooks.acme\n.example/v1/genesys/lifecycle",
        "https://hooks.acme.example/v1/genesys/life cycle",
        " https://hooks.acme.example/v1/genesys/lifecycle",
        "https://hooks.\u00e4cme.example/v1/genesys/lifecycle",
    ],
)
def test_a_url_that_two_readers_read_in_two_ways_is_refused(url: str) -> None:
    with pytest.raises(CommandError, match="--url: must be an https URL with a host, in ASCII") as refused:
        registration(read({}, Settings), None, None, url, None)
    assert refused.value.status is Exit.UNUSABLE
    assert "password" not in str(refused.value)
