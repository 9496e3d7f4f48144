"""The keys of a plan as tables: the keys of every step and of each kind, with form, default and meaning.

Rule: a key is declared here once. The checks of a plan, the defaults and docs/plan.md (written by `make plan-page`)
follow from these tables, and a plan with an undeclared key is refused.

The texts `meaning` are printed in docs/plan.md: run `make plan-page` after a change, or `make check` fails.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from services.core.saga.plan_forms import Form, PlanKey

GRACE_MAX_S: Final = 3_660 * 86_400
"""Ten years in seconds. A due time further away may be outside the range of the database's timestamps."""


@dataclass(frozen=True, slots=True)
class KindKeys:
    """Declaration of one kind.

    Attributes:
        meaning: One sentence for docs/plan.md.
        keys: Keys of the kind, beside the keys of every step.
        outputs: Names of the outputs; later steps refer to them by `{steps.NAME.OUTPUT}`.
    """

    meaning: str
    keys: tuple[PlanKey, ...] = ()
    outputs: tuple[str, ...] = ()


STEP: Final = (
    PlanKey("name", Form.NAME, "Names the step, once in a plan; journals and metrics use it.", required=True),
    PlanKey("kind", Form.NAME, "Which sort of outside system it speaks to: one of the kinds below.", required=True),
    PlanKey(
        "undo",
        Form.CHOICE,
        "How teardown undoes it: by the kind's own way, or not at all.",
        required=True,
        choices=("reverse", "nothing"),
    ),
    PlanKey(
        "give_up_after",
        Form.DURATION,
        "How long an outage of the system may last before a first provisioning is compensated. An update and a "
        "teardown wait for as long as it takes.",
        default="PT6H",
        most=GRACE_MAX_S,
    ),
    PlanKey("timeout_s", Form.NUMBER, "Seconds that one call may take.", default=10, most=60),
    PlanKey(
        "destroy_after",
        Form.DURATION,
        "How long teardown waits before it undoes the step; an install within that time revives what is there.",
        default="PT0S",
        most=GRACE_MAX_S,
    ),
)
"""Keys of every step."""

FORMER: Final[Mapping[str, str]] = {"retries": "give_up_after says now how long an outage may last"}
"""Keys of a former release, with the advice for a given plan that has one. In a stored plan such a key is ignored."""

_URL: Final = PlanKey("url", Form.URL, "Base URL of the system.", required=True)
_URL_FROM: Final = PlanKey(
    "url_from",
    Form.CHOICE,
    "Who gave the URL. An event's is kept to the allow-list of hosts (EGRESS_ALLOW) and to public addresses; an "
    "operator's may name no `{configuration.…}`.",
    default="event",
    choices=("event", "operator"),
)
_PATH: Final = PlanKey("path", Form.TEXT, "Between the base URL and the resource's name.", default="")
_CREDENTIALS: Final = PlanKey(
    "credentials",
    Form.TABLE,
    "OAuth client of the system, proved before anything is made (RFC 6749, section 4.4). Without it requests carry no "
    "`Authorization`.",
    keys=(
        PlanKey("path", Form.TEXT, "Of the token endpoint, below the base URL.", default="/oauth/token"),
        PlanKey("client_id", Form.TEXT, "Client id.", required=True),
        PlanKey("client_secret", Form.TEXT, "Client secret.", required=True),
    ),
)

KINDS: Final[Mapping[str, KindKeys]] = {
    "archive": KindKeys(
        "Notes when a life begins, and archives its audit trail when it is undone.", (), ("since", "archive")
    ),
    "http": KindKeys(
        "Keeps one named resource in a system that speaks [our REST contract](rest-contract.md).",
        (
            PlanKey("url", Form.URL, "Base URL of the system. Where it is missing there is nothing to keep."),
            _URL_FROM,
            _PATH,
            PlanKey(
                "body",
                Form.TABLE,
                "Further fields of the resource. The fields of the contract are ours to fill.",
                reserved=frozenset({"name", "key", "tenant_id", "generation", "enabled"}),
            ),
            _CREDENTIALS,
        ),
        ("id", "url"),
    ),
    "oauth": KindKeys(
        "Issues and revokes the tenant's access token.",
        (
            PlanKey(
                "url", Form.URL, "Of the server: `/token`, `/revoke` and `/grants/{name}` are below it.", required=True
            ),
            _URL_FROM,
            PlanKey("client_id", Form.TEXT, "Our client at that server.", required=True),
            PlanKey("client_secret", Form.TEXT, "Its secret.", required=True),
        ),
        ("access_token", "scope"),
    ),
    "postgres": KindKeys("Makes a schema and a role in the tenants' database.", (), ("schema", "role")),
    "subscription": KindKeys(
        "Keeps one event subscription, paused while the integration is disabled.",
        (
            _URL,
            _URL_FROM,
            _PATH,
            PlanKey("topics", Form.TEXTS, "What is subscribed to.", default=[]),
            _CREDENTIALS,
        ),
        ("id", "url"),
    ),
}
"""Name of a kind in the plan to the declaration of the kind."""


def default_of(name: str) -> Any:
    """Returns the default of a key of every step.

    Raises:
        StopIteration: no such key is declared; a mistake of the caller, never of a plan.
    """
    return next(key.default for key in STEP if key.name == name)
