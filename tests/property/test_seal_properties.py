"""Any single tampering with a sealed range is found, and an honest trail has no finding."""

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import codec
from schemas.seal import Seal
from schemas.stored import StoredRecord
from services.core.seals import chain
from tests.support.examples import examples
from tests.support.sealed_trail import AUDIT_KEYS, HOUR_US, SEAL_KEYS, SealedTrail, checked

acts = st.lists(
    st.one_of(
        st.just(("write", 0)), st.just(("write", 1)), st.tuples(st.just("repeat"), st.integers(0, 5)),
        st.tuples(st.just("seal"), st.integers(0, 1)), st.tuples(st.sampled_from(("read", "late")), st.just(0)),
    ),
    max_size=40,
)  # fmt: skip


def trail(acts: list[tuple[str, int]]) -> SealedTrail:
    """A trail by one sealer, and by a second one that reads (`read`) and writes what it read only later (`late`)."""
    made, pending = SealedTrail(), None
    for act, number in acts:
        made.now_us += HOUR_US // 100
        match act:
            case "write":
                made.write(AUDIT_KEYS[number])
            case "repeat":
                made.repeat(number)
            case "seal":
                made.seal(SEAL_KEYS[number])
            case "read":
                pending = made.read_by_a_sealer()
            case _:
                if pending is not None:
                    made.append(chain.message(pending))
                    pending = None
    return made


def sealed(made: SealedTrail) -> int:
    """Number of leading records inside sealed ranges."""
    head = made.head()
    return 0 if head is None else sum(record.offset < head.next for record in made.records)


def sealed_trail(acts: list[tuple[str, int]]) -> SealedTrail:
    """The same with a sealed range, at its end if the acts make none."""
    made = trail(acts)
    if not sealed(made):
        made.write()
        made.seal()
    return made


tried = settings(max_examples=examples(200), deadline=None)


@tried
@given(acts)
def test_an_honest_trail_has_no_finding(told: list[tuple[str, int]]) -> None:
    made = trail(told)
    report = checked(made.records)
    assert report.findings == ()
    assert sum(part.records for part in report.partitions) == sum(not chain.is_seal(r) for r in made.records)


@tried
@given(acts, st.data())
def test_a_trail_without_what_retention_removed_has_no_finding(
    told: list[tuple[str, int]], data: st.DataObject
) -> None:
    made = trail(told)
    cut = data.draw(st.integers(0, len(made.records)))
    report = checked(made.records[cut:], now_us=made.now_us + 401 * 24 * HOUR_US)
    assert report.findings == ()


@tried
@given(acts, st.data())
def test_a_beginning_removed_before_its_time_is_found(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    last_seal = max(place for place, record in enumerate(made.records) if chain.is_seal(record))
    cut = data.draw(st.integers(1, last_seal))
    assert checked(made.records[cut:]).findings


@tried
@given(acts, st.data())
def test_a_removed_record_or_seal_is_found(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    place = data.draw(st.integers(0, sealed(made) - 1))
    assert checked(made.records[:place] + made.records[place + 1 :]).findings


@tried
@given(acts, st.data())
def test_a_changed_record_or_seal_is_found(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    place = data.draw(st.integers(0, sealed(made) - 1))
    victim = made.records[place]
    fields = json.loads(victim.value or b"")
    name = data.draw(st.sampled_from(sorted(set(fields) - {"first_at", "former_at", "at"})))
    was = fields[name]
    fields[name] = was + 1 if isinstance(was, int) else "0" * 64 if was != "0" * 64 else "1" * 64
    changed = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode()
    records = list(made.records)
    records[place] = replace(victim, value=changed)
    assert checked(records).findings


@tried
@given(acts, st.data())
def test_two_swapped_records_or_seals_are_found(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    count = sealed(made)
    one, other = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    first, second = made.records[one], made.records[other]
    records = list(made.records)
    records[one] = replace(second, offset=first.offset)
    records[other] = replace(first, offset=second.offset)
    # Repeats are equal to the byte: an exchange of two changes nothing.
    assert bool(checked(records).findings) == (first.value != second.value)


@tried
@given(acts, st.data())
def test_an_inserted_copy_of_a_record_or_seal_is_found(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    place = data.draw(st.integers(0, sealed(made) - 1))
    copy = data.draw(st.sampled_from(made.records))
    found = made.records[place]
    records = list(made.records)
    records.insert(place + 1 if found.offset % 2 else place, replace(copy, offset=found.offset - 1))
    assert checked(records).findings


@tried
@given(acts, st.data())
def test_a_record_of_a_stranger_is_found_anywhere(told: list[tuple[str, int]], data: st.DataObject) -> None:
    made = sealed_trail(told)
    place = data.draw(st.integers(0, len(made.records) - 1))
    like = made.records[place]
    forged = data.draw(st.sampled_from((_forged_line, _forged_seal)))(made)
    records = list(made.records)
    records.insert(place, replace(forged, offset=like.offset - 1))
    assert checked(records).findings


def _forged_line(made: SealedTrail) -> StoredRecord:
    other = SealedTrail(partition=made.partition, now_us=made.now_us)
    other.write(b"a key that nobody in the house has")
    return other.records[0]


def _forged_seal(made: SealedTrail) -> StoredRecord:
    other = SealedTrail(partition=made.partition, now_us=made.now_us)
    other.write()
    other.seal(b"a key that nobody in the house has")
    return other.records[1]


@tried
@given(acts, st.data())
def test_every_field_of_a_seal_is_under_its_mac(told: list[tuple[str, int]], data: st.DataObject) -> None:
    """Also the times, from which retention is judged."""
    made = sealed_trail(told)
    seals = [record for record in made.records if chain.is_seal(record)]
    seal = chain.genuine(data.draw(st.sampled_from(seals)), SEAL_KEYS)
    assert seal is not None
    name = data.draw(st.sampled_from(sorted(Seal.model_fields)))
    was = getattr(seal, name)
    is_number = isinstance(was, int) or name == "former_at"
    changed = seal.model_copy(update={name: (was or 0) + 1 if is_number else "f" * 64})
    true, false = (replace(seals[0], value=codec.dump(one)) for one in (seal, changed))
    assert chain.genuine(true, SEAL_KEYS) == seal
    assert chain.genuine(false, SEAL_KEYS) is None
