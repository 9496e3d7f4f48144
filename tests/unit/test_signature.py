"""A claim is accepted only as the MAC of these bytes under a valid secret."""

import pytest

from services.core.delivery import signature
from services.core.delivery.signature import Proof, Secrets, parse_claim, sign, verify

BODY = b'{"event":"installed"}'
CURRENT, PREVIOUS = b"c" * 32, b"p" * 32
ROTATED = Secrets(CURRENT, PREVIOUS, not_after_us=1_000)


def claim(secret: bytes, body: bytes = BODY) -> bytes:
    found = parse_claim(sign(secret, body).encode())
    assert found is not None
    return found


def test_the_guides_algorithm_is_hex_hmac_sha256_of_the_raw_body() -> None:
    # RFC 4231, test case 2.
    expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    assert sign(b"Jefe", b"what do ya want for nothing?") == expected


@pytest.mark.parametrize("length", [0, 1, 32, 63, 64, 65, 200])
def test_the_prepared_hmac_equals_the_library_hmac(length: int) -> None:
    key = bytes(range(length))
    assert signature._Keyed(key)(BODY) == bytes.fromhex(sign(key, BODY))


@pytest.mark.parametrize("prefix", ["", "sha256="])
@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_signature_is_64_hex_digits_with_an_optional_prefix(prefix: str, case: type[str]) -> None:
    assert parse_claim((prefix + case("ab" * 32)).encode()) == bytes.fromhex("ab" * 32)


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
def test_any_other_header_is_no_signature(header: bytes) -> None:
    assert parse_claim(header) is None


def test_a_signature_by_the_current_secret_is_proof() -> None:
    assert verify(Secrets(CURRENT), claim(CURRENT), BODY, 0) is Proof.CURRENT


def test_a_signature_by_another_secret_or_over_another_body_is_no_proof() -> None:
    assert not verify(Secrets(CURRENT), claim(PREVIOUS), BODY, 0)
    assert not verify(Secrets(CURRENT), claim(CURRENT), BODY + b" ", 0)


def test_the_previous_secret_is_proof_until_it_expires() -> None:
    assert verify(ROTATED, claim(PREVIOUS), BODY, 999) is Proof.PREVIOUS
    assert verify(ROTATED, claim(PREVIOUS), BODY, 1_000) is Proof.NONE
    assert verify(ROTATED, claim(CURRENT), BODY, 1_000) is Proof.CURRENT


def test_a_secret_that_was_rotated_to_itself_is_the_current_one() -> None:
    assert verify(Secrets(CURRENT, CURRENT, not_after_us=1_000), claim(CURRENT), BODY, 0) is Proof.CURRENT


def test_no_proof_is_false_and_every_other_is_true() -> None:
    assert [bool(proof) for proof in Proof] == [False, True, True]


def test_the_dummy_key_proves_no_delivery() -> None:
    dummy = claim(signature._DUMMY_KEY)
    assert not verify(None, dummy, BODY, 0)
    assert not verify(Secrets(CURRENT), dummy, BODY, 0)


def test_one_wrong_bit_anywhere_is_a_forgery() -> None:
    true = claim(CURRENT)
    for position in range(len(true) * 8):
        wrong = bytearray(true)
        wrong[position // 8] ^= 1 << (position % 8)
        assert not verify(Secrets(CURRENT), bytes(wrong), BODY, 0)


def test_the_repr_of_secrets_contains_no_secret() -> None:
    assert "ccc" not in repr(ROTATED)
    assert "ppp" not in repr(ROTATED)
