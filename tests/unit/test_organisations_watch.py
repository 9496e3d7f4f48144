"""Added, changed, removed and broken organisation files are noticed; a broken file costs its organisation only."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from services.adapters.genesys.organisations_watch import OrganisationChanges, OrganisationsWatch
from services.adapters.process import logs, metrics
from services.adapters.process.file_identity import file_identity
from tests.support.genesys_worlds import ORG

OTHER = "22222222-2222-4222-8222-222222222222"
NOTHING = OrganisationChanges()


@dataclass
class Folder:
    """A folder of organisation files, and looks at it a second apart."""

    path: Path
    now_s: float = 0.0
    said: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.watch = OrganisationsWatch(self.path, logs.configure("reconciler", "info"))

    def write(self, org_id: str, **changes: Any) -> None:
        content = {"org_id": org_id, "client_id": "c", "client_secret": "canary", **changes}
        (self.path / f"{org_id}.json").write_text(json.dumps(content))

    def look(self, after_s: float = 1.0) -> OrganisationChanges:
        self.now_s += after_s
        with capture_logs() as said:
            changes = self.watch.look(self.now_s)
        self.said = [(line["event"], line.get("org")) for line in said]
        assert "canary" not in str(said)
        return changes


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    made = Folder(tmp_path)
    made.look()
    yield made
    for state in ("usable", "broken"):
        metrics.RECONCILER_FILES.labels(state=state).set(0)


def files(state: str) -> float:
    return float(metrics.RECONCILER_FILES.labels(state=state)._value.get())


def test_added_changed_and_removed_files_are_noticed_once(folder: Folder) -> None:
    folder.write(ORG)
    assert folder.look() == OrganisationChanges(added=frozenset({ORG}))
    assert folder.said == [("organisation files changed", None)]
    assert folder.look() == NOTHING
    assert folder.said == []
    folder.write(ORG, client_id="another")
    assert folder.look() == OrganisationChanges(changed=frozenset({ORG}))
    (folder.path / f"{ORG}.json").unlink()
    assert folder.look() == OrganisationChanges(removed=frozenset({ORG}))
    assert folder.watch.known == frozenset()


def test_a_file_written_again_with_the_same_content_is_no_change(folder: Folder) -> None:
    folder.write(ORG)
    folder.look()
    folder.write(ORG)
    assert folder.look() == NOTHING


def test_a_broken_file_is_named_once_and_costs_its_organisation_only(folder: Folder) -> None:
    folder.write(ORG)
    folder.write(OTHER)
    folder.look()
    (folder.path / f"{ORG}.json").write_text("{")
    assert folder.look() == NOTHING, "a broken file is not a removed one"
    assert folder.said == [("organisation file broken", ORG)]
    assert folder.watch.known == {OTHER}
    assert (files("usable"), files("broken")) == (1, 1)
    folder.look()
    assert folder.said == []
    folder.write(ORG)
    assert folder.look() == OrganisationChanges(changed=frozenset({ORG}))
    assert (files("usable"), files("broken")) == (2, 0)


def test_a_broken_file_present_at_the_start_is_named(tmp_path: Path) -> None:
    (tmp_path / f"{ORG}.json").write_text("{")
    log = logs.configure("reconciler", "info")
    with capture_logs() as said:
        OrganisationsWatch(tmp_path, log)
    assert [(line["event"], line["org"]) for line in said] == [("organisation file broken", ORG)]


def test_two_writes_within_a_tick_of_the_clock_are_noticed(folder: Folder) -> None:
    folder.write(ORG, client_id="one")
    folder.look()
    path = folder.path / f"{ORG}.json"
    before = path.stat()
    folder.write(ORG, client_id="two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    folder.watch._identities = {path: file_identity(path)}  # as if both fell into one tick of the clock
    assert folder.look() == OrganisationChanges(changed=frozenset({ORG}))


def test_a_folder_that_cannot_be_read_removes_no_organisation(folder: Folder) -> None:
    folder.write(ORG)
    folder.look()
    aside = folder.path.with_name("aside")
    folder.path.rename(aside)
    folder.path.write_text("a file in its place")
    assert folder.look() == NOTHING
    assert folder.said == [("organisation file broken", str(folder.path))]
    folder.path.unlink()
    aside.rename(folder.path)
    assert folder.look() == NOTHING
    assert folder.watch.known == {ORG}
