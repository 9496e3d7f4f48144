"""A foreign API described as data: requests, outputs, listings; as pure functions."""

from typing import Any

import pytest

from services.core.rest.description import described
from services.core.rest.expressions import found, holds
from services.core.rest.paging import PAGES_MAX, BrokenListing, NextPage, first_page, next_page
from services.core.rest.reading import WorkState, document_of, item_document, page_of, progress_of, resource_of
from services.core.rest.requests import NoRequest, RestRequest, absolute, at_origin, build, with_query
from services.core.saga.references import Facts, substitute

FACTS = Facts(
    {"name": "o.i.g1", "id": "ac/me?&", "enabled": True}, {"evil": "{secrets.key} ../admin", "n": 7}, {}, {"s": "t"}
)


def _settings(**settings: Any) -> dict[str, Any]:
    filled, missing = substitute(settings, FACTS)
    assert not missing
    return filled


def _build(table: dict[str, Any], base: str = "https://h/v1/", **known: Any) -> RestRequest | NoRequest:
    description = described(_settings(create=table, headers={"X-Key": "{secrets.key?}"}))
    return build(description.create, base, {"secrets": {}, "resource": {}} | known, headers=description.headers)


def test_values_are_encoded_in_a_path_and_keep_their_type_in_a_body() -> None:
    request = _build(
        {
            "path": "/t/{tenant.id}/{configuration.evil}/{resource.id}",
            "query": {"q": "a {tenant.id}", "on": "{tenant.enabled}"},
            "body": {"id": "{resource.id}", "n": "{configuration.n}", "text": "g{configuration.n}", "on": True},
        },
        resource={"id": 12},
    )
    assert isinstance(request, RestRequest)
    assert request.url == ("https://h/v1/t/ac%2Fme%3F%26/%7Bsecrets.key%7D%20..%2Fadmin/12?q=a%20ac%2Fme%3F%26&on=true")
    assert request.body == {"id": 12, "n": 7, "text": "g7", "on": True}


def test_a_tenant_can_name_no_secret() -> None:
    request = _build({"body": {"a": "x {configuration.evil}", "b": "{configuration.evil}"}}, secrets={"key": "hush"})
    assert isinstance(request, RestRequest)
    assert request.body == {"a": "x {secrets.key} ../admin", "b": "{secrets.key} ../admin"}
    assert request.headers == {"X-Key": "hush"}


def test_a_missing_id_or_secret_is_named_and_a_secret_is_in_no_repr() -> None:
    assert _build({"path": "/t/{resource.id}"}) == NoRequest(("resource.id",), "missing: resource.id")
    assert _build({"body": {"k": "{secrets.other}"}}) == NoRequest(("secrets.other",), "missing: secrets.other")
    assert "hush" not in repr(_build({"body": {"k": "{secrets.key}"}}, secrets={"key": "hush"}))


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://h/x", "https://h/x"),
        ("https://h:443/x", "https://h:443/x"),
        ("/x", "https://h/v1/x"),
        ("http://h/x", None),
        ("https://evil/x", None),
        ("https://h@evil/x", None),
        ("https://u:p@h/x", None),
        ("https://h:99999/x", None),
    ],
)
def test_a_url_of_a_system_stays_at_its_origin(url: str, wanted: str | None) -> None:
    assert at_origin("https://h/v1", url) == wanted


def test_a_location_is_made_absolute_and_a_foreign_one_is_left_out() -> None:
    assert document_of("https://h/v1/t", 201, {"location": "t/7"}, None)["headers"] == {"location": "https://h/v1/t/7"}
    assert document_of("https://h/v1/t", 201, {"location": "//evil/7", "a": "b"}, None)["headers"] == {"a": "b"}
    assert absolute("https://h/a", "http://[bad") is None


EMPTY: tuple[Any, ...] = ("", None, False, [], {})
OUTPUTS = {
    "id": "body.id",
    "from_location": "last_segment(headers.location)",
    "text": "body",
    "list": "body.list",
    "bad": "length(body.id)",
}


def test_outputs_are_short_texts_numbers_and_booleans() -> None:
    description = described({"outputs": OUTPUTS})
    shown = document_of("https://h/v1", 201, {"location": "/v1/t/a%20b/?x=1"}, {"id": 2**63, "list": [1]})
    assert resource_of(description, shown).outputs == {"id": 2**63, "from_location": "a b"}
    assert resource_of(description, document_of("https://h", 201, {}, "bare-id")).outputs == {"text": "bare-id"}
    assert resource_of(description, document_of("https://h", 201, {}, "x\n" * 9)).outputs == {}
    assert resource_of(description, document_of("https://h", 204, {}, None)).outputs == {}


def test_work_is_failed_before_ready_and_ready_without_a_condition() -> None:
    description = described({"ready": "body.state == 'on'", "failed": "body.error"})
    assert progress_of(description, item_document({"state": "on", "error": "x"})) is WorkState.FAILED
    assert progress_of(description, item_document({"state": "on", "error": ""})) is WorkState.READY
    assert progress_of(description, item_document({"state": "off"})) is WorkState.PENDING
    assert progress_of(description, item_document(None)) is WorkState.PENDING
    assert progress_of(described({}), item_document(None)) is WorkState.READY


def test_an_expression_without_a_value_never_raises() -> None:
    assert found("length(body)", {"body": 3}) is None
    assert found("no_such(body)", {"body": 3}) is None
    assert holds("body", {"body": 0})
    assert [holds("body", {"body": value}) for value in EMPTY] == [False] * 5


def _find(**find: Any) -> Any:
    found = described(_settings(find={"path": "/t", "match": {"ref": "{tenant.name}"}} | find)).find
    assert found is not None
    return found


def test_only_items_with_every_field_of_ours_match_and_a_number_is_its_text() -> None:
    listing = _find(items="body.items", match={"ref": "{tenant.name}", "meta.n": "{configuration.n}"})
    ours = {"ref": "o.i.g1", "meta": {"n": "7"}}
    items = [ours, {"ref": "o.i.g1"}, {"ref": "o.i.g11", "meta": {"n": 7}}, None, "x", ours | {"id": 2}]
    page = page_of(listing, document_of("https://h", 200, {}, {"items": items}), {})
    assert page is not None
    assert page.ours == [ours, ours | {"id": 2}]
    assert page_of(listing, document_of("https://h", 200, {}, {"itms": []}), {}) is None, "no list proves no absence"


def _next(listing: Any, body: Any, number: int = 1, before: Any = None) -> Any:
    shown = document_of("https://h/t", 200, {}, body)
    page = page_of(listing, shown, {})
    assert page is not None
    return next_page(listing, number, "https://h/t", shown, page, before)


def test_a_listing_goes_on_by_link_by_number_and_by_cursor() -> None:
    link = _find(items="body.items", next="body.next")
    assert first_page(link) == NextPage()
    assert _next(link, {"items": [], "next": "/t?after=1"}) == NextPage("https://h/t?after=1")
    assert _next(link, {"items": [1], "next": None}) is None
    assert _next(link, {"items": [1], "next": "https://evil/t"}) == BrokenListing(
        "the next link leads away from the system"
    )
    assert isinstance(_next(link, {"items": [1], "next": "/t"}), BrokenListing)
    number = _find(page="p", pages_from="0")
    assert first_page(number) == NextPage(query={"p": 0})
    assert _next(number, [1], 3) == NextPage(query={"p": 3})
    assert _next(number, []) is None
    cursor = _find(items="body.items", cursor="after", cursor_from="body.cursor")
    assert _next(cursor, {"items": [], "cursor": "x"}) == NextPage(query={"after": "x"})
    assert [_next(cursor, {"items": [], "cursor": end}) for end in EMPTY[:4]] == [None] * 4
    assert _next(_find(), [1]) is None


def test_a_listing_without_an_end_proves_nothing() -> None:
    number = _find(page="p")
    before = page_of(number, document_of("https://h", 200, {}, [1]), {})
    assert isinstance(_next(number, [1], 2, before), BrokenListing), "the system knows no such parameter"
    assert isinstance(_next(number, [2], PAGES_MAX, before), BrokenListing)


def test_parameters_are_added_to_a_query() -> None:
    assert with_query("https://h/t?a=1", {"b": ["x", 2], "c": False}) == "https://h/t?a=1&b=x&b=2&c=false"
    assert with_query("https://h/t", {}) == "https://h/t"
