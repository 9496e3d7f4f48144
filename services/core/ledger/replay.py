"""A history judged offline: the ledger's own functions over a file, and what they make of the whole set.

Rule: the verdict on a delivery is the final one. What looked new on arrival and turned out to be a restamp is told as
absorbed, and of several bodies under one uid the one that counts carries the verdict, whenever it came.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from jiter import from_json

from schemas import webhook
from schemas.journal import Entry, Verdict
from schemas.rows import TenantRow
from schemas.times import instant, rfc3339
from schemas.values import Json, Key
from services.core.ledger import projections
from services.core.ledger.decisions import WHY, Decision, receive
from services.core.ledger.identity import identify
from services.core.ledger.journal import RecordPosition
from services.core.ledger.merge import view
from services.core.ledger.projections import ProjectionRules

OFFLINE: Final = ProjectionRules(
    identity=b"offline" * 5, configuration=b"offline" * 5, audit=b"offline" * 5, published_names=()
)
"""Fixed keys: the same file gives the same uids everywhere, and they speak for no installation."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What became of one line.

    Attributes:
        line: 1, 2, 3 … in the file.
        key: None of an invalid line.
        uid: None of an invalid line.
        verdict: One of `new`, `duplicate`, `absorbed`, `ambiguous`, `conflict`, `late`, `invalid`.
        revision: Of the published event; told once per revision.
        why: For a person.
    """

    line: int
    key: Key | None
    uid: str | None
    verdict: Verdict
    revision: int | None
    why: str


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """All lines in order, and every key as it stands after the last one."""

    deliveries: tuple[Judgement, ...]
    tenants: dict[Key, Json]

    def as_json(self) -> Json:
        """The shape that `lifecycle replay --json` prints."""
        names = ("line", "key", "uid", "verdict", "revision")
        return {
            "deliveries": [{name: getattr(judgement, name) for name in names} for judgement in self.deliveries],
            "tenants": self.tenants,
        }


class _Line(NamedTuple):
    number: int
    key: Key
    uid: str
    f: str
    life: int | None
    """Offset at which the uid entered the journal; None if it did not."""


def replay(lines: Iterable[str | bytes], rules: ProjectionRules = OFFLINE) -> ReplayReport:
    """Fold a history.

    Args:
        lines: JSON Lines in order of arrival, `{"received_at": RFC 3339, "body": {…}}`; blank ones are skipped.
        rules: The installation's own, or fixed keys.
    """
    rows: dict[Key, TenantRow] = {}
    folded: dict[tuple[Key, str, int], Entry] = {}
    read: list[_Line | Judgement] = []
    for number, text in enumerate(lines, start=1):
        if not text.strip():
            continue
        told = _read(text)
        if isinstance(told, str):
            read.append(Judgement(number, None, None, Verdict.INVALID, None, told))
            continue
        received_us, delivery = told
        place = RecordPosition("replay", 0, number, received_us)
        decision = receive(rows.get(delivery.key), None, delivery, place, rules)
        if isinstance(decision.row, TenantRow):
            rows[delivery.key] = decision.row
        folded |= {(delivery.key, entry.uid, entry.offset): entry for entry in decision.folded}
        claim = identify(delivery, rules.identity)[0]
        life = None if decision.verdict is Verdict.LATE else _life(claim.uid, rows[delivery.key], decision)
        read.append(_Line(number, delivery.key, claim.uid, claim.f, life))
    final = folded | {(key, entry.uid, entry.offset): entry for key, row in rows.items() for entry in row.entries}
    return ReplayReport(tuple(_judgements(read, final)), {key: _tenant(row) for key, row in rows.items()})


def _life(uid: str, row: TenantRow, decision: Decision) -> int | None:
    return next((entry.offset for entry in (*row.entries, *decision.folded) if entry.uid == uid), None)


def _read(text: str | bytes) -> tuple[int, webhook.Delivery] | str:
    """One line, or what is wrong with it."""
    try:
        line = from_json(text.encode() if isinstance(text, str) else text, catch_duplicate_keys=True)
        if not isinstance(line, dict) or not isinstance(line.get("received_at"), str):
            return "line: must be an object with received_at and body"
        # The body is read by the same strict reader as one from the wire.
        return instant(line["received_at"]), webhook.parse(json.dumps(line.get("body")).encode())
    except webhook.Malformed as fault:
        return str(fault)
    except ValueError:
        return "line: must be strict JSON with an RFC 3339 received_at"


def _judgements(read: list[_Line | Judgement], final: dict[tuple[Key, str, int], Entry]) -> Iterable[Judgement]:
    lent = {(key, entry.borrowed) for (key, _, _), entry in final.items() if entry.borrowed}
    told: set[tuple[Key, str, int]] = set()
    for line in read:
        if isinstance(line, Judgement):
            yield line
            continue
        verdict, revision = Verdict.LATE, None
        if line.life is not None:
            life = (line.key, line.uid, line.life)
            entry = final[life]
            if line.f != entry.f:
                verdict = Verdict.CONFLICT
            elif life in told:
                verdict = Verdict.DUPLICATE
            else:
                told.add(life)
                verdict = entry.verdict
                revision = entry.borrowed or (None if (line.key, entry.revision) in lent else entry.revision or None)
        yield Judgement(line.number, line.key, line.uid, verdict, revision, WHY[verdict])


def _tenant(row: TenantRow) -> dict[str, Any]:
    seen, uninstalled = view(row.now), row.now.uninstalled
    return {
        "installed": seen.installed,
        "enabled": seen.enabled,
        "configuration": projections.configuration(row, seen.digest),
        "uninstalled_at": None if uninstalled is None else rfc3339(uninstalled.at_us),
        "flags": list(row.flags),
    }
