"""Chooses the next page of a listing: by next link, by number of the page, or by cursor.

Rule: a listing that ends too early would show an existing resource as absent, and a second resource would be made. So a
listing ends only by the system's own sign: no link, no cursor, or an empty page. A listing that leads back to the page
before, or beyond `PAGES_MAX`, proves nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from services.core.rest.description import Listing
from services.core.rest.expressions import found
from services.core.rest.reading import ListedPage
from services.core.rest.requests import absolute

PAGES_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class NextPage:
    """The next page of a listing.

    Attributes:
        url: Whole URL of a next link; None for the URL of the first page with `query`.
        query: Parameters of the page.
    """

    url: str | None = field(default=None, repr=False)
    query: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BrokenListing:
    """The listing cannot be read to its end, so an item that was not found is not absent.

    Attributes:
        reason: The reason in a few words.
    """

    reason: str


def first_page(listing: Listing) -> NextPage:
    """Returns the first page."""
    return NextPage(query={listing.page: listing.first} if listing.page else {})


def next_page(
    listing: Listing, number: int, url: str, document: Mapping[str, Any], page: ListedPage, before: ListedPage | None
) -> NextPage | BrokenListing | None:
    """Returns the page after a page; None after the last.

    Args:
        listing: The listing.
        number: Count of the pages read so far, the present page included.
        url: URL of the present page.
        document: Answer of the present page.
        page: Items of the present page.
        before: Items of the page before; None at the first.
    """
    if before is not None and page.items and page.items == before.items:
        return BrokenListing("two pages of the listing are equal")
    following: NextPage | BrokenListing | None = None
    if listing.next is not None:
        following = _by_link(url, found(listing.next, document))
    elif listing.cursor is not None and listing.cursor_from is not None:
        cursor = found(listing.cursor_from, document)
        is_cursor = isinstance(cursor, str | int) and cursor is not False and cursor != ""
        following = NextPage(query={listing.cursor: cursor}) if is_cursor else None
    elif listing.page is not None and page.items:
        following = NextPage(query={listing.page: listing.first + number})
    if isinstance(following, NextPage) and number >= PAGES_MAX:
        return BrokenListing(f"the listing has more than {PAGES_MAX} pages")
    return following


def _by_link(url: str, link: Any) -> NextPage | BrokenListing | None:
    if link is None or link == "":
        return None
    target = absolute(url, link) if isinstance(link, str) else None
    if target is None:
        return BrokenListing("the next link leads away from the system")
    return BrokenListing("the next link leads to its own page") if target == url else NextPage(target)
