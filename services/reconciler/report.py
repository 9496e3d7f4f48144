"""Report of one run, for the log, the CLI and the CLI's `--json`."""

from dataclasses import asdict, dataclass
from typing import Any, Final

from schemas.times import rfc3339
from services.core.reconcile.onboarding import CREATE_MOST, HeldOrganisation
from services.core.reconcile.reconcile import Action, PlanLine, ReconcilePlan, Stop, Tenants
from services.reconciler.memory import LastRun

NO_CREDENTIALS: Final = "organisation file: missing"
"""Reason of an organisation without a file in `ORGS_DIR`: the organisation is not ours to read."""

NOT_WHOLE: Final = "an entry of the listing has no readable id: "
"""Begins the reason of an organisation read except for listed entities without a valid id."""

NOT_WRITTEN: Final = "not written: "
"""Begins the reason of an observation that Kafka did not acknowledge."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An organisation without a complete reading, or an observation that could not be written.

    Attributes:
        scope: Organisation id of an unread organisation; key of an unwritten observation.
        reason: Text for log and operator.
    """

    scope: str
    reason: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """Result of one run.

    Attributes:
        dry_run: True if the run published and remembered nothing.
        read: Ids of the organisations read, among them those with odd entities in the listing.
        plan: The plan, with every key as read.
        refusals: Organisations without information, and observations that could not be written.
        published: Number of observations acknowledged by Kafka.
        held: Organisations whose first comparison waits for an approval.
        look_again_at_us: Earliest second look of a waiting claim, microseconds UTC; None if no claim waits.
        tenants: The view of the run.
    """

    dry_run: bool
    read: tuple[str, ...]
    plan: ReconcilePlan
    refusals: tuple[Refusal, ...]
    published: int
    held: tuple[HeldOrganisation, ...]
    look_again_at_us: int | None
    tenants: Tenants

    @property
    def lines(self) -> tuple[PlanLine, ...]:
        """Returns the keys with a difference, a wait, a refusal or an unread part."""
        return self.plan.lines

    @property
    def stopped(self) -> Stop | None:
        """Returns the brake, if the run was held back; else None."""
        return self.plan.stopped

    @property
    def unread(self) -> int:
        """Returns the number of keys not read, or read in part."""
        return sum(line.action is Action.UNREAD for line in self.lines)

    @property
    def unanswered(self) -> frozenset[str]:
        """Returns the organisations with credentials that were not read, or read except for odd entities."""
        # The scope of an unwritten observation is a key, `orgId:integrationId`, and no organisation.
        return frozenset(
            refusal.scope for refusal in self.refusals if refusal.reason != NO_CREDENTIALS and ":" not in refusal.scope
        )

    @property
    def succeeded(self) -> bool:
        """True if nothing was left unread, unwritten or held back; a lack of credentials is no failure."""
        refused = any(refusal.reason != NO_CREDENTIALS for refusal in self.refusals)
        return self.stopped is None and not self.held and not refused and not self.unread

    def as_json(self) -> dict[str, Any]:
        """Returns the JSON of `lifecycle reconcile --json`."""
        return {
            "dry_run": self.dry_run,
            "read": list(self.read),
            "plan": [
                {
                    "key": line.key,
                    "action": line.action.value,
                    "reason": line.reason,
                    "read_at": rfc3339(line.observed.read_at) if line.observed else None,
                }
                for line in self.lines
            ],
            "refusals": [{"scope": refusal.scope, "reason": refusal.reason} for refusal in self.refusals],
            "published": self.published,
            "stopped": None if self.stopped is None else asdict(self.stopped),
            "held": [
                {
                    "org": one.org_id,
                    "newcomers": one.newcomers,
                    "limit": CREATE_MOST,
                    "approval": one.approval,
                }
                for one in self.held
            ],
            "look_again_at": None if self.look_again_at_us is None else rfc3339(self.look_again_at_us),
        }


def last_of(report: RunReport, before: LastRun, now_us: int) -> LastRun:
    """Returns the result to store after a whole run.

    Args:
        report: The report of the run.
        before: The stored result of the run before; gives the last success of an unsuccessful run.
        now_us: End of the run, microseconds UTC.
    """
    return LastRun(
        ended_us=now_us,
        succeeded_us=now_us if report.succeeded else before.succeeded_us,
        read=len(report.read),
        unanswered=len(report.unanswered),
        unread=report.unread,
    )
