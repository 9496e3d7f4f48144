"""URLs in a form that may be shown to a person."""

import pytest

from services.core.url_redaction import redacted_text, redacted_url


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://user:canary@host:80/path?key=canary#canary", "http://host:80/path"),
        ("https://canary@host", "https://host"),
        ("http://user:can@ry@[::1]:80/", "http://[::1]:80/"),
        ("http://host:canary", "(no URL)"),
        ("http://[canary", "(no URL)"),
        ("canary", "(no URL)"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url: str, text: str) -> None:
    assert redacted_url(url) == text


def test_a_url_in_a_librarys_message_is_shown_without_its_secrets() -> None:
    text = (
        'Error performing HEAD http://u:canary@host:9/a?canary=canary in 1 s: for url (http://u:canary@host:9/b): "x"'
    )
    assert redacted_text(text) == 'Error performing HEAD http://host:9/a in 1 s: for url (http://host:9/b): "x"'
