"""The keys of every step of a plan as a table, with form, default and meaning.

Rule: a key is declared once, here or in the traits of its kind (`services.core.saga.kind_traits`). The checks of a
plan, the defaults and docs/plan.md (written by `make plan-page`) follow from both, and a plan with an undeclared key is
refused.

The texts `meaning` are printed in docs/plan.md: run `make plan-page` after a change, or `make check` fails.
"""

from collections.abc import Mapping
from typing import Any, Final

from services.core.saga.plan_forms import Form, PlanKey

GRACE_MAX_S: Final = 3_660 * 86_400
"""Ten years in seconds. A due time further away may be outside the range of the database's timestamps."""


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

FORMER: Final[Mapping[str, str]] = {"retries": "give_up_after says now how long an outage may last; take retries out"}
"""Keys of a former release, with the advice for a given plan that has one. In a stored plan such a key is ignored."""


def default_of(name: str) -> Any:
    """Returns the default of a key of every step.

    Raises:
        StopIteration: no such key is declared; a mistake of the caller, never of a plan.
    """
    return next(key.default for key in STEP if key.name == name)
