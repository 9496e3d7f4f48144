"""Plan keys and traits of a step that describes a foreign API."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.rest.description import POLL_S, READY_WITHIN, SETTLES_WITHIN, seconds_of
from services.core.rest.faults import rest_faults
from services.core.saga.kind_traits import KindTraits
from services.core.saga.plan_forms import Form, PlanKey

_DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class RestTraits(KindTraits):
    """Traits of a kind with outputs that the step itself declares."""

    def outputs_of(self, row: Mapping[str, Any]) -> Collection[str]:
        """Returns the names in the table `outputs` of the step."""
        outputs = row.get("outputs")
        return (*outputs, "url") if isinstance(outputs, Mapping) else ("url",)

    def secret_outputs_of(self, row: Mapping[str, Any]) -> frozenset[str]:
        """Returns the names in the list `secret_outputs` of the step."""
        names = row.get("secret_outputs", ())
        return (
            frozenset(name for name in names if isinstance(name, str))
            if isinstance(names, list | tuple)
            else frozenset()
        )

    def late_s(self, row: Mapping[str, Any]) -> float:
        """Returns the longest time of work under way: a system may make the resource when the life is over."""
        ready_s = seconds_of(row, "ready_within", READY_WITHIN) if "ready" in row else 0.0
        return max(ready_s, seconds_of(row, "settles_within", SETTLES_WITHIN))

    def step_faults(self, row: Mapping[str, Any]) -> Iterator[str]:
        """Yields the faults of the description."""
        yield from rest_faults(row)


def _verb(name: str, meaning: str, method: str, *further: PlanKey) -> PlanKey:
    with_body = () if method == "GET" else _BODIES
    keys = (
        PlanKey("method", Form.TEXT, "HTTP method.", default=method),
        PlanKey("path", Form.TEXT, "Behind `url`; or one `{resource.NAME}` with a whole URL.", default=""),
        PlanKey("query", Form.TABLE, "Parameters."),
        PlanKey("headers", Form.TABLE, "Header fields, in addition to those of the step."),
        *with_body,
        PlanKey("done", Form.STATUSES, "Statuses that mean success, beside 2xx."),
        PlanKey("absent", Form.STATUSES, "Statuses that mean: there is none. Beside 404 and 410."),
        PlanKey("retry", Form.STATUSES, "Statuses that mean an outage, beside those of the contract's table."),
        PlanKey("refused", Form.STATUSES, "Statuses that mean a refusal of this request."),
        *further,
    )
    return PlanKey(name, Form.TABLE, meaning, keys=keys)


_BODIES: Final = (
    PlanKey("body", Form.TABLE, "JSON body."),
    PlanKey("form", Form.TABLE, "Form body, in place of `body`."),
)

KEYS: Final = (
    PlanKey("url", Form.URL, "Base URL of the API.", required=True),
    PlanKey(
        "url_from",
        Form.CHOICE,
        "Who gave the URL. An event's is kept to the allow-list of hosts (EGRESS_ALLOW) and to public addresses, and "
        "is sent no `{secrets.…}`.",
        default="event",
        choices=("event", "operator"),
    ),
    PlanKey("headers", Form.TABLE, "Header fields of every request."),
    PlanKey(
        "auth",
        Form.TABLE,
        "Authentication.",
        keys=(
            PlanKey(
                "type",
                Form.CHOICE,
                "Way of the authentication.",
                required=True,
                choices=("bearer", "basic", "header", "client_credentials"),
            ),
            PlanKey("token", Form.TEXT, "Of `bearer`."),
            PlanKey("user", Form.TEXT, "Of `basic`."),
            PlanKey("password", Form.TEXT, "Of `basic`."),
            PlanKey("name", Form.TEXT, "Of `header`: name of the field."),
            PlanKey("value", Form.TEXT, "Of `header`: its value."),
            PlanKey(
                "token_url", Form.TEXT, "Of `client_credentials`: URL of the token endpoint, or a path behind `url`."
            ),
            PlanKey("client_id", Form.TEXT, "Of `client_credentials`."),
            PlanKey("client_secret", Form.TEXT, "Of `client_credentials`."),
            PlanKey("scope", Form.TEXT, "Of `client_credentials`."),
            PlanKey(
                "client_in",
                Form.CHOICE,
                "Of `client_credentials`: where the client is named.",
                default="basic",
                choices=("basic", "form"),
            ),
        ),
    ),
    _verb("create", "Makes the resource.", "POST"),
    _verb("read", "Shows the resource by its id.", "GET"),
    _verb(
        "find",
        "Lists resources, to find ours by a field. Asked after a lost answer, before a create and after a life's end.",
        "GET",
        PlanKey("items", Form.TEXT, "JMESPath: list of a page.", default="body"),
        PlanKey(
            "match", Form.TABLE, "JMESPath over an item to the value of ours, such as `{tenant.name}`.", required=True
        ),
        PlanKey("next", Form.TEXT, "JMESPath: URL of the next page."),
        PlanKey("page", Form.TEXT, "Parameter with the number of the page; the listing ends with an empty page."),
        PlanKey("pages_from", Form.CHOICE, "Number of the first page.", default="1", choices=("0", "1")),
        PlanKey("cursor", Form.TEXT, "Parameter with the cursor."),
        PlanKey("cursor_from", Form.TEXT, "JMESPath: cursor of the next page."),
    ),
    _verb("update", "Changes the resource. Without it a resource is never changed.", "PATCH"),
    _verb("delete", "Removes the resource.", "DELETE"),
    _verb(
        "job",
        "Shows work under way, where not the resource itself does. `ready` and `failed` then judge its answer.",
        "GET",
        PlanKey("outputs", Form.TABLE, "Outputs that the finished job shows, such as the id of the resource."),
    ),
    PlanKey("outputs", Form.TABLE, "Name to JMESPath over `{status, headers, body}`; header names in lower case."),
    PlanKey("secret_outputs", Form.TEXTS, "Outputs that are sealed.", default=[]),
    PlanKey(
        "idempotent",
        Form.CHOICE,
        "Why a repeated create makes no second resource: by an idempotency key, by a name of ours; or it may.",
        default="no",
        choices=("no", "key", "name"),
    ),
    PlanKey(
        "unknown",
        Form.CHOICE,
        "What follows when nobody can tell if a create had its effect: `find`, or the tenant waits for a person.",
        default="find",
        choices=("find", "hold"),
    ),
    PlanKey(
        "settles_within",
        Form.DURATION,
        "How long after a lost answer `find` may not show the effect yet.",
        default=SETTLES_WITHIN,
        most=_DAY_S,
    ),
    PlanKey("ready", Form.TEXT, "JMESPath: holds when the work is finished."),
    PlanKey("failed", Form.TEXT, "JMESPath: holds when the work has failed."),
    PlanKey(
        "ready_within", Form.DURATION, "How long work may take; then it has failed.", default=READY_WITHIN, most=_DAY_S
    ),
    PlanKey("poll_s", Form.NUMBER, "Seconds between two looks at work under way.", default=POLL_S, most=600),
    PlanKey("idempotency_header", Form.TEXT, "Header that takes the idempotency key; without it none is sent."),
    PlanKey("epoch_header", Form.TEXT, "Header that takes the epoch of the worker's lease; without it none is sent."),
    PlanKey("max_per_second", Form.NUMBER, "Most requests of a worker to this system in a second.", most=1_000),
    PlanKey(
        "redirects",
        Form.CHOICE,
        "Whether redirects within the origin are followed.",
        default="refuse",
        choices=("refuse", "same_origin"),
    ),
)
"""Keys of a step of kind `rest`."""
