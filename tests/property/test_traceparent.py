"""A text that is no `traceparent` counts as absent wherever a `traceparent` is read: in headers and in rows."""

import json
from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import readable_trace, traceparent
from services.adapters.process import tracing
from services.adapters.process.environment import read
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import readable_calls

HEX: Final = "0123456789abcdef"
WHOLE: Final = st.builds(
    "00-{}-{}-{}".format,
    st.text(HEX, min_size=32, max_size=32).filter(lambda part: part.strip("0")),
    st.text(HEX, min_size=16, max_size=16).filter(lambda part: part.strip("0")),
    st.text(HEX, min_size=2, max_size=2),
)
"""Every well-formed text."""


@st.composite
def broken(draw: st.DrawFn) -> str:
    """A well-formed text with a part cut out, put in or replaced: mostly unreadable."""
    text, at = draw(WHOLE), draw(st.integers(0, 55))
    return text[:at] + draw(st.text(max_size=2)) + text[at + draw(st.integers(0, 3)) :]


ANY: Final = st.one_of(st.text(max_size=60), WHOLE, broken())


@pytest.fixture(scope="module", autouse=True)
def _traces_on() -> Iterator[None]:
    settings = read({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}, ProvisionerSettings)
    with tracing.exporting("provisioner", settings):
        yield


@given(ANY)
def test_an_unreadable_text_has_no_child_and_a_sampled_one_has_a_child_in_its_trace(text: str) -> None:
    own = tracing.child(text)
    is_sampled = readable_trace(text) is not None and int(text[-1], 16) % 2 == 1
    assert (own is not None) is is_sampled
    if own is not None:
        assert readable_trace(own) == own
        assert (own[:36], own[52:]) == (text[:36], text[52:])
        assert own != text


@given(ANY)
def test_header_and_stored_text_are_judged_alike(text: str) -> None:
    read_back = readable_trace(text)
    assert read_back in {None, text}
    assert traceparent([("traceparent", text.encode("utf-8", "surrogatepass"))]) == read_back


@given(WHOLE)
def test_every_well_formed_text_is_read(text: str) -> None:
    assert readable_trace(text) == text


@given(st.dictionaries(st.text(max_size=8), st.one_of(ANY, st.none(), st.integers(), st.lists(st.text()))))
def test_of_the_open_calls_of_a_row_the_readable_ones_count(stored: dict[str, object]) -> None:
    wanted = {at: text for at, text in stored.items() if isinstance(text, str) and readable_trace(text)}
    assert readable_calls(json.dumps(stored)) == wanted


@given(st.one_of(ANY, st.integers(), st.lists(st.text()), st.none()).map(json.dumps))
def test_open_calls_that_are_no_object_are_none(stored: str) -> None:
    assert readable_calls(stored) == {}
