"""The rules of the house are kept by this code, and a breach of them would be seen."""

from pathlib import Path

import pytest

from tests.house_rules import PROVES_NOBODY, ROOT, breaches, comparisons, main


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
def test_a_proof_compared_by_its_value_is_seen(breach: str) -> None:
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
def test_what_compares_no_proof_is_let_be(fine: str) -> None:
    assert list(comparisons(fine)) == []


def test_a_breach_is_told_by_file_line_and_comparison(tmp_path: Path) -> None:
    for name in ("services/core/bad.py", "schemas/bad.py", "tests/bad.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("def proved(mac, claim):\n    return (mac\n        == claim)\n")
    told = ":2: `mac == claim`: compare a proof with hmac.compare_digest"
    assert breaches(tmp_path, {}) == [f"schemas/bad.py{told}", f"services/core/bad.py{told}"]


def test_an_exception_is_for_one_comparison_of_one_file_and_ends_with_it(tmp_path: Path) -> None:
    module = tmp_path / "services" / "look.py"
    module.parent.mkdir()
    module.write_text("same = mac == other\n")
    excepted = {("services/look.py", "mac == other"): "both are ours"}
    assert breaches(tmp_path, excepted) == []
    module.write_text("same = mac == another\n")
    assert len(breaches(tmp_path, excepted)) == 2, "the new one is not excepted, and the old one is not there"


def test_the_tree_keeps_the_rules() -> None:
    assert breaches(ROOT, PROVES_NOBODY) == []
    assert main() == 0


def test_every_exception_has_a_reason() -> None:
    assert all(PROVES_NOBODY.values())
