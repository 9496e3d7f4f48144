"""Judges a history offline: the ledger's functions over a file of deliveries and audits (`lifecycle replay`).

Rule: the report shows final verdicts, not the verdicts on arrival. A delivery first judged new and later found to be a
restamp is reported as absorbed. Of several bodies under a uid, the counting body has the verdict of the uid,
independent of the order of arrival.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jiter import from_json

from schemas import hint, webhook
from schemas.journal import Entry, Verdict
from schemas.rows import TenantRow
from schemas.times import instant, rfc3339
from schemas.values import Json, Key
from services.core.delivery.audited_events import audited_event
from services.core.ledger import projections
from services.core.ledger.decisions import WHY, Decision, receive
from services.core.ledger.identity import identify
from services.core.ledger.journal import RecordPosition
from services.core.ledger.merge import merged_state
from services.core.ledger.projections import ProjectionRules

OFFLINE: Final = ProjectionRules(
    identity=b"offline" * 5, configuration=b"offline" * 5, audit=b"offline" * 5, published_names=(), removal_grace_s=0
)
"""Fixed keys: a file gives equal uids on every machine. No installation uses these keys."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict on a line of the file.

    Attributes:
        line: Number of the line, from 1.
        key: The key of the delivery; None for an invalid line.
        uid: The uid of the delivery; None for an invalid line.
        verdict: `new`, `duplicate`, `absorbed`, `ambiguous`, `conflict`, `late`, `future` or `invalid`.
        revision: Revision of the published event, at only one line per revision; else None.
        why: Explanation for a person.
    """

    line: int
    key: Key | None
    uid: str | None
    verdict: Verdict
    revision: int | None
    why: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """The verdicts on all lines in order, and the state of each key after the last line."""

    deliveries: tuple[Judgement, ...]
    tenants: dict[Key, Json]

    def as_json(self) -> Json:
        """Returns the output of `lifecycle replay --json`."""
        names = ("line", "key", "uid", "verdict", "revision")
        return {
            "deliveries": [{name: getattr(judgement, name) for name in names} for judgement in self.deliveries],
            "tenants": self.tenants,
        }


class _Line(NamedTuple):
    """A valid line; the final verdict is known only after the last line."""

    number: int
    key: Key
    uid: str
    f: str
    entered_at: int | None
    """Offset of the record with which the uid entered the journal; None for a late delivery, which does not enter."""


def replay(lines: Iterable[str | bytes], rules: ProjectionRules = OFFLINE) -> ReplayReport:
    """Returns the report on a history.

    Args:
        lines: JSON Lines in order of arrival, `{"received_at": RFC 3339, "body": {…}}` for a delivery; an audit that
            counts as an event has `"audit"` with the envelope in place of `"body"`. Blank lines are skipped.
        rules: The keys of an installation, or the fixed keys.
    """
    # A uid may enter the journal again after the first entry folded, so entries are identified by key, uid and offset.
    rows: dict[Key, TenantRow] = {}
    folded: dict[tuple[Key, str, int], Entry] = {}
    read: list[_Line | Judgement] = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        parsed = _read(text)
        if isinstance(parsed, str):
            read.append(Judgement(number, None, None, Verdict.INVALID, None, parsed))
            continue
        received_us, record = parsed
        # The number of the line serves as offset, the time of receipt as log time.
        position = RecordPosition("replay", 0, number, received_us)
        decision = receive(rows.get(record.key), None, record, position, rules)
        if isinstance(decision.row, TenantRow):
            rows[record.key] = decision.row
        folded |= {(record.key, entry.uid, entry.offset): entry for entry in decision.folded}
        claim = identify(record, rules.identity)[0]
        if decision.verdict is Verdict.FUTURE:
            read.append(Judgement(number, record.key, claim.uid, Verdict.FUTURE, None, WHY[Verdict.FUTURE]))
            continue
        entered_at = None if decision.verdict is Verdict.LATE else _entered_at(claim.uid, rows[record.key], decision)
        read.append(_Line(number, record.key, claim.uid, claim.f, entered_at))
    final = folded | {(key, entry.uid, entry.offset): entry for key, row in rows.items() for entry in row.entries}
    return ReplayReport(tuple(_judgements(read, final)), {key: _tenant(row) for key, row in rows.items()})


def _entered_at(uid: str, row: TenantRow, decision: Decision) -> int | None:
    """Returns the offset with which a uid entered the journal; the entry may have folded in this very step."""
    return next((entry.offset for entry in (*row.entries, *decision.folded) if entry.uid == uid), None)


def _read(text: str | bytes) -> tuple[int, webhook.Delivery | hint.IntegrationAudit] | str:
    """Returns time of receipt and record of a line, or the fault of the line as text."""
    try:
        line = from_json(text.encode() if isinstance(text, str) else text, catch_duplicate_keys=True)
        if not isinstance(line, dict) or not isinstance(line.get("received_at"), str):
            return "line: must be an object with received_at, and body or audit"
        # Encoded again for the parser of the ingress, so the file obeys the strict JSON rules of a real delivery.
        received_us = instant(line["received_at"])
        if "audit" not in line:
            return received_us, webhook.parse(json.dumps(line.get("body")).encode())
        audit = hint.audit(hint.parse(json.dumps(line["audit"]).encode()))
        return "audit: states no event" if audited_event(audit) is None else (received_us, audit)
    except webhook.Malformed as fault:
        return str(fault)
    except ValueError:
        return "line: must be strict JSON with an RFC 3339 received_at"


def _judgements(read: list[_Line | Judgement], final: dict[tuple[Key, str, int], Entry]) -> Iterable[Judgement]:
    """Yields the judgement on each line by the final entries, the first line of an entry with the entry's verdict."""
    # A lent revision is reported at the borrowing event, not at the restamp that was published with it.
    lent = {(key, entry.borrowed) for (key, _, _), entry in final.items() if entry.borrowed}
    reported: set[tuple[Key, str, int]] = set()
    for line in read:
        if isinstance(line, Judgement):
            yield line
            continue
        verdict, revision = Verdict.LATE, None
        if line.entered_at is not None:
            identity = (line.key, line.uid, line.entered_at)
            entry = final[identity]
            if line.f != entry.f:
                verdict = Verdict.CONFLICT
            elif identity in reported:
                verdict = Verdict.DUPLICATE
            else:
                reported.add(identity)
                verdict = entry.verdict
                revision = entry.borrowed or (None if (line.key, entry.revision) in lent else entry.revision or None)
        yield Judgement(line.number, line.key, line.uid, verdict, revision, WHY[verdict])


def _tenant(row: TenantRow) -> dict[str, Any]:
    """Returns the reported state of a key."""
    merged, uninstalled = merged_state(row.now), row.now.uninstalled
    return {
        "installed": merged.installed,
        "enabled": merged.enabled,
        "configuration": projections.configuration(row, merged.digest),
        "uninstalled_at": None if uninstalled is None else rfc3339(uninstalled.at_us),
        "flags": list(row.flags),
    }
