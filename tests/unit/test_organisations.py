"""The folder of organisation files: an unreadable file is named, and never counts as an empty organisation."""

import json
from pathlib import Path

from services.adapters.genesys import organisations
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
        "broken": "file: json_invalid",
        "folder": "cannot be read: Is a directory",
    }
