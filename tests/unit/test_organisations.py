"""The folder of organisation files: an unreadable file is named, and never counts as an empty organisation."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from schemas.genesys import Organisation
from services.adapters.genesys import organisations
from services.cli import orgs_text
from tests.support.genesys_worlds import ORG

GOOD = {"org_id": ORG, "client_id": "c", "client_secret": "s"}


def test_a_missing_folder_has_no_organisations(tmp_path: Path) -> None:
    assert organisations.load(tmp_path / "none") == organisations.Organisations()


def test_an_unreadable_folder_is_a_fault(tmp_path: Path) -> None:
    folder = tmp_path / "orgs"
    folder.write_text("a file")
    found = organisations.load(folder)
    assert found.known == {}
    assert found.faults == {str(folder): "the folder cannot be read: Not a directory"}


def test_a_bad_file_loses_its_organisation_only(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text(json.dumps(GOOD))
    (tmp_path / "acme.json").write_text(json.dumps(GOOD))
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "folder.json").mkdir()
    (tmp_path / "notes.txt").write_text("not ours")
    found = organisations.load(tmp_path)
    assert found.known.keys() == {ORG}
    assert found.faults == {
        "acme": "org_id: is not the name of the file",
        "broken": "file: is not JSON",
        "folder": "cannot be read: Is a directory",
    }


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"org_id": "acme"}, "org_id: must be a UUID"),
        ({"client_id": None}, "client_id: Input should be a valid string"),
        ({"client_id": ""}, "client_id: is empty"),
        ({"secret": "canary"}, "secret: is no field of such a file"),
        ({"integration_types": "ours"}, "integration_types: Input should be a valid array"),
        ({"integration_types": [""]}, "integration_types.0: is empty"),
    ],
    ids=str,
)
def test_a_fault_of_a_file_is_told_in_words_and_without_a_value(changes: dict[str, Any], fault: str) -> None:
    assert organisations.parse(json.dumps({**GOOD, "client_secret": "canary", **changes}).encode()) == fault


@pytest.mark.parametrize(
    ("changes", "types"),
    [
        ({}, []),
        ({"integration_types": []}, []),
        ({"integration_type": None}, []),
        ({"integration_types": ["a", "b"]}, ["a", "b"]),
        ({"integration_type": "a"}, ["a"]),
        ({"integration_type": "a", "integration_types": ["b"]}, ["a", "b"]),
        ({"integration_type": ""}, [""]),
    ],
    ids=str,
)
def test_the_types_of_a_file_are_read_in_both_forms(changes: dict[str, Any], types: list[str]) -> None:
    read = organisations.parse(json.dumps({**GOOD, **changes}).encode())
    assert not isinstance(read, str)
    assert sorted(read.types) == types


def test_a_listing_of_thousands_reads_the_folder_once(tmp_path: Path) -> None:
    ids = [str(UUID(int=number)) for number in range(2_000)]
    for org_id in ids:
        (tmp_path / f"{org_id}.json").touch(mode=0o600)
    found = organisations.Organisations({one: Organisation.model_validate({**GOOD, "org_id": one}) for one in ids})
    began_s = time.process_time()
    rows = orgs_text.rows(tmp_path, found, {}, None, 0)
    # The folder listed for each of them took 25 s and more.
    assert time.process_time() - began_s < 8
    assert [row["org"] for row in rows] == ids
    assert {Path(row["file"]).parent for row in rows} == {tmp_path}
