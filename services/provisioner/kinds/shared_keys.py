"""Plan keys shared by several HTTP kinds: origin of the URL, path and credentials."""

from typing import Final

from services.core.saga.plan_forms import Form, PlanKey

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
