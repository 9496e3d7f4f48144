"""Reads answers of a described API: outputs, items that are ours, and the state of work under way.

Rule: a value from a foreign system is stored in the journal, so only short printable texts, numbers and booleans are
outputs. A value of any different form counts as not shown.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.core.rest.description import Description, Listing
from services.core.rest.expressions import found, holds
from services.core.rest.requests import Known, absolute
from services.core.saga.json_values import equal
from services.core.saga.references import fill_late

_OUTPUT_MAX: Final = 4_000
"""Characters of an output; a longer text may be a page."""


class WorkState(StrEnum):
    """The state of work under way, by the conditions `ready` and `failed`."""

    READY = "ready"
    PENDING = "pending"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SeenResource:
    """A resource as shown by an answer.

    Attributes:
        outputs: Outputs with a value.
        document: The document of the expressions.
    """

    outputs: Mapping[str, Any] = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """A page of a listing.

    Attributes:
        items: All items of the page.
        ours: Items with equal values in every field of `match`.
    """

    items: Sequence[Any] = field(repr=False)
    ours: Sequence[Any] = field(repr=False)


def document_of(url: str, status: int, headers: Mapping[str, str], body: Any) -> dict[str, Any]:
    """Returns the document of the expressions for an answer.

    A relative `Location` is made absolute, and a `Location` of a different origin is left out.

    Args:
        url: URL of the request.
        status: HTTP status.
        headers: Header fields by lower-case name.
        body: JSON value, or the text of a body that is no JSON.
    """
    location = headers.get("location")
    if location is None:
        return {"status": status, "headers": dict(headers), "body": body}
    target = absolute(url, location)
    rest = {name: value for name, value in headers.items() if name != "location"}
    return {"status": status, "headers": rest | ({"location": target} if target else {}), "body": body}


def item_document(item: Any) -> dict[str, Any]:
    """Returns the document of the expressions for an item of a listing: the item stands for the body."""
    return {"status": 200, "headers": {}, "body": item}


def resource_of(description: Description, document: Mapping[str, Any]) -> SeenResource:
    """Returns the resource in a document, with the outputs that have a value."""
    return SeenResource(outputs_of(description.outputs, document), document)


def outputs_of(expressions: Mapping[str, str], document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the outputs that have a value in a document.

    Args:
        expressions: Name of an output to its expression.
        document: The document.
    """
    values = {name: found(text, document) for name, text in expressions.items()}
    return {name: value for name, value in values.items() if _is_output(value)}


def progress_of(description: Description, document: Mapping[str, Any]) -> WorkState:
    """Returns the state of the work; a failure counts before readiness."""
    if description.failed is not None and holds(description.failed, document):
        return WorkState.FAILED
    if description.ready is None or holds(description.ready, document):
        return WorkState.READY
    return WorkState.PENDING


def page_of(listing: Listing, document: Mapping[str, Any], known: Known) -> ListedPage | None:
    """Returns the items of a page; None if the answer shows no list, so that nothing is proved."""
    items = found(listing.items, document)
    if not isinstance(items, list):
        return None
    wanted, missing = fill_late(dict(listing.match), known)
    if missing:
        return None
    ours = [item for item in items if all(_equal(found(text, item), value) for text, value in wanted.items())]
    return ListedPage(items, ours)


def _equal(shown: Any, wanted: Any) -> bool:
    return shown is not None and equal(wanted, shown)


def _is_output(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= _OUTPUT_MAX and value.isprintable()
    return isinstance(value, int | float)
