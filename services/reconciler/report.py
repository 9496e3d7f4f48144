"""What a run says of itself, for the log, the CLI and its `--json`."""

from dataclasses import dataclass
from typing import Any, Final

from schemas.times import rfc3339
from services.core.reconcile import Line, Stop

NO_CREDENTIALS: Final = "organisation file: missing"
"""Reason of an organisation that nobody gave us to read."""

NOT_WRITTEN: Final = "not written: "
"""Begins the reason of an observation that Kafka did not acknowledge."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An organisation that gave no information, or an observation that could not be written."""

    scope: str
    """Organisation id, or key."""
    reason: str


@dataclass(frozen=True, slots=True)
class Report:
    """One run.

    Attributes:
        dry_run: Nothing was published or remembered.
        read: Organisations that were read whole.
        lines: Keys that differ, wait, or were refused; a key that agrees has none.
        refusals: What gave no information.
        published: Observations that Kafka acknowledged.
        stopped: The brake, when it held everything back.
        look_again_at_us: When the first waiting claim may be seen again; None when none waits.
    """

    dry_run: bool
    read: tuple[str, ...]
    lines: tuple[Line, ...]
    refusals: tuple[Refusal, ...]
    published: int
    stopped: Stop | None
    look_again_at_us: int | None

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
