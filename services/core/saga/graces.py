"""The earliest first delete of a teardown, for operators: an approval with an earlier end lets no removal go.

Rule: the brake is asked at the first delete, and so after the grace periods: `destroy_after` of the step undone first,
and the grace of a removal asserted by audits alone (`AUDIT_REMOVAL_GRACE_S`).
"""

import tomllib
from collections.abc import Mapping
from typing import Final

from schemas.saga import Journal, Phase, StepLog, StepState
from services.core.saga.calls import Verb
from services.core.saga.plan import UndoBy
from services.core.saga.plan_forms import duration_s
from services.core.saga.plan_keys import default_of

_NO_LOG: Final = StepLog()


def graces_of(plan_text: str) -> dict[str, int]:
    """Returns the seconds of `destroy_after` by step, in the order of creation; steps without an undo are left out.

    Kinds and settings are not judged, so that stored plans of earlier releases can be read. An unreadable text has no
    graces.

    Args:
        plan_text: Text of a plan that was good at the time of storing.
    """
    try:
        rows = tomllib.loads(plan_text)["step"]
        return {
            row["name"]: duration_s(row.get("destroy_after", default_of("destroy_after"))) or 0
            for row in rows
            if row["undo"] != UndoBy.NOTHING
        }
    except (tomllib.TOMLDecodeError, KeyError, TypeError):
        return {}


def first_delete_us(journal: Journal, graces: Mapping[str, int], now_us: int) -> int | None:
    """Returns the earliest time of the first delete of a life, microseconds UTC.

    Without a teardown under way, the teardown is taken to begin now. None for a life that was never applied as a
    whole, since the brake is not asked, and for a teardown with deletes.

    Args:
        journal: The journal of the key.
        graces: `graces_of` the plan of the life.
        now_us: Our clock, microseconds UTC.
    """
    life = journal.life
    if life is None or life.last_applied is None:
        return None
    is_removing = journal.phase is Phase.REMOVING
    if is_removing and any(log.verb == Verb.DELETE and log.at >= journal.phase_began_at for log in life.steps.values()):
        return None
    made = [grace_s for step, grace_s in graces.items() if life.steps.get(step, _NO_LOG).state is not StepState.ABSENT]
    grace_us = made[-1] * 1_000_000 if made else 0
    return max((journal.phase_began_at if is_removing else now_us) + grace_us, journal.remove_at if is_removing else 0)
