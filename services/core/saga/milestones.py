"""The milestones of a desired version: the first call to an outside system, and the end of the work.

Rule: each milestone is met in one turn only, told from the journals before and after the turn. No journal field is kept
for this, so a journal of an earlier release meets the same milestones. Times count from the log time of the record in
`lifecycle.received` that caused the version; a version of an earlier release has no such time and no milestone.
"""

from typing import Final, NamedTuple

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Phase
from services.core.saga.intents import AFTER_FINISH, UPDATE_REFUSED, Turn
from services.core.saga.moves import Wait
from services.core.saga.next_move import Plans
from services.core.saga.plan import UndoBy

_OF_A_VERSION: Final = frozenset({Phase.CREATING, Phase.UPDATING, Phase.REMOVING})
"""Phases that work towards a version; compensation and restoration leave the version."""


class Converged(NamedTuple):
    """The end of the work for a version.

    Attributes:
        direction: Direction of the work.
        since_us: Time from which the length counts, microseconds UTC.
        at_us: Time of the end, microseconds UTC.
    """

    direction: Direction
    since_us: int
    at_us: int


class Milestones(NamedTuple):
    """The milestones met in a turn.

    Attributes:
        first_call_since_us: Time from which the first call counts, microseconds UTC; None if the turn's call is not the
            first of its version.
        converged: The versions carried out in the turn.
    """

    first_call_since_us: int | None = None
    converged: tuple[Converged, ...] = ()


NO_MILESTONES: Final = Milestones()


def phase_began_us(journal: Journal) -> int:
    """Returns the begin of the phase in progress, microseconds UTC; 0 at rest.

    At rest `phase_began_at` is the end of the last phase. A version without a call begins and ends in one turn: its
    length is not the time since that end.
    """
    return journal.phase_began_at if journal.phase in AFTER_FINISH else 0


def milestones(plans: Plans, before: Journal, turn: Turn) -> Milestones:
    """Returns the milestones of a turn, to be counted once the turn is committed.

    Args:
        plans: The plans of the lives in the journal.
        before: The journal as it was given to `decide`.
        turn: The decided turn.
    """
    ends = (_converged(plans, before, turn, outcome) for outcome in turn.outcomes)
    return Milestones(_first_call_since_us(before, turn), tuple(end for end in ends if end is not None))


def _first_call_since_us(before: Journal, turn: Turn) -> int | None:
    target = turn.journal.target
    if isinstance(turn.move, Wait) or target is None or target.received_at is None or not _is_first_call(before, turn):
        return None
    if turn.journal.phase is not Phase.REMOVING:
        return target.received_at
    # A grace period is an intended wait, and a held removal waits for a person: neither is slowness.
    grace_s = turn.move.step.destroy_after_s
    graced_us = turn.journal.phase_began_at + int(grace_s * 1_000_000) if grace_s else 0
    return max(target.received_at, turn.journal.remove_at, graced_us, turn.journal.released_at)


def _is_first_call(before: Journal, turn: Turn) -> bool:
    """True if no outside system was called for the version of the turn's call before."""
    journal, move = turn.journal, turn.move
    if isinstance(move, Wait) or journal.target is None or journal.phase not in _OF_A_VERSION:
        return False
    if journal.life is None or move.generation != journal.life.generation:
        return False  # an orphan check of an ended life
    if before.target is None:
        # Without a target, and not at the beginning: an operator has asked for a version to be tried again.
        return before.generation == 0
    if journal.target.version > before.target.version:
        return True
    # The version was taken up in an earlier turn, which ended in a wait. Every call leaves its time in a step's log. A
    # version that was rolled back was called for before.
    steps = before.life.steps.values() if before.life else ()
    return (
        not journal.rollbacks
        and before.phase is journal.phase
        and all(log.at < journal.phase_began_at for log in steps)
    )


def _converged(plans: Plans, before: Journal, turn: Turn, outcome: Outcome) -> Converged | None:
    # A refused update ends as done as well, with the last good configuration: its version was not carried out.
    if outcome.state is not State.DONE or outcome.reason == UPDATE_REFUSED:
        return None
    targets = (target for target in (before.target, turn.journal.target) if target is not None)
    received_us = next((target.received_at for target in targets if target.version == outcome.desired_version), None)
    if received_us is None:
        return None
    waited_us = max(_grace_end_us(plans, before), before.released_at) if outcome.direction is Direction.DOWN else 0
    since_us = max(received_us, waited_us)
    return Converged(outcome.direction, since_us, outcome.at)


def _grace_end_us(plans: Plans, before: Journal) -> int:
    """Returns the end of the longest grace period of a teardown, microseconds UTC; 0 without a grace period."""
    life = before.life
    if life is None or before.phase is not Phase.REMOVING:
        return 0
    waits = [
        step.destroy_after_s
        for step in plans.of(life).steps
        if step.undo is not UndoBy.NOTHING and (log := life.steps.get(step.name)) is not None and log.n
    ]
    longest_s = max(waits, default=0)
    graced_us = before.phase_began_at + int(longest_s * 1_000_000) if longest_s else 0
    return max(before.remove_at, graced_us)
