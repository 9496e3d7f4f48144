"""Plan keys shared by several HTTP kinds: origin of the URL, path and credentials; and the check of a base URL."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from services.core.saga.plan_forms import Form, PlanKey
from services.core.saga.references import REFERENCE

URL_FROM: Final = PlanKey(
    "url_from",
    Form.CHOICE,
    "Who gave the URL. An event's is kept to the allow-list of hosts (EGRESS_ALLOW) and to public addresses; an "
    "operator's may name no `{configuration.…}`.",
    default="event",
    choices=("event", "operator"),
)
PATH: Final = PlanKey("path", Form.PATH, "Between the base URL and the resource's name.", default="")
CREDENTIALS: Final = PlanKey(
    "credentials",
    Form.TABLE,
    "OAuth client of the system, proved before anything is made (RFC 6749, section 4.4). Without it requests carry no "
    "`Authorization`.",
    keys=(
        PlanKey("path", Form.PATH, "Of the token endpoint, below the base URL.", default="/oauth/token"),
        PlanKey("client_id", Form.TEXT, "Client id.", required=True),
        PlanKey("client_secret", Form.TEXT, "Client secret.", required=True),
    ),
)


def base_url_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields a fault for a base URL with a query or a fragment: paths are appended, and would become a part of both.

    Args:
        row: The step as written in the plan.
    """
    url = row.get("url")
    if isinstance(url, str) and {"?", "#"} & set(REFERENCE.sub("", url)):
        yield "url: has a query or a fragment, and paths are appended to a base URL; take out what follows ? or #"
