"""The stage of a tenant: a table over the desired state and the last outcome.

Rule: the first applicable row of `TABLE` counts, and the last row always applies. `TABLE` alone decides the stage;
`with_outcome` alone adds an outcome to a row. An outcome with a `seq` at or below the row's changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from schemas.outcome import TENANT_CONFLICT, Direction, Outcome, State
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Stage
from services.core.ledger.merge import merged_state

# Theory. The stage combines two histories that arrive in any order: the desired state (from `lifecycle.received`) and
# the outcomes (from `lifecycle.outcomes`). An outcome may answer a former desired state: a `down done` of a former life
# must not show a reinstalled tenant as deprovisioned. So the result of a teardown counts only if the outcome answers a
# version at or after the last change of desired `installed` (`turned`), and an `up done` counts only for its own
# generation.
#
# The stage must be a pure function of the two rows, without a memory of former stages: a worker that meets the topics
# in a different order must end at the same stage. A test compares the table with docs/specification.md, section 4.


@dataclass(frozen=True, slots=True)
class Situation:
    """The input of the table.

    Attributes:
        installed: The desired value; None while neither an install nor an uninstall is known.
        ever: True if `installed` was desired at least once.
        turned: The version of the row at the last change of desired `installed`.
        last: The row of the last outcome; an empty row before the first.
    """

    installed: bool | None
    ever: bool
    turned: int
    last: StageRow

    def ended(self, direction: Direction, state: State) -> bool:
        """True if the last outcome has this direction and state."""
        return self.last.seq > 0 and self.last.direction is direction and self.last.state is state

    @property
    def answered(self) -> bool:
        """True if the last outcome answers a version at or after the last change of desired `installed`."""
        return self.last.seq > 0 and self.last.desired_version >= self.turned


class StageRule(NamedTuple):
    """A row of the table.

    Attributes:
        desired: The condition on the desired state, in the words of the specification.
        outcomes: The condition on the outcomes, in the words of the specification.
        applies: True if the row applies.
        stage: The stage; None while nothing is known.
    """

    desired: str
    outcomes: str
    applies: Callable[[Situation], bool]
    stage: Stage | None


def _down(state: State) -> Callable[[Situation], bool]:
    return lambda s: s.installed is False and s.answered and s.ended(Direction.DOWN, state)


TABLE: Final = (
    StageRule("neither N nor U", "-", lambda s: s.installed is None, None),
    StageRule(
        "not installed, and installed was never desired",
        "-",
        lambda s: s.installed is False and not s.ever,
        Stage.DEPROVISIONED,
    ),
    StageRule("not installed", "down done since it turned", _down(State.DONE), Stage.DEPROVISIONED),
    # `failed` is decided in `services/core/saga/intents.py`, `_begin_trouble`.
    StageRule(
        "not installed",
        "down failed, or has stood for 15 minutes, since it turned",
        _down(State.FAILED),
        Stage.DEPROVISIONING_FAILED,
    ),
    StageRule("not installed", "anything else", lambda s: s.installed is False, Stage.DEPROVISIONING),
    StageRule(
        "installed",
        "up done in this generation and no down of it since",
        lambda s: s.last.up_done and not s.last.down_began,
        Stage.ACTIVE,
    ),
    StageRule(
        "installed",
        "up rolled back",
        lambda s: s.ended(Direction.UP, State.ROLLED_BACK),
        Stage.PROVISIONING_ROLLED_BACK,
    ),
    StageRule("installed", "anything else, compensating, or held", lambda _: True, Stage.PENDING_INSTALL),
)
"""The rows in order; the first applicable row gives the stage."""

FORMER_LIFE: Final = "former_life"
"""Reason of an install during the teardown of the key's former life."""

_OVER: Final = frozenset({(Direction.DOWN, State.DONE), (Direction.UP, State.ROLLED_BACK)})
"""Outcomes at the end of a life; the binding ends with the life."""

_OF_THE_PRESENT_DESIRED: Final = frozenset({Stage.PENDING_INSTALL, Stage.DEPROVISIONING})
"""Stages that show the reason of the last outcome only if the outcome answers the present desired state."""


def stage(row: TenantRow | None, last: StageRow | None) -> tuple[Stage | None, str | None]:
    """Returns the stage of a key with the reason, None without a reason.

    Args:
        row: The key's row of the table `tenants`; None before the first record.
        last: The key's row of the table `stages`; None before the first outcome.
    """
    present = situation(row, last)
    found = next(rule.stage for rule in TABLE if rule.applies(present))
    return found, _reason(present, found)


def situation(row: TenantRow | None, last: StageRow | None) -> Situation:
    """Returns the input of the table for two rows; a missing row counts as an empty row."""
    key = row.key if row is not None else last.key if last is not None else ""
    row = row or TenantRow(key)
    return Situation(merged_state(row.now).installed, row.ever, row.turned, last or StageRow(key))


def _reason(present: Situation, found: Stage | None) -> str | None:
    """Returns the reason shown with a stage."""
    last = present.last
    if found is None or not present.ever:
        return None
    if found is Stage.ACTIVE:
        return last.reason if last.direction is Direction.UP else None
    if found in _OF_THE_PRESENT_DESIRED and not present.answered:
        tears_down = last.direction is Direction.DOWN and last.state in {State.WORKING, State.FAILED}
        return FORMER_LIFE if found is Stage.PENDING_INSTALL and last.seq and tears_down else None
    return last.reason


class TenantIds(NamedTuple):
    """The two tenantIds of a key in the public view; see `schemas.tenant.Tenant`."""

    tenant_id: str | None
    claimed: str | None


def tenant_ids(row: TenantRow, last: StageRow) -> TenantIds:
    """Returns the tenantId to show, and the claimed tenantId if different from the bound one (docs/decisions/0026)."""
    newest = None if row.now.tenant is None else row.now.tenant.value
    if merged_state(row.now).installed is not True:
        # A removed key claims nothing any more; the view names the tenantId under which resources existed.
        return TenantIds(last.tenant_id or newest, None)
    if last.bound:
        return TenantIds(last.tenant_id, newest if newest != last.tenant_id else None)
    if last.state is State.HELD and last.reason == TENANT_CONFLICT:
        # Two organisations must never show one tenantId because of a mere claim.
        return TenantIds(None, newest)
    return TenantIds(newest, None)


def with_outcome(last: StageRow, outcome: Outcome) -> StageRow:
    """Returns the row after an outcome; the identical row if the outcome's `seq` is not above the row's.

    A generation is active from the first finished `up` until a `down` begins. A later finished `up` of the generation
    makes the generation active again.
    """
    if outcome.seq <= last.seq:
        return last
    same = outcome.generation == last.generation
    revived = outcome.direction is Direction.UP and outcome.state is State.DONE
    over = (outcome.direction, outcome.state) in _OVER
    return replace(
        last,
        seq=outcome.seq,
        desired_version=outcome.desired_version,
        generation=outcome.generation,
        direction=outcome.direction,
        state=outcome.state,
        step=outcome.step,
        reason=outcome.reason,
        tenant_id=outcome.tenant_id or (last.tenant_id if same else None),
        bound=outcome.tenant_id is not None and not over,
        up_done=revived or (same and last.up_done),
        down_began=outcome.direction is Direction.DOWN or (same and last.down_began and not revived),
    )
