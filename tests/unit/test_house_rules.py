"""The code keeps the rules of the house, and a breach of each rule is found."""

from pathlib import Path

import pytest

from tests.house_rules import (
    CHANGES_NO_STATE,
    PROVES_NOBODY,
    breaches,
    comparisons,
    foreign_changes,
    state_changes,
)


@pytest.mark.parametrize(
    "breach",
    [
        "digest == claim",
        "expected != claimed",
        "self._mac == theirs",
        "head.signature != ours",
        "theirs == configuration_mac",
        "theirs == bodyMac",
        "hashlib.sha256(body).hexdigest() == theirs",
        "hmac.new(key, body, 'sha256').digest() != theirs",
        "hmac.digest(key, body, 'sha256') == theirs",
        "sign(key, body) == theirs",
        "mac.hex() == theirs",
        "bytes(claim) == theirs",
        "signature.value == theirs",
        "row['mac'] == theirs",
        "row.get('signature') == theirs",
        "mac[:16] == theirs",
        "claim in accepted",
        "theirs not in macs",
        "theirs in {current_mac, previous_mac}",
        "0 < 1 == digest",
        "(digest if known else nobody) == theirs",
    ],
)
def test_a_proof_compared_by_value_is_found(breach: str) -> None:
    assert [line for line, _ in comparisons(f"def f():\n    return {breach}\n")] == [2]


@pytest.mark.parametrize(
    "fine",
    [
        "compare_digest(digest, claim)",
        "claim is None",
        "len(claim) == 32",
        "length == DIGEST_BYTES",
        "claim.epoch == epoch",
        "kind == 'signature'",
        "assigned == designed",
        "machine != stomach",
        "row['machine'] == 1",
        "size < claim",
    ],
)
def test_a_comparison_without_a_proof_is_accepted(fine: str) -> None:
    assert list(comparisons(fine)) == []


def test_a_breach_is_reported_by_file_line_and_comparison(tmp_path: Path) -> None:
    for name in ("services/core/bad.py", "schemas/bad.py", "tests/bad.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def proved(mac, claim):\n    return (mac\n        == claim)\n")
    told = ":2: `mac == claim`: compare a proof with hmac.compare_digest"
    assert breaches(tmp_path, {}) == [f"schemas/bad.py{told}", f"services/core/bad.py{told}"]


def test_an_exception_covers_one_comparison_of_one_file(tmp_path: Path) -> None:
    module = tmp_path / "services" / "look.py"
    module.parent.mkdir()
    module.write_text("same = mac == other\n")
    excepted = {("services/look.py", "mac == other"): "both are ours"}
    assert breaches(tmp_path, excepted) == []
    module.write_text("same = mac == another\n")
    assert len(breaches(tmp_path, excepted)) == 2, "the new one is not excepted, and the old one is not there"


@pytest.mark.parametrize(
    ("imports", "change"),
    [
        ("from schemas.saga import Journal", "Journal()"),
        ("from schemas.saga import Journal as J", "J(phase=phase)"),
        ("from schemas import saga", "saga.StepLog(n=1)"),
        ("import schemas.saga", "schemas.saga.Life(generation=1)"),
        ("import schemas.saga as kept", "kept.Standstill(step='crm', since=1)"),
        ("from schemas.rows import TenantRow", "TenantRow(key)"),
        ("from schemas.rows import Entry", "Entry(*fields)"),
        ("from schemas.journal import Registers", "Registers()"),
        ("from schemas.saga import Journal", "Journal.model_construct(phase=phase)"),
        ("", "journal.model_copy(update={'held': None})"),
        ("", "claim.journal.life.model_copy(update={'steps': {}})"),
        ("from dataclasses import replace\nfrom schemas.rows import TenantRow", "replace(row, version=2)"),
        ("import dataclasses\nfrom schemas import rows", "dataclasses.replace(row, version=2)"),
        ("import copy\nfrom schemas.rows import StageRow", "copy.replace(row, version=2)"),
        ("from schemas.journal import Registers", "row.now._replace(enabled=None)"),
        ("from schemas.journal import Registers", "Registers._make(found)"),
    ],
)
def test_a_journal_or_row_that_is_made_or_changed_is_seen(imports: str, change: str) -> None:
    text = f"def f():\n    return {change}\n"
    found = list(state_changes(f"{imports}\n{text}"))
    assert found == [(imports.count("\n") + 3, change.partition("(")[0])]


@pytest.mark.parametrize(
    ("imports", "fine"),
    [
        ("from schemas.saga import Journal", "decode(Journal, value)"),
        ("from schemas.saga import Journal", "Journal.model_validate_json(text)"),
        ("from schemas.saga import Phase", "Phase(text)"),
        ("from schemas.rows import TenantRow", "unpack(TenantRow, packed)"),
        ("from schemas.rows import TenantRow", "text.replace('a', 'b')"),
        ("from services.core.saga.intents import hold", "hold(journal, desired, reason, now_us)"),
        ("from dataclasses import replace", "replace(prepared, why=why)"),
        ("from services.core.saga.moves import Wait", "Wait(now_us)"),
        ("from somewhere import Journal", "Journal()"),
    ],
)
def test_a_journal_or_row_that_is_read_and_passed_on_is_let_be(imports: str, fine: str) -> None:
    assert list(state_changes(f"{imports}\nfound = {fine}\n")) == []


def test_a_change_of_state_is_refused_everywhere_but_in_core(tmp_path: Path) -> None:
    retry = "journal = retried_journal(claim.journal).model_copy(update={'lines': 1})\n"
    for name in ("services/cli/sagas.py", "services/adapters/registry/registry.py", "services/core/saga/retry.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(retry)
    call = "retried_journal(claim.journal).model_copy"
    told = [sentence.partition(": only")[0] for sentence in foreign_changes(tmp_path, {})]
    assert told == [f"services/adapters/registry/registry.py:1: `{call}`", f"services/cli/sagas.py:1: `{call}`"]
    excepted = {("services/cli/sagas.py", call): "a reason"}
    assert len(foreign_changes(tmp_path, excepted)) == 1
    (tmp_path / "services/cli/sagas.py").write_text("")
    assert foreign_changes(tmp_path, excepted)[1:] == [f"services/cli/sagas.py: `{call}` is excepted and not there"]


def test_every_exception_has_a_reason() -> None:
    assert all(PROVES_NOBODY.values())
    assert all(CHANGES_NO_STATE.values())
