"""A ledger of one key in memory: the core's decisions, row by row, with every record it sends."""

import json
from dataclasses import dataclass, field
from typing import Any

from schemas import codec
from schemas.outcome import Direction, Outcome, State
from schemas.rows import Entry, StageRow, TenantRow
from schemas.topics import AUDIT, DEAD_LETTERS, DESIRED, EVENTS, TENANTS, Topic
from services.core.ledger.decisions import Decision, Received, receive, receive_outcome
from services.core.ledger.journal import RecordPosition
from tests.support.deliveries import KEY, RULES, position


@dataclass
class MemoryLedger:
    """Takes records as they come; `row` and `last` are what its tables hold."""

    row: TenantRow | None = None
    last: StageRow | None = None
    offset: int = -1
    decisions: list[Decision] = field(default_factory=list)

    def hear(self, record: Received, log_s: float = 0, *, offset: int | None = None, **where: Any) -> Decision:
        """Process a record at the next offset, or at one it was at before."""
        self.offset = self.offset + 1 if offset is None else self.offset
        at = position(self.offset if offset is None else offset, log_s, **where)
        raw = codec.Message(KEY.encode(), b"as it came", [("endpoint", b"default"), ("traceparent", b"00-a-b-01")])
        decision = receive(self.row, self.last, record, at, RULES, raw=raw)
        if isinstance(decision.row, TenantRow):
            self.row = decision.row
        self.decisions.append(decision)
        return decision

    def told(
        self,
        seq: int,
        direction: Direction,
        state: State,
        *,
        offset: int | None = None,
        trace: str | None = None,
        **more: Any,
    ) -> Decision:
        """Process an outcome that answers the newest desired version."""
        assert self.row is not None
        values = {"desired_version": self.row.desired_version, "generation": 1, "at": 0, **more}
        outcome = Outcome(key=KEY, seq=seq, direction=direction, state=state, **values)
        offset = seq if offset is None else offset
        at = RecordPosition("lifecycle.outcomes", 0, offset, position(0).log_time_us, trace=trace)
        decision = receive_outcome(self.row, self.last, outcome, at, RULES)
        if isinstance(decision.row, StageRow):
            self.last = decision.row
        self.decisions.append(decision)
        return decision

    @property
    def tenant(self) -> TenantRow:
        """The row, which must be there."""
        assert self.row is not None
        return self.row

    def entry(self, uid: str) -> Entry:
        """The journal's entry of a uid."""
        return next(entry for entry in self.tenant.entries if entry.uid == uid)


def values(decision: Decision, topic: Topic) -> list[dict[str, Any]]:
    """The records of a decision for a topic, parsed."""
    return [json.loads(output.message.value) for output in decision.outputs if output.topic is topic]


def events(decision: Decision) -> list[tuple[str, int]]:
    """Uid and revision of every event sent."""
    return [(event["uid"], event["revision"]) for event in values(decision, EVENTS)]


def view(decision: Decision) -> dict[str, Any]:
    """The public view sent."""
    (tenant,) = values(decision, TENANTS)
    return tenant


def desired_of(decision: Decision) -> dict[str, Any]:
    """The desired state sent."""
    (desired,) = values(decision, DESIRED)
    return desired


def verdicts(decision: Decision) -> list[tuple[str, str]]:
    """The lines of the audit trail."""
    return [(line["what"], line["verdict"]) for line in values(decision, AUDIT)]


def letters(decision: Decision) -> list[dict[str, Any]]:
    """The dead letters."""
    return values(decision, DEAD_LETTERS)
