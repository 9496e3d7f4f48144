"""Dates of HTTP headers: read in UTC whatever the machine's zone is, and never a traceback."""

import time
from collections.abc import Iterator

import pytest

from services.adapters.http_dates import http_date_us

AT_US = 1_705_329_130_000_000


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine five hours behind UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    "text",
    [
        "Mon, 15 Jan 2024 14:32:10 GMT",
        "Mon, 15 Jan 2024 14:32:10 -0000",
        "Mon, 15 Jan 2024 14:32:10",
        "Mon, 15 Jan 2024 15:32:10 +0100",
    ],
)
def test_a_date_without_a_zone_is_in_utc(text: str) -> None:
    assert http_date_us(text) == AT_US


@pytest.mark.parametrize("text", ["", " ", "soon", "Mon, 99 Foo 2020", "Thu, 01 Jan 99999 00:00:00 GMT", "\x00"])
def test_a_text_that_is_no_date_is_none(text: str) -> None:
    assert http_date_us(text) is None
