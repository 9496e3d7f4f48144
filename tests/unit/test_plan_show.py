"""`lifecycle plan show` for a tenant that does not exist: every call, nothing secret, and no engine at all."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from schemas.saga import Journal, Life, StepLog
from services.cli.exits import Exit
from services.cli.plan_calls import SAMPLE_KEY
from services.core.saga.masking import Masks, masks_for
from services.core.saga.plan import Step, parse
from services.provisioner.kinds import TRAITS
from tests.support.terminal import COLUMNS, on_terminal
from tests.unit import test_cli_commands
from tests.unit.test_cli_commands import CommandLine

program = test_cli_commands.program

SETTINGS = {
    "MIDDLEWARE_URL": "http://us:canary@middleware:8080", "SUBSCRIPTIONS_URL": "http://subscriptions:8080",
    "OAUTH_URL": "http://tokens:8080", "OAUTH_CLIENT_SECRET": "canary-of-oauth",
}  # fmt: skip
CONFIGURATION = {
    "crmEndpoint": "https://acme.salesforce.com", "crmClientId": "canary-id", "crmClientSecret": "canary-secret",
    "nested": {"deep": ["canary-deep"]}, "syncInterval": 5,
}  # fmt: skip
OWN = """
[[step]]
name = "tokens"
kind = "oauth"
undo = "reverse"
url = "{settings.oauth_url}"
url_from = "operator"
client_id = "us"
client_secret = "canary-literal"
[[step]]
name = "crm"
kind = "http"
undo = "reverse"
url = "{configuration.crm.url}"
path = "/v1/{tenant.id}"
body = { token = "Bearer {steps.tokens.access_token}", note = "{configuration.note?}", of = "{configuration.region}" }
destroy_after = "P1D"
[[step]]
name = "mirror"
kind = "http"
undo = "reverse"
url = "{steps.crm.url}"
body = { id = "{steps.crm.id}" }
"""
KEY = "00000000-0000-4000-8000-0000000000AA:00000000-0000-4000-9000-000000000001"


class Tenant:
    """A folder with a configuration and a plan."""

    def __init__(self, folder: Path, program: CommandLine, configuration: object) -> None:
        self.folder, self._program = folder, program
        folder.joinpath("tenant.json").write_text(json.dumps(configuration))
        folder.joinpath("own.toml").write_text(OWN)

    def show(self, *words: str, status: int = Exit.OK) -> Any:
        """The calls as JSON."""
        words = ("plan", "show", "--configuration", "tenant.json", "--json", *words)
        done = self._program(*words, cwd=self.folder, **SETTINGS)
        assert done.returncode == status, done.stderr
        assert "canary" not in done.stdout + done.stderr
        return json.loads(done.stdout)


@pytest.fixture
def tenant(tmp_path: Path, program: CommandLine) -> Tenant:
    return Tenant(tmp_path, program, CONFIGURATION)


def test_the_shipped_plan_is_shown_call_by_call_without_a_secret(tenant: Tenant) -> None:
    shown = tenant.show()
    assert (shown["phase"], shown["generation"], shown["missing"], shown["ends"]) == ("creating", 1, {}, None)
    assert [(call["step"], call["kind"], call["verb"]) for call in shown["calls"]] == [
        ("archive", "archive", "create"), ("middleware", "http", "create"), ("crm", "http", "create"),
        ("schema", "postgres", "create"), ("subscriptions", "subscription", "create"), ("tokens", "oauth", "create"),
    ]  # fmt: skip
    by_step = {call["step"]: call for call in shown["calls"]}
    name = f"{shown['key'].replace(':', '.')}.g1"
    assert [one["target"] for one in by_step["crm"]["requests"]] == [
        "POST https://acme.salesforce.com/services/oauth2/token",
        f"PUT https://acme.salesforce.com/connections/{name}",
    ]
    assert by_step["middleware"]["settings"]["url"] == "http://<user: hidden>@middleware:8080"
    assert by_step["middleware"]["settings"]["body"]["configuration"] == {
        "crmEndpoint": "https://acme.salesforce.com", "crmClientId": "<configuration.crmClientId: hidden>",
        "crmClientSecret": "<configuration.crmClientSecret: hidden>",
        "nested": {"deep": "<configuration.nested.deep: hidden>"}, "syncInterval": 5,
    }  # fmt: skip
    assert by_step["tokens"]["settings"]["client_secret"] == "<settings.oauth_client_secret: hidden>"
    assert by_step["archive"]["requests"] == []


def test_an_uninstall_is_shown_in_reverse(tenant: Tenant) -> None:
    calls = tenant.show("--uninstall")["calls"]
    assert [(call["step"], call["verb"]) for call in calls] == [
        (step, "delete") for step in ("tokens", "subscriptions", "schema", "crm", "middleware", "archive")
    ]
    assert [one["target"].partition(" ")[0] for one in calls[3]["requests"]] == ["POST", "DELETE"]


def test_a_grace_period_is_shown_as_a_wait(tmp_path: Path, program: CommandLine) -> None:
    given = {"crm": {"url": "https://x.salesforce.com"}, "region": "eu"}
    calls = Tenant(tmp_path, program, given).show("own.toml", "--uninstall")["calls"]
    assert [(call["step"], call["waits_for"]) for call in calls] == [
        ("mirror", None), ("crm", "grace"), ("tokens", None),
    ]  # fmt: skip
    assert calls[1]["wait_s"] == pytest.approx(86_400, abs=1)


def test_a_url_with_the_value_of_another_secret_is_one_location(tmp_path: Path, program: CommandLine) -> None:
    same = "https://canary.salesforce.com"
    tenant = Tenant(tmp_path, program, {"mine": same, "other": same})
    url = 'url = "{configuration.mine}"\n'
    tmp_path.joinpath("one.toml").write_text('[[step]]\nname = "crm"\nkind = "http"\nundo = "reverse"\n' + url)
    for words, verb in (((), "PUT"), (("--uninstall",), "DELETE")):
        (call,) = tenant.show("one.toml", *words)["calls"]
        name = f"{SAMPLE_KEY.replace(':', '.')}.g1"
        assert [one["target"] for one in call["requests"]] == [f"{verb} <configuration.mine: hidden>/{name}"]


def test_missing_names_are_named_and_the_other_calls_shown(tenant: Tenant) -> None:
    shown = tenant.show("own.toml", "--for", KEY, status=Exit.DEVIATION)
    assert shown["key"] == KEY.lower()
    assert shown["missing"] == {"crm": ["configuration.crm.url", "configuration.region"]}
    crm, mirror = shown["calls"][1:]
    assert crm["missing"] == ["configuration.crm.url", "configuration.region"]
    assert crm["settings"] == {
        "url": "<configuration.crm.url: missing>",
        "path": "/v1/sample",
        "body": {
            "token": "Bearer <steps.tokens.access_token: hidden>",
            "of": "<configuration.region: missing>",
        },
    }
    assert mirror["settings"]["body"] == {"id": "<steps.crm.id: known after step crm>"}
    assert shown["calls"][0]["settings"]["client_secret"] == "<client_secret: hidden>"


def test_a_terminal_of_80_columns_shows_whole_lines(tenant: Tenant) -> None:
    words = ("plan", "show", "own.toml", "--configuration", "tenant.json")
    status, said = on_terminal(*words, cwd=tenant.folder, PYTHONPATH=str(Path(__file__).parents[2]), **SETTINGS)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    assert status == Exit.DEVIATION, said
    assert max(map(len, lines)) <= COLUMNS
    assert "2 crm (http): create" in lines
    assert "    body.of = <configuration.region: missing>" in lines
    assert lines[-1] == "3 calls; nothing was called"
    assert "canary" not in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "say --for KEY, or --configuration FILE"),
        (("--configuration", "none.json"), "--configuration: none.json: No such file or directory"),
        (("--configuration", "list.json"), "--configuration: list.json: must be a JSON object"),
        (("--configuration", "tenant.json", "--for", "acme"), "--for: 'acme': with --configuration, say orgId:"),
        (("--configuration", "tenant.json", "bad.toml"), "FILE: bad.toml: step 1 (crm): retrys: no such key"),
        (("--configuration", "tenant.json", "none.toml"), "FILE: none.toml: No such file or directory"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_what_cannot_be_shown_is_named(words: tuple[str, ...], said: str, tenant: Tenant, program: CommandLine) -> None:
    tenant.folder.joinpath("list.json").write_text("[]")
    tenant.folder.joinpath("bad.toml").write_text(
        '[[step]]\nname = "crm"\nkind = "http"\nundo = "reverse"\nretrys = 3\n'
    )
    done = program("plan", "show", *words, cwd=tenant.folder, COLUMNS="400", **SETTINGS)
    assert (done.returncode, done.stdout) == (Exit.UNUSABLE, "")
    assert done.stderr.startswith(f"lifecycle: {said}")


class TestMasks:
    masks = Masks(("region",), ("oauth_client_secret",))

    def step(self) -> Step:
        return parse(OWN, kinds=TRAITS, settings={"oauth_url": "http://o"}).steps[1]

    def test_a_hidden_value_that_a_system_echoes_is_hidden_in_outputs_and_locations(self) -> None:
        inputs = {"configuration": {"url": "https://secret.salesforce.com", "region": "europe-west"}}
        log = StepLog(
            inputs=inputs,
            outputs={"id": "of https://secret.salesforce.com in europe-west", "url": "https://secret.salesforce.com"},
            location="https://secret.salesforce.com",
        )
        journal = Journal(generation=1, life=Life(generation=1, plan="", tenant_id="acme", steps={"crm": log}))
        hidden = masks_for(self.masks, journal, {}, {}).log(self.step(), log)
        mask = "<configuration.url: hidden>"
        assert hidden.outputs == {"id": f"of {mask} in europe-west", "url": mask}
        assert hidden.location == mask
        assert hidden.inputs == {"configuration": {"url": mask, "region": "europe-west"}}

    def test_a_sealed_output_is_hidden(self) -> None:
        log = StepLog(
            outputs={"token": {"$sealed": "canary"}, "id": "1"}, previous_outputs={"a": {"$sealed": "canary"}}
        )
        assert "canary" not in str(self.masks.log(self.step(), log))

    def test_null_stays_null_so_that_a_missing_name_stays_missing(self) -> None:
        assert self.masks.configuration({"a": None, "b": {"c": None}, "region": None}) == {
            "a": None, "b": {"c": None}, "region": None,
        }  # fmt: skip
