"""What the keyring file says of an endpoint is what its gate believes: two secrets, one of them until an instant."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from schemas.times import rfc3339
from services.adapters import keyring
from services.adapters.settings import Unusable
from services.core import signature
from services.core.signature import claimed, sign, verify
from services.ingress.gates import Gate, gates
from tests.ingress_process import ORG, PREVIOUS, SECRET

BODY = b'{"event":"installed"}'
MS = 1000
NOT_AFTER = 1_800_000_000_000_000


def held(tmp_path: Path, **fields: Any) -> dict[str, Gate]:
    path = tmp_path / "keyring.json"
    endpoint = {"current": {"secret": SECRET}, "previous": {"secret": PREVIOUS, "not_after": rfc3339(NOT_AFTER)}}
    path.write_text(json.dumps({"endpoints": {"default": endpoint | fields}}))
    return gates(keyring.load(path))


def believed(gate: Gate | None, secret: str, now_us: int) -> bool:
    claim = claimed(sign(secret.encode(), BODY).encode())
    assert claim is not None
    return verify(None if gate is None else gate.secrets, claim, BODY, now_us)


@pytest.mark.parametrize(
    ("at_us", "previous"),
    [(NOT_AFTER - MS, True), (NOT_AFTER, False), (NOT_AFTER + MS, False)],
    ids=["1 ms before", "at that instant", "1 ms after"],
)
def test_the_previous_secret_is_believed_until_not_after_and_the_current_one_always(
    tmp_path: Path, at_us: int, *, previous: bool
) -> None:
    gate = held(tmp_path)["default"]
    assert believed(gate, PREVIOUS, at_us) is previous
    assert believed(gate, SECRET, at_us)


def test_an_instant_with_an_offset_is_that_instant(tmp_path: Path) -> None:
    in_delhi = {"secret": PREVIOUS, "not_after": "2027-01-15T13:30:00+05:30"}
    gate = held(tmp_path, previous=in_delhi)["default"]
    assert rfc3339(NOT_AFTER) == "2027-01-15T08:00:00.000000Z"
    assert [believed(gate, PREVIOUS, NOT_AFTER + ms * MS) for ms in (-1, 1)] == [True, False]


def test_an_endpoint_without_a_previous_secret_believes_one(tmp_path: Path) -> None:
    gate = held(tmp_path, previous=None)["default"]
    assert believed(gate, SECRET, 0)
    assert not believed(gate, PREVIOUS, 0)
    assert not believed(gate, signature._NOBODY.decode(), 0), "what stands in for it is public"


def test_an_endpoint_that_is_not_there_believes_nobody(tmp_path: Path) -> None:
    assert not believed(held(tmp_path).get("another"), SECRET, 0)


@pytest.mark.parametrize("which", ["unknown", "no previous", "expired", "current", "previous"])
def test_whoever_asks_costs_two_macs(tmp_path: Path, which: str) -> None:
    former = {"previous": None} if which == "no previous" else {}
    gate = held(tmp_path, **former).get("another" if which == "unknown" else "default")
    secret, now_us = PREVIOUS if which == "previous" else SECRET, NOT_AFTER if which == "expired" else 0
    compared: list[str] = []

    def heard(_: Any, event: str, called: Any) -> None:
        if event == "c_call" and called.__name__ == "compare_digest":
            compared.append(event)

    sys.setprofile(heard)
    try:
        believed(gate, secret, now_us)
    finally:
        sys.setprofile(None)
    assert len(compared) == 2


def test_a_gate_shows_no_secret_and_speaks_for_whom_it_is_bound_to(tmp_path: Path) -> None:
    gate = held(tmp_path, orgs=[ORG.upper()])["default"]
    assert gate.binding.covers(f"{ORG}:anything")
    assert not gate.binding.covers(f"{ORG[::-1]}:anything")
    assert "canary" not in repr(gate)


def test_a_keyring_without_endpoints_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    path.write_text('{"endpoints": {}}')
    with pytest.raises(Unusable, match="endpoints: empty"):
        gates(keyring.load(path))
