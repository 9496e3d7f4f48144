"""`lifecycle plan show --for KEY`: what is shown is what the provisioner then does, and showing does nothing."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.provisioner import main
from tests.support.provisioner_process import desired, gone, key
from tests.support.provisioner_stage import Stage, calls, ended, staged
from tests.support.terminal import COLUMNS, on_terminal

SHIPPED_PLAN = Path(main.__file__).with_name("plan.toml")
SYSTEM_OF = {"schema": "schemas"}
SECRET = {"crmEndpoint": "https://acme.salesforce.com", "note": "canary"}


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _environ(stage: Stage) -> dict[str, str]:
    scene = stage.scene
    return {
        **scene.environment,
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": scene.kafka,
        "TOPIC_PREFIX": scene.prefix,
        "DATABASE_URL": scene.database,
        "KEYRING_FILE": str(scene.folder / "keyring.json"),
    }


def _show(stage: Stage, *words: str, status: int = 0) -> Any:
    argv = [sys.executable, "-m", "services.cli.main", "plan", "show", *words, "--json"]
    done = subprocess.run(argv, env=_environ(stage), capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert "canary" not in done.stdout + done.stderr
    return json.loads(done.stdout or "null")


def _steps(shown: Any) -> list[tuple[str, str]]:
    return [(SYSTEM_OF.get(call["step"], call["step"]), call["verb"]) for call in shown["calls"]]


def _rows(stage: Stage, of: str) -> list[tuple[Any, ...]]:
    return stage.scene.rows(f"SELECT epoch, journal::text, desired::text FROM lifecycle.sagas WHERE key = '{of}'")


def _made(stage: Stage, of: str, before: int) -> list[tuple[str, str]]:
    return [(call["system"], call["verb"]) for call in calls(stage, of)[before:]]


@pytest.mark.long
def test_the_calls_of_a_living_tenant_are_those_that_the_provisioner_then_makes(stage: Stage) -> None:
    of, waiting = stage.keys(2)
    stage.world.fault("crm", "down", verb="create", key=waiting)
    process = stage.scene.start()
    stage.scene.publish_desired([desired(one, 1, configuration=SECRET) for one in (of, waiting)])
    ended(stage, [of], 1)

    # At rest nothing is to be called.
    at_rest = _show(stage, "--for", of)
    assert (at_rest["phase"], at_rest["generation"], at_rest["calls"]) == ("active", 1, [])
    assert at_rest["unchanged"] == ["archive", "middleware", "crm", "schema", "subscriptions", "tokens"]

    # A saga under way is shown from where it stands.
    stuck = _show(stage, "--for", waiting)
    assert stuck["phase"] == "creating"
    crm, *later = _steps(stuck)[-4:]
    assert crm in {("crm", "read"), ("crm", "create")}, "looked up first, where the answer was lost"
    assert later == [("schemas", "create"), ("subscriptions", "create"), ("tokens", "create")]

    rows, before = _rows(stage, of), len(calls(stage, of))
    removal = _show(stage, "--for", of, "--uninstall")
    assert (_rows(stage, of), len(calls(stage, of))) == (rows, before), "showing changes nothing and calls nobody"
    assert {one["target"] for one in removal["calls"][1]["requests"]} == {
        f"DELETE {stage.scene.environment['SUBSCRIPTIONS_URL']}/{of.replace(':', '.')}.g1"
    }
    assert "sealed" not in json.dumps(removal)

    # Another plan is shown as a new life; the present one keeps its own.
    shorter = stage.scene.folder / "plan.toml"
    shipped = SHIPPED_PLAN.read_text()
    shorter.write_text(shipped[: shipped.index('[[step]]\nname = "tokens"')])
    anew = _show(stage, "--for", of, str(shorter))
    assert (anew["phase"], anew["generation"], len(anew["calls"])) == ("creating", 2, 5)
    assert anew["plan"]["source"] == f"{shorter}, as a new life"

    stage.scene.publish_desired([gone(of, 2)])
    ended(stage, [of], 2)
    made = _made(stage, of, before)
    assert [one for one in made if one[0] != "archive"] == [one for one in _steps(removal) if one[0] != "archive"]
    assert _show(stage, "--for", of)["calls"] == []
    assert process.poll() is None

    _show(stage, "--for", key(9), status=4)


def test_a_living_tenant_is_shown_at_80_columns(stage: Stage) -> None:
    (of,) = stage.keys(1)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1, configuration=SECRET)])
    ended(stage, [of], 1)
    environ = {**_environ(stage), "PYTHONPATH": str(Path(__file__).parents[2])}
    status, said = on_terminal("plan", "show", "--for", of, "--uninstall", cwd=stage.scene.folder, **environ)
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    assert status == 0, said
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0] == of
    assert lines[-1] == "6 calls; nothing was called"
    assert "canary" not in said
