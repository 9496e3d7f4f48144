"""Findings of `lifecycle doctor` about files of this machine."""

import json
from pathlib import Path

import pytest

from schemas.keyring import Authority
from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
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


ORG, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"


def _events_endpoint(tmp_path: Path) -> CheckContext:
    """A keyring with an endpoint whose audits count as events, and a folder of organisations."""
    path, orgs = tmp_path / "keyring.json", tmp_path / "orgs"
    keyring_contents.init(path)
    made = keyring_contents.hint_endpoint(0, [ORG.upper(), OTHER], ["490606849374"], Authority.EVENT)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"hints": {"told": made}}))
    orgs.mkdir()
    return CheckContext(read({"KEYRING_FILE": str(path), "ORGS_DIR": str(orgs)}, Settings), {}, "", lambda: 0)


def test_doctor_warns_of_an_endpoint_whose_audits_count_as_events(tmp_path: Path) -> None:
    well, warned = this_machine.keyring(_events_endpoint(tmp_path))
    assert (well.health, well.detail) == (Health.WELL, "endpoints: default, told")
    assert warned.health is Health.SKIPPED
    assert "told: audits count as events" in warned.detail
    assert "credentials" in warned.cure


def test_doctor_finds_fault_where_audits_count_as_events_and_genesys_can_be_asked(tmp_path: Path) -> None:
    context = _events_endpoint(tmp_path)
    content = {"org_id": ORG, "client_id": "c", "client_secret": "canary", "region": "mypurecloud.ie"}
    (tmp_path / "orgs" / f"{ORG}.json").write_text(json.dumps(content))
    _, found = this_machine.keyring(context)
    assert found.health is Health.FAULT
    assert f"told: audits count as events for {ORG.upper()}, with credentials here" == found.detail


def test_doctor_checks_the_file_of_tenants(tmp_path: Path) -> None:
    path = tmp_path / "tenants.json"
    path.write_text(json.dumps({f"{ORG}:*": {"tenant_id": "acme"}}))
    context = CheckContext(read({"TENANTS_FILE": str(path)}, Settings), {}, "", lambda: 0)
    path.chmod(0o640)
    (open_to_others,) = this_machine.tenants_file(context)
    assert (open_to_others.health, open_to_others.cure) == (Health.FAULT, f"chmod 600 {path}")
    path.chmod(0o600)
    (well,) = this_machine.tenants_file(context)
    assert (well.health, well.detail) == (Health.WELL, f"1 line in {path}")
    path.write_text("{")
    with pytest.raises(Unusable, match="TENANTS_FILE"):
        list(this_machine.tenants_file(context))
    assert list(this_machine.tenants_file(CheckContext(read({}, Settings), {}, "", lambda: 0))) == []
