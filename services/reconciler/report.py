"""What a run says of itself, for the log, the CLI and its `--json`."""

from dataclasses import dataclass
from typing import Any, Final

from schemas.times import rfc3339
from services.core.reconcile.reconcile import Action, PlanLine, Stop
from services.reconciler.memory import LastRun

NO_CREDENTIALS: Final = "organisation file: missing"
"""Reason of an organisation that nobody gave us to read."""

NOT_WHOLE: Final = "an entity of the listing is nobody's: "
"""Begins the reason of an organisation that was read but for an entity that names no integration."""

NOT_WRITTEN: Final = "not written: "
"""Begins the reason of an observation that Kafka did not acknowledge."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An organisation that gave no information, or not all; or an observation that could not be written."""

    scope: str
    """Organisation id, or key."""
    reason: str


@dataclass(frozen=True, slots=True)
class RunReport:
    """One run.

    Attributes:
        dry_run: Nothing was published or remembered.
        read: Organisations that were read whole.
        lines: Keys that differ, wait, were refused or could not be read; a key that agrees has none.
        refusals: What gave no information.
        published: Observations that Kafka acknowledged.
        stopped: The brake, when it held everything back.
        look_again_at_us: When the first waiting claim may be seen again; None when none waits.
    """

    dry_run: bool
    read: tuple[str, ...]
    lines: tuple[PlanLine, ...]
    refusals: tuple[Refusal, ...]
    published: int
    stopped: Stop | None
    look_again_at_us: int | None

    @property
    def unread(self) -> int:
        """Keys that could not be read, or not whole."""
        return sum(line.action is Action.UNREAD for line in self.lines)

    @property
    def unanswered(self) -> frozenset[str]:
        """Organisations that we have credentials of and that were not read whole."""
        return frozenset(one.scope for one in self.refusals if one.reason != NO_CREDENTIALS and ":" not in one.scope)

    @property
    def succeeded(self) -> bool:
        """True if nothing was left unread, unwritten or held back; without credentials there is nothing to read."""
        refused = any(refusal.reason != NO_CREDENTIALS for refusal in self.refusals)
        return self.stopped is None and not refused and not self.unread

    def as_json(self) -> dict[str, Any]:
        """The shape of `lifecycle reconcile --json`."""
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
            "stopped": None
            if self.stopped is None
            else {"absent": self.stopped.absent, "limit": self.stopped.limit, "approval": self.stopped.approval},
            "look_again_at": None if self.look_again_at_us is None else rfc3339(self.look_again_at_us),
        }


def last_of(report: RunReport, before: LastRun, now_us: int) -> LastRun:
    """Returns what to keep of a whole run that ended now."""
    return LastRun(
        ended_us=now_us,
        succeeded_us=now_us if report.succeeded else before.succeeded_us,
        read=len(report.read),
        unanswered=len(report.unanswered),
        unread=report.unread,
    )
