"""Sealed outputs open with any key of the keyring in their own context, and nowhere else."""

import json
from typing import Any

import pytest
from pydantic import SecretStr

from services.adapters.secrets.sealing import Sealer, Unsealable

OLD, NEW = SecretStr("o" * 32), SecretStr("n" * 32)
SECRET = frozenset({"token"})


def test_only_secret_outputs_are_sealed_and_they_open_again() -> None:
    sealed = Sealer([NEW]).seal("k/1/tokens", {"token": "canary", "id": "7"}, SECRET)
    assert sealed["id"] == "7"
    assert "canary" not in json.dumps(sealed)
    assert Sealer([NEW]).open("k/1/tokens", sealed) == {"token": "canary", "id": "7"}


def test_an_older_key_opens_sealed_outputs() -> None:
    sealed = Sealer([OLD]).seal("k/1/tokens", {"token": {"deep": [1]}}, SECRET)
    assert Sealer([NEW, OLD]).open("k/1/tokens", sealed) == {"token": {"deep": [1]}}


def test_sealed_outputs_do_not_open_with_another_key_or_in_another_context() -> None:
    sealed = Sealer([OLD]).seal("k/1/tokens", {"token": "x"}, SECRET)
    with pytest.raises(Unsealable):
        Sealer([NEW]).open("k/1/tokens", sealed)
    with pytest.raises(Unsealable):
        Sealer([OLD]).open("k/2/tokens", sealed)


@pytest.mark.parametrize("foreign", ["!!", 5, None, {}, ["x"], "", "AAAA", "A" * 40, "ü"])
def test_a_forged_sealed_value_does_not_open(foreign: Any) -> None:
    with pytest.raises(Unsealable):
        Sealer([NEW]).open("k/1/tokens", {"id": {"$sealed": foreign}})


def test_equal_values_seal_equally_in_one_context_and_differently_elsewhere() -> None:
    sealer = Sealer([NEW])
    assert sealer.seal("a", {"token": "x"}, SECRET) == sealer.seal("a", {"token": "x"}, SECRET)
    assert sealer.seal("a", {"token": "x"}, SECRET) != sealer.seal("b", {"token": "x"}, SECRET)
    assert sealer.seal("a", {"token": "x"}, SECRET) != sealer.seal("a", {"token": "y"}, SECRET)


def test_an_output_that_only_looks_sealed_is_returned_unchanged() -> None:
    told = {"token": "x", "id": {"$sealed": "AAAA"}}
    assert Sealer([NEW]).open("a", Sealer([NEW]).seal("a", told, SECRET)) == told
