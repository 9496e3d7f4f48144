"""The retry of a saga at an operator's request: the journal to write, the audit line, and the result.

Rule: a retry with an effect has an audit line, numbered by the journal. A retry without anything to do writes the
journal unchanged and no line, and the saga becomes due at once: a saga without work rests again by itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.audit import Audit
from schemas.saga import Journal
from schemas.saga_row import SagaRow
from schemas.tenant import Desired
from services.core.ledger import audit
from services.core.saga.intents import retried_journal
from services.core.unwell import GRACE, REMOVAL_BRAKED, REMOVAL_REFUSED


class RetryEnd(StrEnum):
    """The ends of a request for a retry."""

    TRIED = "tried"
    """The saga is tried again at once."""
    NOTHING = "nothing"
    """The saga has nothing to try again."""
    IN_GRACE = "in_grace"
    """The saga waits in a grace period, which a retry never shortens."""
    HELD = "held"
    """The brake on removals holds the saga, which only an approval or a reinstall ends."""
    NO_SAGA = "no_saga"
    BUSY = "busy"
    """Another worker holds the lease; the detail is the worker."""
    UNREADABLE = "unreadable"
    """This release cannot read the row; the detail is the fault."""
    NEWER_VERSION = "newer_version"
    """A newer desired version was stored meanwhile, and the saga goes on with the newer version."""
    LEASE_LOST = "lease_lost"
    TENANT_TAKEN = "tenant_taken"


_WORDS: Final[Mapping[RetryEnd, str]] = {
    RetryEnd.TRIED: "tried again now",
    RetryEnd.NOTHING: "nothing to try again",
    RetryEnd.IN_GRACE: "in its grace period, which this does not shorten",
    RetryEnd.HELD: "held by the brake on removals, which this does not release",
    RetryEnd.NO_SAGA: "no such saga",
    RetryEnd.BUSY: "{detail} is at it now",
    RetryEnd.UNREADABLE: "its row cannot be read by this release: {detail}",
    RetryEnd.NEWER_VERSION: "a newer version came just now",
    RetryEnd.LEASE_LOST: "its lease was lost just now: another worker is at it, or it is gone",
    RetryEnd.TENANT_TAKEN: "its tenantId is bound to another organisation",
}


@dataclass(frozen=True, slots=True)
class RetryResult:
    """The result of a request for a retry.

    Attributes:
        end: The end of the request.
        detail: The worker of a busy saga, or the fault of an unreadable row; else empty.
    """

    end: RetryEnd
    detail: str = ""

    @property
    def is_done(self) -> bool:
        """True if the saga is tried again, or has nothing to try again."""
        return self.end in {RetryEnd.TRIED, RetryEnd.NOTHING}

    @property
    def text(self) -> str:
        """The result in words."""
        return _WORDS[self.end].format(detail=self.detail)


@dataclass(frozen=True, slots=True)
class Retry:
    """The content of a retry's commit.

    Attributes:
        journal: The journal to write; its `lines` is the number of `line`.
        line: The audit line; None if nothing is to be tried again.
        end: The end of the request, if the registry takes the commit.
    """

    journal: Journal
    line: Audit | None
    end: RetryEnd


def decide_retry(row: SagaRow, journal: Journal, desired: Desired, now_us: int, material: bytes) -> Retry:
    """Decides the retry of a leased saga.

    Args:
        row: The saga's row, with the reason and the system of the present wait.
        journal: The journal as last written.
        desired: The newest desired version.
        now_us: Time of the retry, microseconds UTC.
        material: The newest key of `material.audit`.
    """
    again = retried_journal(journal)
    if again is None:
        return Retry(journal, None, _without_work(row, journal, desired))
    number = journal.lines + 1
    line = audit.line(
        line_id=f"{row.key}/retry/{number}",
        key=row.key,
        what="retry",
        verdict="tried again",
        why=f"an operator's wish, while it was {journal.phase}",
        at_us=now_us,
        material=material,
    )
    return Retry(again.model_copy(update={"lines": number}), line, RetryEnd.TRIED)


def _without_work(row: SagaRow, journal: Journal, desired: Desired) -> RetryEnd:
    """Returns the end of a retry that leaves the journal unchanged."""
    if row.why == GRACE:
        return RetryEnd.IN_GRACE
    if row.why in {REMOVAL_BRAKED, REMOVAL_REFUSED}:
        return RetryEnd.HELD
    answered = journal.target is not None and journal.target.version >= desired.version
    rests = answered and row.why is None and row.waits_for is None
    # A saga with a newer version, or with a wait that only the row tells, is due now instead of later.
    return RetryEnd.NOTHING if rests else RetryEnd.TRIED
