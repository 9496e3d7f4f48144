"""The description of a foreign API, as typed values from the settings of a step.

Rule: a description is made from settings that `services.core.rest.faults` accepted. A stored plan of a former release
is not checked again, so a missing key has its default here and no value raises.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from services.core.saga.plan_forms import duration_s

SETTLES_WITHIN: Final = "PT15S"
READY_WITHIN: Final = "PT15M"
POLL_S: Final = 5
_METHODS: Final[Mapping[str, str]] = {
    "create": "POST",
    "read": "GET",
    "find": "GET",
    "update": "PATCH",
    "delete": "DELETE",
    "job": "GET",
}
"""Default method of each verb."""


class Idempotent(StrEnum):
    """The reason why a repeated create makes no second resource."""

    NO = "no"
    """A repeated create may make a second resource: `find` is asked before each create."""
    KEY = "key"
    """The system gives the first answer again to an equal idempotency key."""
    NAME = "name"
    """The request names the resource (PUT by name, upsert by external id), or the system refuses a name in use."""


@dataclass(frozen=True, slots=True)
class Described:
    """One verb of the API.

    Attributes:
        method: HTTP method.
        path: Below the base URL, or a whole URL of the same origin.
        query: Parameters of the query.
        headers: Header fields in addition to the step's.
        body: JSON body; None for no body.
        form: Form body; None for no form.
        done: Statuses that mean success, in addition to the 2xx.
        absent: Statuses that mean an absent resource.
        retry: Statuses that mean an outage.
        refused: Statuses that mean a refusal of the request.
    """

    method: str
    path: Any
    query: Mapping[str, Any] = field(default_factory=dict, repr=False)
    headers: Mapping[str, Any] = field(default_factory=dict, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    form: Mapping[str, Any] | None = field(default=None, repr=False)
    done: frozenset[int] = frozenset()
    absent: frozenset[int] = frozenset()
    retry: frozenset[int] = frozenset()
    refused: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Listing:
    """The search for a resource by a field of ours.

    Attributes:
        request: Request of the first page.
        items: Expression for the list of a page.
        match: Expression over an item to the wanted value; every pair must be equal.
        next: Expression for the URL of the next page; None without next links.
        page: Parameter of the query with the number of the page; None without numbers.
        first: Number of the first page.
        cursor: Parameter of the query with the cursor; None without cursors.
        cursor_from: Expression for the cursor of the next page.
    """

    request: Described
    items: str
    match: Mapping[str, Any]
    next: str | None = None
    page: str | None = None
    first: int = 1
    cursor: str | None = None
    cursor_from: str | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """The API of one step.

    Attributes:
        create: Makes the resource.
        read: Shows the resource by its id; None if only `find` shows the resource.
        find: Lists resources by a field of ours; None if the API has no search.
        update: Changes the resource; None if a resource is never changed.
        delete: Removes the resource; None for a resource that stays.
        job: Shows the state of work under way; None if the resource itself shows the state.
        outputs: Name of an output to its expression, over an answer that shows the resource.
        job_outputs: Name of an output to its expression, over the answer of `job`.
        idempotent: The reason why a repeated create makes no second resource.
        ready: Expression that holds for finished work; None if a shown resource is finished.
        failed: Expression that holds for failed work; None if work never fails.
        ready_within_s: Seconds until work that is not ready counts as failed.
        settles_within_s: Seconds until the effect of a call with a lost answer shows in `find`.
        poll_s: Seconds between two looks at work under way.
        headers: Header fields of every request.
        idempotency_header: Name of the header with the idempotency key; None for no such header.
        epoch_header: Name of the header with the epoch of the worker's lease; None for no such header.
        same_origin_redirects: True if redirects within the origin are followed.
        max_per_second: Most requests in a second to the origin; None for no limit.
        auth: Table of the authentication; empty for none.
    """

    create: Described
    read: Described | None
    find: Listing | None
    update: Described | None
    delete: Described | None
    job: Described | None
    outputs: Mapping[str, str]
    job_outputs: Mapping[str, str]
    idempotent: Idempotent
    ready: str | None
    failed: str | None
    ready_within_s: float
    settles_within_s: float
    poll_s: float
    headers: Mapping[str, Any] = field(repr=False)
    idempotency_header: str | None
    epoch_header: str | None
    same_origin_redirects: bool
    max_per_second: float | None
    auth: Mapping[str, Any] = field(repr=False)


def described(settings: Mapping[str, Any]) -> Description:
    """Returns the description in the settings of a step."""
    return Description(
        create=_verb(settings, "create") or Described("POST", ""),
        read=_verb(settings, "read"),
        find=_listing(settings),
        update=_verb(settings, "update"),
        delete=_verb(settings, "delete"),
        job=_verb(settings, "job"),
        outputs=settings.get("outputs", {}),
        job_outputs=(settings.get("job") or {}).get("outputs", {}),
        idempotent=Idempotent(settings.get("idempotent", Idempotent.NO)),
        ready=settings.get("ready"),
        failed=settings.get("failed"),
        ready_within_s=seconds_of(settings, "ready_within", READY_WITHIN),
        settles_within_s=seconds_of(settings, "settles_within", SETTLES_WITHIN),
        poll_s=float(settings.get("poll_s", POLL_S)),
        headers=settings.get("headers", {}),
        idempotency_header=settings.get("idempotency_header"),
        epoch_header=settings.get("epoch_header"),
        same_origin_redirects=settings.get("redirects") == "same_origin",
        max_per_second=settings.get("max_per_second"),
        auth=settings.get("auth", {}),
    )


def seconds_of(settings: Mapping[str, Any], name: str, default: str) -> float:
    """Returns the seconds of a duration in the settings; of the default for a missing or bad duration."""
    given = settings.get(name)
    return float((duration_s(given) if isinstance(given, str) else None) or duration_s(default) or 0)


def _verb(settings: Mapping[str, Any], name: str) -> Described | None:
    table = settings.get(name)
    if not isinstance(table, Mapping):
        return None
    return Described(
        method=str(table.get("method", _METHODS[name])),
        path=table.get("path", ""),
        query=table.get("query", {}),
        headers=table.get("headers", {}),
        body=table.get("body"),
        form=table.get("form"),
        done=frozenset(table.get("done", ())),
        absent=frozenset(table.get("absent", ())),
        retry=frozenset(table.get("retry", ())),
        refused=frozenset(table.get("refused", ())),
    )


def _listing(settings: Mapping[str, Any]) -> Listing | None:
    request = _verb(settings, "find")
    if request is None:
        return None
    table = settings["find"]
    return Listing(
        request,
        items=str(table.get("items", "body")),
        match=table.get("match", {}),
        next=table.get("next"),
        page=table.get("page"),
        first=0 if table.get("pages_from") == "0" else 1,
        cursor=table.get("cursor"),
        cursor_from=table.get("cursor_from"),
    )
