"""A claim is believed when it is the MAC of these bytes under a secret in force, and never otherwise."""

import ast
from pathlib import Path

import pytest

from services.core import signature
from services.core.signature import Secrets, claimed, sign, verify

BODY = b'{"event":"installed"}'
CURRENT, PREVIOUS = b"c" * 32, b"p" * 32
ROTATED = Secrets(CURRENT, PREVIOUS, not_after_us=1_000)


def claim(secret: bytes, body: bytes = BODY) -> bytes:
    found = claimed(sign(secret, body).encode())
    assert found is not None
    return found


def test_the_guides_algorithm_is_hex_hmac_sha256_of_the_raw_body() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"Jefe", b"what do ya want for nothing?") == expected


@pytest.mark.parametrize("prefix", ["", "sha256="])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_signature_is_64_hex_digits_with_an_optional_prefix(prefix: str, case: type[str]) -> None:
    assert claimed((prefix + case("ab" * 32)).encode()) == bytes.fromhex("ab" * 32)


@pytest.mark.parametrize(
    "header",
    [
        b"", b"ab" * 31, b"ab" * 33, b"ab" * 32 + b"\n", b" " + b"ab" * 32, b"a1 b" * 16, b"xy" * 32,
        "é".encode("latin-1") * 64, b"SHA256=" + b"ab" * 32, b"sha256=sha256=" + b"ab" * 32, b"sha1=" + b"ab" * 32,
    ],
    ids=[
        "empty", "short", "long", "newline", "space before", "spaces within", "not hex",
        "latin-1", "upper prefix", "prefix twice", "other algorithm",
    ],
)  # fmt: skip
def test_anything_else_is_no_signature(header: bytes) -> None:
    assert claimed(header) is None


def test_the_current_secret_signs() -> None:
    assert verify(Secrets(CURRENT), claim(CURRENT), BODY, 0)


def test_another_secret_or_another_body_does_not() -> None:
    assert not verify(Secrets(CURRENT), claim(PREVIOUS), BODY, 0)
    assert not verify(Secrets(CURRENT), claim(CURRENT), BODY + b" ", 0)


def test_the_previous_secret_signs_until_it_expires() -> None:
    assert verify(ROTATED, claim(PREVIOUS), BODY, 999)
    assert not verify(ROTATED, claim(PREVIOUS), BODY, 1_000)
    assert verify(ROTATED, claim(CURRENT), BODY, 1_000)


def test_the_key_of_nobody_proves_nothing() -> None:
    dummy = claim(signature._NOBODY)
    assert not verify(None, dummy, BODY, 0)
    assert not verify(Secrets(CURRENT), dummy, BODY, 0)


def test_one_wrong_bit_anywhere_is_a_forgery() -> None:
    true = claim(CURRENT)
    for position in range(len(true) * 8):
        wrong = bytearray(true)
        wrong[position // 8] ^= 1 << (position % 8)
        assert not verify(Secrets(CURRENT), bytes(wrong), BODY, 0)


def test_a_secret_is_not_shown() -> None:
    assert "ccc" not in repr(ROTATED)
    assert "ppp" not in repr(ROTATED)


def _comparisons(path: Path) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
            names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
            names |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
            secret = {n for n in names if any(word in n.lower() for word in ("digest", "mac", "claim", "signature"))}
            found += [f"{path.name}:{node.lineno} {name}" for name in sorted(secret)]
    return found


def test_no_digest_is_compared_with_an_operator() -> None:
    root = Path(signature.__file__).parents[1]
    files = [*root.glob("core/signature.py"), *root.glob("ingress/*.py"), *root.glob("adapters/keyring.py")]
    assert len(files) > 10
    assert [found for path in files for found in _comparisons(path)] == []


def test_the_lint_sees_such_a_comparison(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def f(digest, claim):\n    return digest == claim\n")
    assert _comparisons(bad) == ["bad.py:2 claim", "bad.py:2 digest"]
