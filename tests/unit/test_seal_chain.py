"""The chain of seals at its borders: what is named, what is due, and what is passed over."""

from dataclasses import replace

import pytest

from schemas.stored import Misread, StoredRecord, exported, imported
from schemas.topics import AUDIT
from services.core.seals import chain
from services.core.seals.chain import WINDOW, is_due
from services.core.seals.check import KEPT_OF_A_KIND, FindingKind, KnownSeal, TrailReport, TrailRules
from tests.support.sealed_trail import AUDIT_KEYS, BEGAN_US, HOUR_US, RULES, SEAL_KEYS, SealedTrail, chain_of, checked


def sealed(*ranges: int) -> SealedTrail:
    """A trail with ranges of so many lines, each sealed an hour after the former."""
    made = SealedTrail()
    for count in ranges:
        for _ in range(count):
            made.write()
        made.seal()
        made.now_us += HOUR_US
    return made


def kinds(report: TrailReport) -> list[str]:
    return [found.kind.value for found in report.findings]


def moved(record: StoredRecord, by: int) -> StoredRecord:
    return replace(record, offset=record.offset + by)


def test_a_seal_names_its_range_count_and_former_seal() -> None:
    made = sealed(2, 3)
    second, first = made.head(), chain_of(made.records[:3]).head
    assert first is not None
    assert second is not None
    assert (first.number, first.first, first.count, first.former, first.former_at) == (1, 10, 2, None, None)
    assert (second.number, second.first, second.count, second.former_at) == (2, first.next, 3, first.at)
    assert second.first <= made.records[2].offset < second.next, "the former seal stands inside the range"
    assert second.first_at == made.records[3].at_us


def test_without_new_records_no_seal_is_made() -> None:
    assert sealed(2).read_by_a_sealer() is None
    assert SealedTrail().read_by_a_sealer() is None


@pytest.mark.parametrize(
    ("age_us", "due"), [(HOUR_US // 2, False), (HOUR_US * 8 // 10, True), (-HOUR_US, False), (-HOUR_US - 1, True)]
)
def test_a_partition_is_due_by_the_age_of_its_newest_seal(age_us: int, *, due: bool) -> None:
    head = sealed(1).head()
    assert head is not None
    assert is_due(head, head.at + age_us, HOUR_US) is due
    assert is_due(None, 0, HOUR_US)


@pytest.mark.parametrize(("behind", "counts"), [(WINDOW, True), (WINDOW + 1, False)])
def test_a_seal_too_far_behind_its_range_does_not_count(behind: int, *, counts: bool) -> None:
    made = sealed(3)
    *lines, seal = made.records
    late = replace(seal, offset=made.head().next + behind)  # type: ignore[union-attr]
    found = chain_of([*lines, late])
    assert (found.head is not None, found.passed_over) == (counts, 0 if counts else 1)
    assert found.unsealed.count == (0 if counts else 3)


def test_records_behind_a_range_stay_unsealed_however_late_their_seal_stands() -> None:
    """Whatever the fold keeps one by one, and whatever it has hashed already."""
    made = sealed(3)
    *lines, seal = made.records
    after = [moved(line, by) for line, by in zip(lines, (20, 70_000, 80_000), strict=True)]
    late = replace(seal, offset=seal.offset + 95_000)
    found = chain_of([*lines, *after, late])
    assert found.head is not None
    assert found.unsealed.count == 3
    assert checked([*lines, *after, late]).findings == ()


def test_the_fold_of_a_long_unsealed_range_keeps_few_records() -> None:
    made = sealed(3)
    lines = [replace(made.records[0], offset=10 + at * 1_000) for at in range(1_000)]
    found = chain_of(lines)
    assert found.unsealed.count == 1_000
    assert len(found._recent) == WINDOW // 1_000 + 1


def test_the_age_of_unsealed_records_becomes_a_finding() -> None:
    made = sealed(2)
    made.write()
    made.now_us += 4 * HOUR_US
    made.partition = 4
    made.write()
    report = checked(made.records)
    assert kinds(report) == ["unsealed"]
    assert report.findings[0].text == "1 records wait for a seal, the first for 240 min"
    assert report.partitions[0].unsealed.since_us == BEGAN_US + HOUR_US


def test_a_beginning_that_retention_explains_is_named_and_no_finding() -> None:
    made = sealed(2, 2, 2)
    rest = made.records[2:]
    young, old = checked(rest), checked(rest, now_us=made.now_us + RULES.retention_us)
    assert kinds(young) == ["beginning_gone"]
    assert "too early for retention" in young.findings[0].text
    assert old.findings == ()
    assert old.partitions[0].gone == "what stood before offset 14 is gone; seal 1 covered it from 10 on"


def test_a_beginning_inside_the_second_range_of_the_log_is_explained_too() -> None:
    """The first seal that is left stands behind the records that came between its reading and its writing."""
    made = sealed(2)
    made.write()
    pending = made.read_by_a_sealer()
    made.write()
    made.append(chain.message(pending))  # type: ignore[arg-type]
    made.seal()
    rest = made.records[5:]
    assert [chain.is_seal(record) for record in rest] == [True, True]
    old, young = checked(rest, now_us=made.now_us + RULES.retention_us + 1), checked(rest)
    assert (kinds(old), kinds(young)) == ([], ["beginning_gone"])


def test_a_rival_that_outlived_the_seal_before_it_is_explained_by_retention() -> None:
    made = SealedTrail()
    made.write()
    rival = made.read_by_a_sealer()
    made.seal()
    for _ in range(2):
        made.write()
        made.seal()
        if rival is not None:
            made.append(chain.message(rival))
            rival = None
    assert checked(made.records).partitions[0].passed_over == 1
    rest = made.records[4:]
    assert [seal.number for seal in (chain.genuine(record, SEAL_KEYS) for record in rest) if seal] == [1, 3]
    assert kinds(checked(rest, now_us=made.now_us + RULES.retention_us + HOUR_US)) == []
    assert kinds(checked(rest)) == ["beginning_gone"]


def test_a_missing_seal_is_one_finding_and_the_next_ranges_are_compared_again() -> None:
    made = sealed(2, 2, 2, 2)
    # A range is two lines and a seal: the second seal is at 5, the first line of the last range at 9.
    without_seal = [record for place, record in enumerate(made.records) if place != 5]
    assert kinds(checked(without_seal)) == ["missing_seal"]
    without_both = [record for place, record in enumerate(made.records) if place not in {5, 9}]
    assert kinds(checked(without_both)) == ["missing_seal", "missing"]


@pytest.mark.parametrize(
    ("places", "kind"), [([2], "missing_seal"), ([2, 5], "missing_seal"), ([0], "beginning_gone"), ([4], "missing")]
)
def test_what_was_removed_is_named_once_by_its_kind(places: list[int], kind: str) -> None:
    made = sealed(2, 2, 2)
    left = [record for place, record in enumerate(made.records) if place not in places]
    assert kinds(checked(left)) == [kind]


def test_what_was_inserted_into_a_range_is_named_by_its_kind() -> None:
    first, *rest = sealed(2, 2).records
    assert kinds(checked([first, moved(first, 1), *rest])) == ["inserted"]


def test_a_seal_that_follows_a_rival_and_not_the_chain_is_a_finding() -> None:
    """As of two sealers with different keys, each of which takes the other's seals for forged."""
    made = sealed(1)
    made.write()
    made.seal()
    head = made.head()
    assert head is not None
    astray = chain.signed(head.model_copy(update={"first": head.first - 1}), SEAL_KEYS[0])
    records = [*made.records[:-1], replace(made.records[-1], value=chain.message(astray).value)]
    report = checked(records)
    assert kinds(report) == ["missing_seal"]
    assert report.findings[0].text == "seal 2 begins at offset 11, and seal 1 ends before 12"


def test_a_trail_without_a_seal_of_an_earlier_verification_is_a_finding() -> None:
    """The newest seals, or the whole topic, can be removed without a gap in the chain."""
    made = sealed(2, 2)
    (before,) = checked(made.records).partitions
    assert before.head_number is not None
    assert before.head_at_us is not None
    rules = replace(RULES, known={3: KnownSeal(before.head_number, before.head_hash, before.head_at_us)})
    made.write()
    made.seal()
    assert checked(made.records, rules).findings == ()
    for records in (made.records[:3], []):
        assert kinds(checked(records)) == []
        report = checked(records, rules)
        assert kinds(report) == ["missing_seal"]
        assert report.findings[0].text == "seal 2 of an earlier verification is not in the trail any more"
    assert kinds(checked([], rules, now_us=before.head_at_us + RULES.retention_us)) == []


def test_a_rotated_out_key_makes_its_records_and_seals_unprovable() -> None:
    made = sealed(2)
    made.write(AUDIT_KEYS[1])
    made.seal(SEAL_KEYS[1])
    new = TrailRules(AUDIT_KEYS[:1], SEAL_KEYS[:1], RULES.retention_us, RULES.unsealed_us)
    assert checked(made.records).findings == ()
    assert kinds(checked(made.records, new)) == ["changed", "forged_seal"]


def test_a_genuine_seal_of_another_partition_is_out_of_place() -> None:
    made, other = sealed(2), SealedTrail(partition=4)
    other.write()
    other.seal()
    stranger = replace(other.records[-1], partition=3, offset=made.end)
    report = checked([*made.records, stranger])
    assert kinds(report) == ["forged_seal"]
    assert "partition 4" in report.findings[0].text


def test_a_record_under_the_key_of_another_tenant_is_changed() -> None:
    made = sealed(2)
    moved_to_another = replace(made.records[0], key=made.records[0].key.replace("9", "8"))
    assert kinds(checked([moved_to_another, *made.records[1:]])) == ["changed"]


def test_many_findings_of_a_kind_are_counted_and_the_first_kept() -> None:
    made = SealedTrail()
    for _ in range(KEPT_OF_A_KIND + 5):
        made.write(b"a key that nobody in the house has")
    report = checked(made.records)
    assert len(report.findings) == KEPT_OF_A_KIND
    assert report.counts == {FindingKind.CHANGED: KEPT_OF_A_KIND + 5}


def test_an_exported_record_is_read_back_to_the_byte() -> None:
    made = sealed(1).records
    odd = [
        replace(made[0], offset=90 + at, value=value)
        for at, value in enumerate((b"\xff\x00", None, b"", "→\n".encode()))
    ]
    lines = [exported(record) for record in (*made, *odd)]
    assert not any("\n" in line for line in lines)
    assert list(imported(iter(line.encode() for line in lines), AUDIT.name)) == [*made, *odd]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"", "line 2: line: json_invalid"),
        (b'{"partition": "0"}', "line 2: partition: int_type"),
        (b'{"partition":0,"offset":1,"at":"2024-01-01T00:00:00Z","key":"","headers":{},"value_base64":"?"}',
         "line 2: value_base64: no base64"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_named_without_its_content(line: bytes, fault: str) -> None:
    good = exported(sealed(1).records[0]).encode()
    with pytest.raises(Misread) as raised:
        list(imported(iter((good, line)), AUDIT.name))
    assert str(raised.value) == fault


def test_only_a_seal_is_taken_for_a_seal() -> None:
    line, seal = sealed(1).records
    assert (chain.is_seal(line), chain.is_seal(seal)) == (False, True)
    disguised = replace(line, headers=line.headers | {"ce_type": "lifecycle.seal.v1"})
    assert chain.genuine(disguised, SEAL_KEYS) is None
    assert chain.genuine(replace(seal, value=None), SEAL_KEYS) is None
