"""Findings of `lifecycle doctor` about files of this machine."""

import json
from pathlib import Path

import pytest

from services.adapters.process.environment import read
from services.adapters.process.settings import Settings
from services.cli import keyring_contents
from services.cli.doctor import this_machine
from services.cli.doctor.finding import CheckContext, Health


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        (0o640, "read by its group"),
        (0o604, "read by every user"),
        (0o620, "changed by its group"),
        (0o602, "changed by every user"),
        (0o610, "executed by its group"),
        (0o666, "read by its group, changed by its group, read by every user, changed by every user"),
        (0o600, ""),
        (0o400, ""),
    ],
    ids=lambda value: oct(value) if isinstance(value, int) else None,
)
def test_doctor_reports_a_keyring_that_others_may_read_or_change(mode: int, said: str, tmp_path: Path) -> None:
    path = tmp_path / "keyring.json"
    keyring_contents.init(path)
    path.chmod(mode)
    chosen = read({"KEYRING_FILE": str(path)}, Settings)
    (finding,) = this_machine.keyring(CheckContext(chosen, {}, "", lambda: 0))
    if not said:
        assert finding.health is Health.WELL
        return
    assert (finding.health, finding.detail) == (Health.FAULT, f"{path} may be {said}")
    assert finding.cure == f"chmod 600 {path}"


def test_doctor_names_the_regions_nearest_to_a_mistyped_one(tmp_path: Path) -> None:
    org_id = "11111111-1111-4111-8111-111111111111"
    content = {"org_id": org_id, "client_id": "c", "client_secret": "canary", "region": "eu-wst-1"}
    (tmp_path / f"{org_id}.json").write_text(json.dumps(content))
    chosen = read({"ORGS_DIR": str(tmp_path)}, Settings)
    (finding,) = this_machine.organisations(CheckContext(chosen, {}, "", lambda: 0))
    assert finding.health is Health.FAULT
    assert "'eu-wst-1' is no region of Genesys Cloud; the nearest: eu-west-" in finding.detail
    assert "lifecycle orgs add" in finding.cure
