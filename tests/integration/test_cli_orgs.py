"""`lifecycle orgs` against a real Genesys API: files are written by command, checked, listed and removed.

The commands are processes of their own, with the secret on standard input or typed at a terminal.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from schemas.genesys import Organisation
from services.adapters.genesys import organisations
from services.adapters.process.clock import now_us
from services.cli.exits import Exit
from services.core.reconcile.audit_gaps import cursor_for
from services.reconciler.audit_memory import AuditMemory
from tests.support.genesys_server import FakeGenesys, serving_beside
from tests.support.simulator_process import Outside
from tests.support.terminal import COLUMNS, on_terminal

OUR_TYPE = "lifecycle-premium-app"


class OrgsFolder:
    """An operator's working folder with an empty ORGS_DIR, and an organisation in Genesys with three integrations."""

    def __init__(self, genesys: Outside, folder: Path) -> None:
        self.genesys, self.folder, self.orgs = genesys, folder, folder / "orgs"
        self.org = self.organisation()

    def organisation(self) -> Organisation:
        """A fresh organisation; the simulator's own file tells its credentials."""
        org_id = str(uuid4())
        for _ in range(3):
            url = f"{self.genesys.url}/genesys/control/orgs/{org_id}/integrations/{uuid4()}"
            httpx2.put(url, json={"webhook": False}).raise_for_status()
        return organisations.load(self.genesys.orgs).known[org_id]

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PYTHONPATH": str(Path(__file__).parents[2]),
            "ORGS_DIR": str(self.orgs),
            "GENESYS_LOGIN_URL": f"{self.genesys.url}/genesys/login",
            "GENESYS_API_URL": f"{self.genesys.url}/genesys",
        }

    def run(self, *words: str, stdin: str = "", status: Exit = Exit.OK, **environ: str) -> str:
        """Run `lifecycle` with these words; standard output and error together."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.folder), **self.environ, **environ}
        argv = [sys.executable, "-m", "services.cli.main", *words]
        done = subprocess.run(
            argv, env=own, cwd=self.folder, input=stdin, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == status, done.stdout + done.stderr
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert self.secret not in said
        return done.stdout if "--json" in words else said

    @property
    def secret(self) -> str:
        return self.org.client_secret.get_secret_value()

    def add(self, *words: str, stdin: str | None = None, status: Exit = Exit.OK, **environ: str) -> str:
        given = ("orgs", "add", self.org.org_id, "--client-id", self.org.client_id, *words)
        return self.run(*given, stdin=self.secret + "\n" if stdin is None else stdin, status=status, **environ)

    @property
    def file(self) -> Path:
        return self.orgs / f"{self.org.org_id}.json"

    def content(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.file.read_text())
        return found


@pytest.fixture
def here(genesys: Outside, tmp_path: Path) -> Iterator[OrgsFolder]:
    yield OrgsFolder(genesys, tmp_path)
    genesys.heal()


def findings(said: str) -> dict[str, dict[str, str]]:
    """The findings of `--json`, by what was looked at."""
    (one,) = json.loads(said)
    return {finding["what"]: finding for finding in one["findings"]}


def test_an_organisation_is_written_privately_once_genesys_accepts_it(here: OrgsFolder) -> None:
    words = ("--region", "eu-west-1", "--tenant-id-from", "tenantId", "--integration-type", OUR_TYPE, "--name", "Acme")
    said = here.add(*words)
    assert f"{here.file}: written" in said
    assert f"3 {OUR_TYPE} are compared" in said
    assert here.content() == {
        "org_id": here.org.org_id,
        "client_id": here.org.client_id,
        "client_secret": here.secret,
        "region": "eu-west-1",
        "tenant_id_from": "tenantId",
        "integration_types": [OUR_TYPE],
        "name": "Acme",
    }
    assert here.file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in here.orgs.iterdir()] == [here.file.name], "nothing is left beside it"
    assert organisations.load(here.orgs).known[here.org.org_id].types == {OUR_TYPE}


def test_a_secret_is_typed_at_a_terminal_without_an_echo(here: OrgsFolder) -> None:
    words = ("orgs", "add", here.org.org_id, "--client-id", here.org.client_id)
    status, said = on_terminal(
        *words, cwd=here.folder, answers=here.secret + "\n", prompt="Client secret: ", **here.environ
    )
    assert status == Exit.OK, said
    assert here.secret not in said.replace("\n", "")
    assert here.content()["client_secret"] == here.secret


def test_a_wrong_secret_writes_no_file_and_names_what_to_compare(here: OrgsFolder) -> None:
    said = here.add(stdin="wrong\n", status=Exit.REFUSED)
    assert "refuses the client id or the secret (HTTP 401)" in said
    assert "a client exists in one region alone" in said
    assert not here.orgs.exists()
    here.add("--no-check", stdin="wrong\n")
    assert here.content()["client_secret"] == "wrong"
    assert findings(here.run("orgs", "check", "--json", status=Exit.DEVIATION))["login"]["health"] == "fault"


def test_a_client_of_another_organisation_is_refused(here: OrgsFolder) -> None:
    other = here.organisation()
    words = ("orgs", "add", here.org.org_id, "--client-id", other.client_id)
    said = here.run(*words, stdin=other.client_secret.get_secret_value(), status=Exit.REFUSED)
    assert f"the OAuth client belongs to {other.org_id}" in said
    assert not here.orgs.exists()


def test_a_client_without_the_permission_is_refused_with_the_permission_to_give(here: OrgsFolder) -> None:
    fake = FakeGenesys(here.org.org_id, lie=forbidden("/api/v2/integrations"))
    with serving_beside(fake):
        said = here.add(status=Exit.REFUSED, GENESYS_LOGIN_URL=f"{fake.url}/login", GENESYS_API_URL=fake.url)
    assert "may not list integrations (integrations:integration:view)" in said
    assert "give the OAuth client a role with integrations:integration:view" in said
    assert not here.orgs.exists()


def forbidden(path: str) -> Any:
    def lie(request: Request) -> Response | None:
        body = {"code": "missing.any.permissions", "status": 403, "message": "no"}
        return JSONResponse(body, 403) if request.url.path == path else None

    return lie


@pytest.mark.parametrize("region", ["eu-wst-1", "mypurecloud.i", "EU-WEST-1x"])
def test_a_mistyped_region_is_refused_with_the_nearest_before_the_secret_is_read(region: str, here: OrgsFolder) -> None:
    said = here.add("--region", region, stdin="", status=Exit.UNUSABLE)
    assert f"--region: {region!r} is no region of Genesys Cloud; the nearest: " in said
    assert "eu-west-1" in said or "mypurecloud.ie" in said


def test_a_missing_region_is_refused_where_no_hosts_are_named(here: OrgsFolder) -> None:
    said = here.add(status=Exit.UNUSABLE, GENESYS_LOGIN_URL="", GENESYS_API_URL="")
    assert "--region: no region is given" in said


@pytest.mark.parametrize("stdin", ["", "\n", "two words\n", "two\nlines\n", "x" * 10_001], ids=len)
def test_an_unusable_secret_writes_no_file(stdin: str, here: OrgsFolder) -> None:
    assert "standard input: " in here.add(stdin=stdin, status=Exit.UNUSABLE)
    assert not here.orgs.exists()


def test_an_existing_file_is_replaced_on_request_only_and_keeps_what_is_not_named(here: OrgsFolder) -> None:
    here.add("--integration-type", OUR_TYPE, "--name", "Acme", "--no-check", stdin="old\n")
    before = here.file.read_bytes()
    assert "--replace" in here.add(status=Exit.REFUSED)
    assert here.file.read_bytes() == before
    here.run("orgs", "add", here.org.org_id, "--replace", stdin=here.secret)
    after = here.content()
    assert after.pop("client_secret") == here.secret
    assert after == {
        "org_id": here.org.org_id,
        "client_id": here.org.client_id,
        "integration_types": [OUR_TYPE],
        "name": "Acme",
    }


def test_a_file_is_replaced_by_the_beginning_of_its_id_or_its_name_and_a_field_cleared(here: OrgsFolder) -> None:
    here.add("--integration-type", OUR_TYPE, "--name", "Acme", "--tenant-id-from", "tenantId", "--no-check")
    words = ("orgs", "add", "--replace", "--no-check")
    here.run(*words, here.org.org_id[:8], "--clear", "name", "--clear", "integration-type", stdin="new\n")
    after = here.content()
    assert (after.pop("client_secret"), after) == (
        "new",
        {"org_id": here.org.org_id, "client_id": here.org.client_id, "tenant_id_from": "tenantId"},
    )
    here.run(*words, here.org.org_id[:8], "--name", "Acme", stdin="new\n")
    here.run(*words, "Acme", "--clear", "tenant-id-from", stdin="newer\n")
    assert here.content()["client_secret"] == "newer"
    assert "tenant_id_from" not in here.content()
    before = here.file.read_bytes()
    for given, said in (
        (("Acm", "--name", "x"), "has no file"),
        (("Acme", "--clear", "secret"), "--clear: 'secret'"),
        (("Acme", "--clear", "name", "--name", "x"), "--clear: name is given by --name as well"),
    ):
        status = Exit.NOT_FOUND if given[0] == "Acm" else Exit.UNUSABLE
        assert said in here.run(*words, *given, stdin="x\n", status=status)
    assert here.file.read_bytes() == before
    other = "00000000-0000-4000-8000-000000000009"
    assert "--clear: goes with --replace" in here.run(
        "orgs", "add", other, "--client-id", "c", "--clear", "name", stdin="x\n", status=Exit.UNUSABLE
    )
    (here.orgs / f"{here.org.org_id[:8]}-0000-4000-8000-000000000001.json").write_text("{}")
    said = here.run(*words, here.org.org_id[:8], stdin="x\n", status=Exit.UNUSABLE)
    assert "names 2 organisations" in said


def test_a_file_of_an_earlier_release_loses_its_type_with_the_types(here: OrgsFolder) -> None:
    here.orgs.mkdir()
    here.file.write_text((here.genesys.orgs / here.file.name).read_text())
    words = ("orgs", "add", here.org.org_id, "--replace", "--no-check", "--clear", "integration-type")
    here.run(*words, stdin=here.secret)
    assert organisations.load(here.orgs).known[here.org.org_id].types == frozenset()


def test_a_file_of_an_earlier_release_is_read_and_kept(here: OrgsFolder) -> None:
    here.orgs.mkdir()
    here.file.write_text((here.genesys.orgs / here.file.name).read_text())
    assert findings(here.run("orgs", "check", "--json"))["types"]["detail"] == f"3 {OUR_TYPE} are compared"
    here.run("orgs", "add", here.org.org_id, "--replace", stdin=here.secret)
    assert here.content()["integration_type"] == OUR_TYPE
    here.run("orgs", "add", here.org.org_id, "--replace", "--integration-type", "other", stdin=here.secret)
    assert organisations.load(here.orgs).known[here.org.org_id].types == {"other"}


def test_the_listing_shows_each_organisation_and_no_secret(here: OrgsFolder) -> None:
    here.add("--region", "eu-west-1", "--integration-type", OUR_TYPE, "--name", "Acme")
    (row,) = json.loads(here.run("orgs", "list", "--json"))
    assert row.pop("age_s") < 60
    assert row == {
        "org": here.org.org_id,
        "name": "Acme",
        "region": "eu-west-1",
        "integration_types": [OUR_TYPE],
        "tenant_id_from": None,
        "client_id": here.org.client_id,
        "file": str(here.file),
        "followed": False,
        "sync_age_s": None,
        "open_to_others": False,
        "fault": None,
    }
    (row,) = json.loads(here.run("orgs", "list", "--check", "--json"))
    assert row["login"] == ""
    here.file.chmod(0o644)
    (here.orgs / "broken.json").write_text("{")
    said = here.run("orgs", "list", "--check", status=Exit.DEVIATION)
    assert "chmod 600" in said
    assert "broken: file: is not JSON" in said
    assert "2 organisations" in said


def test_the_listing_shows_how_long_ago_an_organisation_was_in_sync(here: OrgsFolder) -> None:
    here.add()
    assert "never" not in here.run("orgs", "list"), "nobody follows it, or not on this machine"
    cursor, memory = cursor_for(None, here.org.client_id, now_us()), AuditMemory(here.folder / "state")
    memory.save({here.org.org_id: cursor})
    assert json.loads(here.run("orgs", "list", "--json", STATE_DIR="state"))[0]["sync_age_s"] is None
    assert "never" in here.run("orgs", "list", STATE_DIR="state")
    memory.save({here.org.org_id: replace(cursor, until_us=now_us() - 7_200_000_000, since_us=0)})
    (row,) = json.loads(here.run("orgs", "list", "--json", STATE_DIR="state"))
    assert 7_200 <= row["sync_age_s"] < 7_260
    assert "2 h " in here.run("orgs", "list", STATE_DIR="state")


@pytest.mark.parametrize("words", [("orgs", "list", "--check"), ("orgs", "check")], ids=" ".join)
def test_what_is_shown_fits_a_terminal(words: tuple[str, ...], here: OrgsFolder) -> None:
    here.add("--region", "ap-southeast-2", "--name", "A customer with a rather long name")
    status, said = on_terminal(*words, cwd=here.folder, **here.environ)
    assert status == Exit.OK, said
    lines = [plain(line) for line in said.splitlines()]
    assert here.org.org_id in "\n".join(lines)
    assert max(map(len, lines)) <= COLUMNS, max(lines, key=len)


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_a_check_finds_everything_well(here: OrgsFolder) -> None:
    here.add("--integration-type", OUR_TYPE, "--name", "Acme")
    for named in (here.org.org_id, here.org.org_id[:9].upper(), "Acme"):
        found = findings(here.run("orgs", "check", named, "--json"))
        assert {what for what, one in found.items() if one["health"] == "fault"} == set()
        assert {"login", "organisation", "clock", "integrations", "paging", "types"} <= {
            what for what, one in found.items() if one["health"] == "well"
        }
        assert found["paging"]["detail"] == "two pages of 2 add up"


def test_a_check_without_types_says_which_are_taken_for_ours(here: OrgsFolder) -> None:
    here.add()
    found = findings(here.run("orgs", "check", "--json"))["types"]
    assert found["health"] == "not looked at"
    assert f"3 {OUR_TYPE}" in found["detail"]
    assert "1 purecloud-data-actions" in found["detail"]


def test_a_check_names_a_type_that_genesys_does_not_have(here: OrgsFolder) -> None:
    here.add("--integration-type", "lifecycle-premium-ap")
    found = findings(here.run("orgs", "check", "--json"))["types"]
    assert f"the nearest: {OUR_TYPE}" in found["detail"]


@pytest.mark.parametrize(
    ("fault", "what", "said"),
    [
        ("empty", "integrations", "the listing is empty, which is never believed"),
        ("missing_page", "paging", "have"),
        ("unauthorized", "organisation", "the API does not take the token (HTTP 401)"),
        ("error", "organisation", "the API does not take the token (HTTP 503)"),
        ("down", "api", "does not answer"),
    ],
)
def test_a_lying_or_silent_genesys_is_a_fault_with_a_remedy(fault: str, what: str, said: str, here: OrgsFolder) -> None:
    here.add()
    here.genesys.fault("genesys", fault)
    found = findings(here.run("orgs", "check", "--json", status=Exit.DEVIATION))
    assert found[what]["health"] == "fault", found
    assert said in found[what]["detail"]
    assert found[what]["cure"]


@pytest.mark.parametrize(
    ("date", "said"),
    [
        (lambda: "Mon, 02 Nov 2026 10:00:00 GMT", "s ahead of that of Genesys"),
        (lambda: "Mon, 02 Nov 2099 10:00:00 GMT", "s behind that of Genesys"),
        (lambda: None, "no Date that can be read"),
    ],
    ids=["ahead", "behind", "none"],
)
def test_a_clock_that_differs_is_a_fault(date: Any, said: str, here: OrgsFolder) -> None:
    here.add()
    fake = FakeGenesys(here.org.org_id, date=date)
    fake.add(str(uuid4()))
    with serving_beside(fake):
        urls = {"GENESYS_LOGIN_URL": f"{fake.url}/login", "GENESYS_API_URL": fake.url}
        found = findings(here.run("orgs", "check", "--json", status=Exit.DEVIATION, **urls))
    assert said in found["clock"]["detail"]


def test_audits_are_optional(here: OrgsFolder) -> None:
    here.add()
    audits = "/api/v2/audits/query/servicemapping"
    for lie, health in ((forbidden(audits), "not looked at"), (served(audits), "well")):
        fake = FakeGenesys(here.org.org_id, lie=lie)
        fake.add(str(uuid4()))
        with serving_beside(fake):
            urls = {"GENESYS_LOGIN_URL": f"{fake.url}/login", "GENESYS_API_URL": fake.url}
            found = findings(here.run("orgs", "check", "--json", status=Exit.OK, **urls))["audits"]
        assert (found["health"], "audits:audit:view" in found["detail"]) == (health, True)


def served(path: str) -> Any:
    return lambda request: JSONResponse({"services": []}) if request.url.path == path else None


def test_a_region_without_an_answer_is_named_by_its_host(here: OrgsFolder) -> None:
    here.add()
    urls = {"GENESYS_LOGIN_URL": "http://127.0.0.1:9/login", "GENESYS_API_URL": "http://127.0.0.1:9"}
    found = findings(here.run("orgs", "check", "--json", status=Exit.DEVIATION, **urls))
    assert found["login"]["detail"] == "127.0.0.1:9 does not answer (ConnectError)"


def test_doctor_says_of_an_organisation_what_the_check_says(here: OrgsFolder) -> None:
    here.add("--integration-type", OUR_TYPE)
    short = here.org.org_id[:8]
    told = here.run("doctor", "--org", short, "--json", status=Exit.DEVIATION)
    found = {one["what"]: one["detail"] for one in json.loads(told)}
    checked = findings(here.run("orgs", "check", short, "--json"))
    assert {f"Genesys {short} {what}" for what in checked} <= found.keys()
    assert found[f"Genesys {short} types"] == checked["types"]["detail"]
    told = here.run("doctor", "--org", "nobody", "--json", status=Exit.DEVIATION)
    assert any("names 0 organisations" in one["detail"] for one in json.loads(told))


def test_a_removal_is_confirmed_and_tells_what_happens_to_the_tenants(here: OrgsFolder) -> None:
    here.add()
    assert "say --yes" in here.run("orgs", "remove", here.org.org_id, status=Exit.UNUSABLE)
    status, said = on_terminal("orgs", "remove", here.org.org_id, cwd=here.folder, answers="n\n", **here.environ)
    assert (status, here.file.exists()) == (Exit.REFUSED, True)
    assert "absence of information removes nothing" in " ".join(said.split())
    assert "absence of information removes nothing" in here.run("orgs", "remove", here.org.org_id[:8], "--yes")
    assert not here.file.exists()
    assert "has no file" in here.run("orgs", "remove", here.org.org_id, "--yes", status=Exit.NOT_FOUND)


def test_a_broken_file_is_checked_removed_and_written_anew(here: OrgsFolder) -> None:
    here.orgs.mkdir()
    here.file.write_text("{")
    found = findings(here.run("orgs", "check", here.org.org_id, "--json", status=Exit.DEVIATION))
    assert found["file"]["health"] == "fault"
    assert "--client-id: needed" in here.run("orgs", "add", here.org.org_id, "--replace", status=Exit.UNUSABLE)
    here.add("--replace")
    assert here.content()["client_id"] == here.org.client_id


def test_an_empty_folder_is_no_fault(here: OrgsFolder) -> None:
    for words in (("orgs", "list"), ("orgs", "check")):
        assert "`lifecycle orgs add` writes one" in here.run(*words)
    assert json.loads(here.run("orgs", "list", "--json")) == []
    assert "has no file" in here.run("orgs", "check", "acme", status=Exit.NOT_FOUND)


def test_an_unusable_folder_is_named(here: OrgsFolder) -> None:
    here.orgs.write_text("a file")
    for words in (("orgs", "list"), ("orgs", "check")):
        assert f"ORGS_DIR: {here.orgs}" in here.run(*words, status=Exit.UNUSABLE)
    assert f"ORGS_DIR: {here.orgs}" in here.add(status=Exit.UNUSABLE)


@pytest.mark.parametrize("org", ["acme", "../x", ""])
def test_an_argument_that_is_no_organisation_id_is_refused(org: str, here: OrgsFolder) -> None:
    said = here.run("orgs", "add", org, "--client-id", "c", stdin="s", status=Exit.UNUSABLE)
    assert f"ORG: {org!r} is no organisation id" in said
