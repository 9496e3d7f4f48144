"""No published text of a configuration contains user, password, query or fragment of a URL."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.values import Json
from services.core.ledger.redaction import redacted

CANARY = "canary"

PROSE = st.sampled_from(
    ["", "see ", "is it? yes, ", "at 12:30 ", "(what?) ", "#5: ", "a b ", "https://good.example/a//b and ", "1\n2\t"]
)
MARKS = st.sampled_from(
    [
        "",
        "//",
        "https://",
        "jdbc:postgresql://",
        "HTTP://",
        "https:\\\\",
        "https:/\\",
        "https:/",
        "x:",
        "a,b://",
        "url=",
    ]
)
UNRESERVED = st.text("abz09-._~!$&'()*+,;=%", max_size=4)
PASSWORDS = st.text("abz09-._~!$&'()*+,;=%:@/?#\\", max_size=4)
HOSTS = st.sampled_from(["host", "host.example:8443", "10.0.0.1", "hôte.example"])
PATHS = st.sampled_from(["", "/", "/db", "//y", "/a/b;c=d", "\\x"])
QUERIES = st.sampled_from(["", "?", "?token=1", "#top"])


@given(PROSE, MARKS, UNRESERVED, PASSWORDS, PASSWORDS, HOSTS, PATHS, QUERIES, PROSE)
def test_no_user_or_password_of_a_url_is_published(
    before: str, mark: str, user: str, one: str, two: str, host: str, path: str, query: str, behind: str
) -> None:
    for secret in (f"{CANARY}{user}:{CANARY}", f"{user}:{CANARY}{one}{CANARY}{two}", f"{user}{CANARY}"):
        assert CANARY not in str(redacted(f"{before}{mark}{secret}@{host}{path}{query} {behind}"))


@given(PROSE, MARKS, HOSTS, PATHS, UNRESERVED, PASSWORDS, st.sampled_from("?#"), PROSE)
def test_no_query_or_fragment_of_a_url_is_published(
    before: str, mark: str, host: str, path: str, name: str, value: str, query: str, behind: str
) -> None:
    for secret in (f"{name}={CANARY}", f"{CANARY}{value}", f"{name}={value} {CANARY}"):
        assert CANARY not in str(redacted(f"{before}{mark}{host}{path}{query}{secret}{behind}"))


PLAIN = ["PT5M", "is it?", "(what?!)", "C#", "é:\\", "@team", "@"]


@given(
    st.lists(st.sampled_from([*PLAIN, "#5"])) | st.lists(st.sampled_from([*PLAIN, "https://Acme.example:8443//a/b;c"]))
)
def test_a_text_without_user_query_and_fragment_is_unchanged(words: list[str]) -> None:
    sentence = " ".join(["-", *words])
    assert redacted(sentence) == sentence


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("https://user:1234 @host/x", "https://host/x"),
        ("https://user:1234\u00a0@host/x", "https://host/x"),
        ("https://ghp_canary @github.com/x", "https://github.com/x"),
        ("https://host/ ?canary", "https://host/ "),
        ("see https://host/ ?canary", "see https://host/ "),
        ("https://h #canary", "https://h "),
        ("see (?https://host/?canary", "see (?https://host/"),
    ],
)
def test_no_blank_or_earlier_delimiter_lets_a_secret_through(text: str, kept: str) -> None:
    assert redacted(text) == kept


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (":canary://@host ", None),
        ("user:canary://x@host/db", None),
        ("see user:canary://x@host/db", None),
        ("jdbc:postgresql://x@host/db", "jdbc:postgresql://host/db"),
        ("jdbc:mysql:loadbalance://x:canary@a,b/db", "jdbc:mysql:loadbalance://a,b/db"),
        ("r2dbc:postgresql://x@host/db", "r2dbc:postgresql://host/db"),
        ("user:word://host/db", "user:word://host/db"),
    ],
)
def test_a_password_that_looks_like_a_scheme_is_not_published(text: str, kept: str | None) -> None:
    assert redacted(text) == kept


@given(st.text(st.characters(exclude_characters="@?#[]", max_codepoint=0x7F)))
def test_a_text_without_the_three_delimiters_is_unchanged(text: str) -> None:
    assert redacted(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_redacting_a_json_value_twice_equals_redacting_once(value: object) -> None:
    once = redacted({"x": value})
    assert once == redacted({"x": value})
    assert redacted(once) == once


def test_the_time_of_a_redaction_grows_linearly_with_the_length() -> None:
    nasty: list[Json | str] = [
        part * (100_000 // len(part)) for part in ("?", "@", "//", "://a:b", "a:", "a ", "@//", ":/")
    ]
    began = time.process_time()
    for text in nasty:
        redacted(text)
        redacted(f"@{text}")
        redacted(f"{text}@ ?x=1")
    assert time.process_time() - began < 5
