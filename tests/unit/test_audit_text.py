"""The result of a verification of the audit trail, as a person reads it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from services.cli import audit_text
from services.cli.exits import CommandError, Exit
from services.core.seals.check import KnownSeal
from tests.support.sealed_trail import HOUR_US, RULES, SealedTrail, checked


@pytest.fixture
def trail() -> SealedTrail:
    """Two sealed ranges and a record that waits."""
    made = SealedTrail()
    for _ in range(2):
        made.write()
        made.write()
        made.seal()
        made.now_us += HOUR_US
    made.write()
    return made


def test_a_trail_that_verifies_is_told_in_a_line_per_partition(
    trail: SealedTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    audit_text.print_report(checked(trail.records))
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == [
        "partition records seals newest seal unsealed",
        "3 5 2 2, 2024-01-15 15:32:10 1, since 0 s",
        "5 records, 2 seals: verified",
    ]


def test_each_finding_has_its_place_and_the_last_line_counts_them(
    trail: SealedTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = [replace(trail.records[0], key="another"), *trail.records[1:4], *trail.records[5:]]
    audit_text.print_report(checked(changed))
    told = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert told[2:] == [
        "",
        "at finding details",
        "3/10 changed the record of another tenant than its Kafka key says",
        "3/20 missing offsets 14 to 19, seal 2: 1 of 2 sealed records are missing",
        "4 records, 2 seals: NOT verified, 2 findings",
    ]


def test_what_retention_removed_and_a_second_sealer_wrote_are_notes(
    trail: SealedTrail, capsys: pytest.CaptureFixture[str]
) -> None:
    twice = [*trail.records, replace(trail.records[5], offset=trail.end)]
    report = checked(twice[1:], now_us=trail.now_us + RULES.retention_us + HOUR_US)
    audit_text.print_report(report)
    told = capsys.readouterr().out.splitlines()
    assert told[2:] == [
        "partition 3: what stood before offset 12 is gone; seal 1 covered it from 10 on (retention)",
        "partition 3: 1 seal of a second sealer, passed over",
        "4 records, 2 seals: verified",
    ]
    assert audit_text.report_json(report)["partitions"][0]["passed_over"] == 1


def test_the_newest_seals_are_read_back_from_an_earlier_result(trail: SealedTrail, tmp_path: Path) -> None:
    report = checked(trail.records)
    file = tmp_path / "seals.json"
    file.write_text(json.dumps(audit_text.report_json(report)))
    (part,) = report.partitions
    assert audit_text.known_seals(file) == {3: KnownSeal(2, part.head_hash, part.head_at_us or 0)}
    file.write_text('{"partitions": [{"partition": 3}]}')
    with pytest.raises(
        CommandError, match=r"--known: .*partitions.0.newest_seal: missing; give the output of"
    ) as raised:
        audit_text.known_seals(file)
    assert raised.value.status is Exit.UNUSABLE


def test_an_empty_trail_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    audit_text.print_report(checked([]))
    assert capsys.readouterr().out == "0 records, 0 seals: nothing to verify\n"
