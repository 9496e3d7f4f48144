"""The reason for which a saga stands where it stands, as one word of a closed set, for counts of the whole registry.

Rule: the word is decided at the end of a turn and stored in the saga's row, so that a count needs no journal. The
registry itself tells `due` and `running` from the row's times; every further word is decided here.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from schemas.outcome import TENANT_CONFLICT
from schemas.saga import Journal, Phase, StepVerdict
from schemas.tenant import Desired
from services.core.saga.moves import Wait
from services.core.saga.next_move import OPERATOR_REFUSED, SYSTEM_AWAY, TROUBLE
from services.core.unwell import GRACE, HELD_REMOVALS


class SagaWhy(StrEnum):
    """Reasons for which a saga stands."""

    DUE = "due"
    """Work is to be done, and no worker or no place at the system is free yet."""
    RUNNING = "running"
    """A worker holds the lease."""
    RETRYING = "retrying"
    """The saga waits between two tries of a step."""
    SYSTEM_AWAY = "system_away"
    """The saga waits at the open circuit of a system with an outage."""
    OPERATOR_REFUSED = "operator_refused"
    """A system refuses the operator's own credentials or set-up."""
    CONTRADICTED = "contradicted"
    """A system answered with success and shows something else than was asked: a person looks."""
    GRACE = "grace"
    """A teardown waits for the end of a grace period."""
    REMOVAL_BRAKED = "removal_braked"
    """A teardown waits at the brake on removals for an operator."""
    REMOVAL_REFUSED = "removal_refused"
    """A teardown waits at the brake, and an operator has refused it."""
    GENESYS_SAYS_INSTALLED = "genesys_says_installed"
    """A teardown waits, since Genesys has the integration."""
    GENESYS_UNREAD = "genesys_unread"
    """A teardown waits, since Genesys must confirm it and gave no information."""
    TENANT_CONFLICT = "tenant_conflict"
    """The tenantId is bound to a different organisation."""
    TENANT_UNKNOWN = "tenant_unknown"
    """No install has named a tenantId."""
    ROLLED_BACK = "rolled_back"
    """A provisioning was rolled back, and is tried again later."""
    STOPPED = "stopped"
    """The worker met an error, a plan of any life that cannot be carried out, or a row that cannot be read."""
    REST = "rest"
    """Nothing is left to do."""


class Standing(NamedTuple):
    """The position of a saga at the end of a turn.

    Attributes:
        why: The reason.
        since_us: Time since which the saga stands there, microseconds UTC; None if only the registry knows.
    """

    why: SagaWhy
    since_us: int | None = None


_HELD: Final = {TENANT_CONFLICT: SagaWhy.TENANT_CONFLICT, "tenant_unknown": SagaWhy.TENANT_UNKNOWN}
_AT_REST: Final = frozenset({Phase.EMPTY, Phase.ACTIVE})


def standing(journal: Journal, desired: Desired, wait: Wait, now_us: int) -> Standing:
    """Returns the position of a saga after a turn that ended in a wait.

    Args:
        journal: The journal after the turn.
        desired: The newest desired version.
        wait: The wait.
        now_us: The present time, microseconds UTC.
    """
    if wait.reason in TROUBLE:
        since_us = journal.standstill.since if journal.standstill else now_us
        return Standing(_trouble(journal, wait), since_us)
    if wait.reason in _HELD:
        return Standing(_HELD[wait.reason], desired.received_at)
    if wait.reason == GRACE:
        return Standing(SagaWhy.GRACE, journal.phase_began_at)
    if wait.reason in HELD_REMOVALS:
        return Standing(SagaWhy(wait.reason))
    if journal.phase is Phase.ROLLED_BACK:
        return Standing(SagaWhy.ROLLED_BACK, journal.phase_began_at)
    # Elsewhere a busy system has turned the call away: the saga comes again within seconds.
    return Standing(SagaWhy.REST if journal.phase in _AT_REST else SagaWhy.DUE)


def _trouble(journal: Journal, wait: Wait) -> SagaWhy:
    log = journal.life.steps.get(wait.step or "") if journal.life else None
    verdict = log.verdict if log is not None else None
    if wait.reason == OPERATOR_REFUSED or verdict is StepVerdict.OPERATOR_REFUSED:
        return SagaWhy.OPERATOR_REFUSED
    if wait.reason == SYSTEM_AWAY:
        return SagaWhy.SYSTEM_AWAY
    return SagaWhy.CONTRADICTED if verdict is StepVerdict.CONTRADICTED else SagaWhy.RETRYING
