"""Where a tenant stands: one total table over what is desired and what became of it.

Rule: the first line that applies counts, and the last applies always. Everything that decides a stage is in `TABLE`;
what an outcome changes about a key is in `follow`, and an outcome whose `seq` is not above the row's changes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from schemas.outcome import TENANT_CONFLICT, Direction, Outcome, State
from schemas.rows import StageRow, TenantRow
from schemas.tenant import Stage
from services.core.ledger.merge import view


@dataclass(frozen=True, slots=True)
class Situation:
    """What the table looks at.

    Attributes:
        installed: Desired; None while neither an install nor an uninstall is known.
        ever: Installed was desired at least once.
        turned: The version at which desired `installed` last changed.
        last: The last outcome and its generation; an empty row before the first.
    """

    installed: bool | None
    ever: bool
    turned: int
    last: StageRow

    def ended(self, direction: Direction, state: State) -> bool:
        """The last outcome is this."""
        return self.last.seq > 0 and self.last.direction is direction and self.last.state is state

    @property
    def answered(self) -> bool:
        """The last outcome speaks of the present wish to be there, or not to be."""
        return self.last.seq > 0 and self.last.desired_version >= self.turned


class StageRule(NamedTuple):
    """One line of the table."""

    wish: str
    outcomes: str
    applies: Callable[[Situation], bool]
    stage: Stage | None


def _down(state: State) -> Callable[[Situation], bool]:
    return lambda it: it.installed is False and it.answered and it.ended(Direction.DOWN, state)


TABLE: Final = (
    StageRule("neither N nor U", "-", lambda it: it.installed is None, None),
    StageRule(
        "not installed, and installed was never desired",
        "-",
        lambda it: it.installed is False and not it.ever,
        Stage.DEPROVISIONED,
    ),
    StageRule("not installed", "down done since it turned", _down(State.DONE), Stage.DEPROVISIONED),
    StageRule(
        "not installed",
        "down failed, or has stood for 15 minutes, since it turned",
        _down(State.FAILED),
        Stage.DEPROVISIONING_FAILED,
    ),
    StageRule("not installed", "anything else", lambda it: it.installed is False, Stage.DEPROVISIONING),
    StageRule(
        "installed",
        "up done in this generation and no down of it since",
        lambda it: it.last.up_done and not it.last.down_began,
        Stage.ACTIVE,
    ),
    StageRule(
        "installed",
        "up rolled back",
        lambda it: it.ended(Direction.UP, State.ROLLED_BACK),
        Stage.PROVISIONING_ROLLED_BACK,
    ),
    StageRule("installed", "anything else, compensating, or held", lambda _: True, Stage.PENDING_INSTALL),
)
"""The first line that applies is the stage."""

FORMER_LIFE: Final = "former_life"
"""Reason of an install that waits until the teardown of the key's former life ends."""

_OVER: Final = frozenset({(Direction.DOWN, State.DONE), (Direction.UP, State.ROLLED_BACK)})
"""Outcomes after which a life, and its binding, is over."""

_OF_THE_PRESENT_WISH: Final = frozenset({Stage.PENDING_INSTALL, Stage.DEPROVISIONING})
"""Stages whose reason is the last outcome's only if that answered the present wish."""


def stage(row: TenantRow | None, last: StageRow | None) -> tuple[Stage | None, str | None]:
    """The stage of a key, and why it is not further.

    Args:
        row: What is desired; None where nothing is known.
        last: What became of it; None before the first outcome.
    """
    it = situation(row, last)
    found = next(line.stage for line in TABLE if line.applies(it))
    return found, _reason(it, found)


def situation(row: TenantRow | None, last: StageRow | None) -> Situation:
    """What the table looks at."""
    key = row.key if row is not None else last.key if last is not None else ""
    row = row or TenantRow(key)
    return Situation(view(row.now).installed, row.ever, row.turned, last or StageRow(key))


def _reason(it: Situation, found: Stage | None) -> str | None:
    if found is None or not it.ever:
        return None
    if found is Stage.ACTIVE:
        return it.last.reason if it.last.direction is Direction.UP else None
    if found in _OF_THE_PRESENT_WISH and not it.answered:
        tears_down = it.last.direction is Direction.DOWN and it.last.state in {State.WORKING, State.FAILED}
        return FORMER_LIFE if found is Stage.PENDING_INSTALL and it.last.seq and tears_down else None
    return it.last.reason


class Names(NamedTuple):
    """The two tenantIds of a key, as `Tenant` explains them."""

    tenant_id: str | None
    claimed: str | None


def names(row: TenantRow, last: StageRow) -> Names:
    """Returns the tenantId that is bound, and the one that is claimed where that is another."""
    asked = None if row.now.tenant is None else row.now.tenant.value
    if view(row.now).installed is not True:
        # Nothing is claimed any more: what goes, or went, is what was bound.
        return Names(last.tenant_id or asked, None)
    if last.bound:
        return Names(last.tenant_id, asked if asked != last.tenant_id else None)
    if last.state is State.HELD and last.reason == TENANT_CONFLICT:
        return Names(None, asked)
    return Names(asked, None)


def follow(last: StageRow, outcome: Outcome) -> StageRow:
    """The row after an outcome; the very row that came in if the outcome is not above it.

    A generation is active from its first `up` done until a `down` of it begins; `up` done again revives it.
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
