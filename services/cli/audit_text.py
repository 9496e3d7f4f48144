"""Prints the result of a verification of the audit trail: a line per partition, the findings, and a summary.

Reads back from an earlier result, as JSON, which seals were the newest.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from schemas.times import rfc3339
from schemas.values import Instant
from services.cli import show, wording
from services.cli.exits import CommandError, Exit
from services.core.seals.check import FindingKind, KnownSeal, PartitionReport, TrailReport

_WORDS = {
    FindingKind.CHANGED: "changed",
    FindingKind.MISSING: "missing",
    FindingKind.INSERTED: "inserted",
    FindingKind.REORDERED: "reordered",
    FindingKind.FORGED_SEAL: "forged seal",
    FindingKind.MISSING_SEAL: "missing seal",
    FindingKind.BEGINNING_GONE: "beginning gone",
    FindingKind.UNSEALED: "unsealed",
}


class _Seal(BaseModel):
    number: int
    sha256: str
    at: Instant


class _Partition(BaseModel):
    partition: int
    newest_seal: _Seal | None


class _Earlier(BaseModel):
    partitions: list[_Partition]


def known_seals(path: Path) -> dict[int, KnownSeal]:
    """Returns the newest seal of each partition from the JSON of an earlier verification.

    Raises:
        CommandError: the file cannot be read, or is not that JSON (UNUSABLE).
    """
    try:
        earlier = _Earlier.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"--known: {path}: {error.strerror}") from None
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(map(str, fault["loc"])) or "file"
        text = f"--known: {path}: {where}: {fault['type']}; give the output of `lifecycle audit verify --json`"
        raise CommandError(Exit.UNUSABLE, text) from None
    seals = ((one.partition, one.newest_seal) for one in earlier.partitions)
    return {number: KnownSeal(seal.number, seal.sha256, seal.at) for number, seal in seals if seal is not None}


def report_json(found: TrailReport) -> dict[str, Any]:
    """Returns the result as JSON."""
    return {
        "verified": not found.findings,
        "until": rfc3339(found.until_us),
        "partitions": [
            {
                "partition": one.partition,
                "records": one.records,
                "seals": one.seals,
                "passed_over": one.passed_over,
                "newest_seal": None
                if one.head_at_us is None
                else {"number": one.head_number, "sha256": one.head_hash, "at": rfc3339(one.head_at_us)},
                "unsealed": one.unsealed.count,
                "unsealed_since": None if one.unsealed.since_us is None else rfc3339(one.unsealed.since_us),
                "gone": one.gone or None,
            }
            for one in found.partitions
        ],
        "counts": {kind.value: count for kind, count in found.counts.items()},
        "findings": [
            {"kind": one.kind.value, "partition": one.partition, "offset": one.offset, "text": one.text}
            for one in found.findings
        ],
    }


def print_report(found: TrailReport) -> None:
    """Prints the result for a person."""
    rows = [_row(one, found.until_us) for one in found.partitions]
    if rows:
        show.table(("partition", "records", "seals", "newest seal", "unsealed"), rows)
    for text in _notes(found):
        print(text)
    if found.findings:
        print()
        findings = [(f"{one.partition}/{one.offset}", _WORDS[one.kind], one.text) for one in found.findings]
        show.table(("at", "finding", "details"), findings, whole=2)
    print(_summary(found))


def _row(one: PartitionReport, until_us: int) -> tuple[object, ...]:
    newest = "-" if one.head_at_us is None else f"{one.head_number}, {wording.moment(one.head_at_us)}"
    since_us = one.unsealed.since_us
    unsealed = "-" if since_us is None else f"{one.unsealed.count:,}, since {wording.span(until_us - since_us)}"
    return one.partition, one.records, one.seals, newest, unsealed


def _notes(found: TrailReport) -> Iterator[str]:
    """Yields what is no finding and still worth a line."""
    for one in found.partitions:
        if one.gone:
            yield f"partition {one.partition}: {one.gone} (retention)"
        if one.passed_over:
            seals = wording.counted(one.passed_over, "seal")
            yield f"partition {one.partition}: {seals} of a second sealer, passed over"


def _summary(found: TrailReport) -> str:
    """Summarises the result in one line."""
    records, seals = (sum(getattr(one, name) for one in found.partitions) for name in ("records", "seals"))
    text = f"{wording.counted(records, 'record')}, {wording.counted(seals, 'seal')}"
    if not found.findings:
        # An empty file is no proof of anything, and the word would claim one.
        return f"{text}: {'verified' if records else 'nothing to verify'}"
    count = sum(found.counts.values())
    kept = f", {len(found.findings)} of them above" if count > len(found.findings) else ""
    return f"{text}: NOT verified, {wording.counted(count, 'finding')}{kept}"
