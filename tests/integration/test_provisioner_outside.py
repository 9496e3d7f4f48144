"""The shipped plan, as its service runs it, against outside systems that refuse, fail and lose answers at every call.

What exists is read from the simulator and from PostgreSQL, never from the provisioner's own journal. All tenants of a
test go through it at once, each with a fault of its own.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from schemas.outcome import Outcome, State
from services.provisioner import main
from tests.support.eventually import eventually
from tests.support.provisioner_process import desired, end, gone, key
from tests.support.provisioner_stage import SYSTEMS, Stage, becomes, done, ended, exists, staged
from tests.support.terminal import COLUMNS, on_terminal

SHIPPED_PLAN = Path(main.__file__).with_name("plan.toml")
FAULTS = (("error", 2), ("lost_answer", 1), ("lost_answer", 2), ("down", 2))


@pytest.fixture
def stage(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Stage]:
    with staged(kafka_bootstrap, topic_prefix, database_url, tmp_path) as made:
        yield made


def _all(stage: Stage, keys: list[str], version: int, check: Callable[[Outcome], bool], *, there: bool) -> None:
    """Wait for the end of a version of every key; each system then has exactly one thing of each, or none."""
    ended(stage, keys, version, check)
    inventory = httpx2.get(f"{stage.world.url}/inventory", timeout=20).raise_for_status().json()
    for of in keys:
        assert {system: len(inventory[system].get(of, [])) for system in SYSTEMS} == dict.fromkeys(SYSTEMS, int(there))


def _schemas(stage: Stage) -> int:
    ((count,),) = stage.scene.rows("SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 't_')")
    return int(count)


@pytest.mark.long
def test_passing_faults_at_every_call_end_with_every_resource_made_once_and_removed(stage: Stage) -> None:
    cases = [(s, v, f, n) for s in SYSTEMS for v in ("create", "update", "delete") for f, n in FAULTS]
    keys = [key(number) for number in range(len(cases))]

    def strike(during: str) -> None:
        for of, (system, verb, fault, times) in zip(keys, cases, strict=True):
            if verb == during:
                stage.world.fault(system, fault, verb=verb, key=of, times=times)

    stage.scene.start()
    strike("create")
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    _all(stage, keys, 1, done, there=True)
    assert _schemas(stage) == len(keys)
    strike("update")
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in keys])
    _all(stage, keys, 2, done, there=True)
    strike("delete")
    stage.scene.publish_desired([gone(of, 3) for of in keys])
    _all(stage, keys, 3, done, there=False)
    assert _schemas(stage) == 0
    assert all(stage.world.inventory("archive", of) for of in keys[:3])


def test_a_lost_answer_is_read_back_even_if_the_first_read_fails(stage: Stage) -> None:
    keys = [key(number) for number in range(len(SYSTEMS) * len(FAULTS))]
    cases = [(system, fault, times) for system in SYSTEMS for fault, times in FAULTS]
    for of, (system, fault, times) in zip(keys, cases, strict=True):
        stage.world.fault(system, "lost_answer", verb="create", key=of, times=1)
        stage.world.fault(system, fault, verb="read", key=of, times=times)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in keys])
    _all(stage, keys, 1, done, there=True)


@pytest.mark.long
def test_refusals_are_compensated_restored_or_wait_by_their_verb(stage: Stage) -> None:
    first = dict(zip(SYSTEMS, (key(number) for number in range(5)), strict=True))
    update = dict(zip(SYSTEMS[:4], (key(number) for number in range(10, 14)), strict=True))
    last = dict(zip(SYSTEMS, (key(number) for number in range(20, 25)), strict=True))
    for system, of in first.items():
        stage.world.fault(system, "refuse", verb="create", key=of, times=1)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in [*first.values(), *update.values(), *last.values()]])
    _all(stage, list(first.values()), 1, lambda said: said.state is State.ROLLED_BACK, there=False)
    _all(stage, [*update.values(), *last.values()], 1, done, there=True)

    for system, of in update.items():
        stage.world.fault(system, "refuse", verb="update", key=of, times=1)
    stage.scene.publish_desired([desired(of, 2) for of in first.values()])
    stage.scene.publish_desired([desired(of, 2, enabled=False) for of in update.values()])
    _all(stage, list(first.values()), 2, done, there=True)
    _all(stage, list(update.values()), 2, lambda said: said.reason == "update_refused", there=True)
    assert not any("delete" in dict(stage.world.calls(of)) for of in update.values())

    for system, of in last.items():
        stage.world.fault(system, "refuse", verb="delete", key=of)
    stage.scene.publish_desired([gone(of, 3) for of in last.values()])
    for of in last.values():
        assert stage.scene.ended(of, 3).state is State.FAILED
    stage.world.heal()
    becomes(stage, last.values(), 3)
    _all(stage, list(last.values()), 3, lambda _: True, there=False)


def _operators(stage: Stage) -> dict[str, str]:
    scene = stage.scene
    return {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": scene.kafka,
        "DATABASE_URL": scene.database,
        "KEYRING_FILE": str(scene.folder / "keyring.json"),
    }


def _sagas(stage: Stage, *arguments: str, status: int = 0) -> Any:
    """The output of `lifecycle sagas … --json`."""
    own = _operators(stage)
    argv = [sys.executable, "-m", "services.cli.main", "sagas", *arguments, "--json"]
    done = subprocess.run(argv, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    return json.loads(done.stdout or "null")


@pytest.mark.long
def test_an_operator_lists_failed_sagas_and_retries_them(stage: Stage) -> None:
    refused, standing, well = (key(number) for number in range(3))
    stage.world.fault("subscriptions", "refuse", verb="create", key=refused, times=1)
    stage.scene.start()
    stage.scene.publish_desired([desired(of, 1) for of in (refused, standing, well)])
    _all(stage, [refused], 1, lambda said: said.state is State.ROLLED_BACK, there=False)
    _all(stage, [standing, well], 1, done, there=True)
    stage.world.fault("crm", "refuse", verb="delete", key=standing)
    stage.scene.publish_desired([gone(standing, 2)])
    assert stage.scene.ended(standing, 2).state is State.FAILED

    failed = {one["key"]: one for one in _sagas(stage, "list", "--state", "failed")}
    assert set(failed) == {refused, standing}
    assert failed[standing]["stands_at"] == "crm"
    assert failed[standing]["why"].startswith("refused: HTTP 4")
    shown = _sagas(stage, "show", standing)
    assert [step["step"] for step in shown["steps"] if step["there"] != "absent"] == ["archive", "middleware", "crm"]
    status, text = on_terminal("sagas", "show", standing, cwd=stage.scene.folder, **_operators(stage))
    rows = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert status == 0
    assert max(map(len, rows)) <= COLUMNS
    assert any(re.fullmatch(r"crm +1 +present +refused +\d+ +(in|-?\d).*", row) for row in rows), text
    assert "  HTTP 422 refused" in rows
    _sagas(stage, "show", key(9), status=4)
    _sagas(stage, "retry", status=2)
    _sagas(stage, "retry", key(9), status=4)
    assert _sagas(stage, "retry", well) == [{"key": well, "result": "nothing to try again"}]

    (stuck,) = _sagas(stage, "retry", standing, "--wait", "--timeout", "2", status=1)
    assert stuck["end"] == "not ended in 2 s: removing, stands at crm (HTTP 422 refused)"
    stage.world.heal()
    again = _sagas(stage, "retry", "--failed", "--wait")
    ends = {one["key"]: one["end"] for one in again}
    # What stands goes on by itself, perhaps before the retry.
    assert ends in ({refused: "active", standing: "deprovisioned"}, {refused: "active"})
    becomes(stage, [standing], 2)
    assert not _sagas(stage, "list", "--state", "failed")
    assert not _sagas(stage, "list", "--state", "working")
    _all(stage, [refused, well], 1, lambda _: True, there=True)
    _all(stage, [standing], 2, lambda _: True, there=False)
    lines = eventually(lambda: [line for line in stage.scene.audit(standing) if line.what == "retry"])
    assert {line.why for line in lines} == {"an operator's wish, while it was removing"}


@pytest.mark.long
def test_an_operator_sees_why_a_saga_waits(stage: Stage) -> None:
    in_grace, stuck = stage.keys(2)
    graceful = stage.scene.folder / "graceful.toml"
    shipped = SHIPPED_PLAN.read_text()
    graceful.write_text(shipped.replace('name = "tokens"\n', 'name = "tokens"\ndestroy_after = "P1D"\n'))
    process = stage.scene.start(PLAN_FILE=str(graceful))
    stage.scene.publish_desired([desired(in_grace, 1), desired(stuck, 1)])
    ended(stage, [in_grace, stuck], 1)
    stage.scene.publish_desired([gone(in_grace, 2)])
    shown = eventually(lambda: (one := _sagas(stage, "show", in_grace))["why"] == "grace" and one)
    assert shown["due"] > shown["changed"][:10] + "T99", "tomorrow"
    (tried,) = _sagas(stage, "retry", in_grace, status=1)
    assert tried["result"] == "in its grace period, which this does not shorten"
    eventually(lambda: _sagas(stage, "show", in_grace)["why"] == "grace")
    assert end(process) == 0

    tokenless = stage.scene.folder / "tokenless.toml"
    tokenless.write_text(shipped[: shipped.index('[[step]]\nname = "tokens"')])
    process = stage.scene.start(PLAN_FILE=str(tokenless), OAUTH_URL="")
    stage.scene.publish_desired([gone(stuck, 2)])
    why = eventually(lambda: _sagas(stage, "show", stuck)["why"])
    assert why.startswith(
        "its plan cannot be carried out: step 6 (tokens): url: {settings.oauth_url}: OAUTH_URL is missing"
    )
    assert _sagas(stage, "retry", stuck) == [{"key": stuck, "result": "tried again now"}]
    assert end(process) == 0
    stage.scene.start()
    _sagas(stage, "retry", stuck)
    eventually(lambda: _sagas(stage, "show", stuck)["why"] == "grace")


def test_a_plan_file_that_is_not_utf_8_is_named(stage: Stage) -> None:
    plan = stage.scene.folder / "plan.toml"
    plan.write_bytes(b'[[step]]\nname = "\xff"\n')
    argv = (sys.executable, "-m", "services.cli.main", "provisioner")
    environ = {
        "PATH": os.environ["PATH"], "KAFKA_BOOTSTRAP_SERVERS": stage.scene.kafka, "DATABASE_URL": stage.scene.database,
        "KEYRING_FILE": str(stage.scene.folder / "keyring.json"), "PLAN_FILE": str(plan),
    }  # fmt: skip
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, f"lifecycle: PLAN_FILE: {plan}: not UTF-8")


def test_a_generation_is_removed_with_the_plan_that_made_it(stage: Stage) -> None:
    old, new = stage.keys(2)
    process = stage.scene.start()
    stage.scene.publish_desired([desired(old, 1)])
    ended(stage, [old], 1)
    assert end(process) == 0
    comment, *steps = SHIPPED_PLAN.read_text().split("[[step]]")
    shorter = stage.scene.folder / "plan.toml"
    shorter.write_text("[[step]]".join([comment, *(step for step in steps if 'name = "crm"' not in step)]))
    stage.scene.start(PLAN_FILE=str(shorter))
    stage.scene.publish_desired([desired(old, 2, enabled=False), desired(new, 1)])
    ended(stage, [old], 2)
    ended(stage, [new], 1)
    has = {of: [s for s in SYSTEMS if stage.world.inventory(s, of)] for of in (old, new)}
    assert has == {old: list(SYSTEMS), new: [system for system in SYSTEMS if system != "crm"]}
    stage.scene.publish_desired([gone(old, 3), gone(new, 2)])
    ended(stage, [old], 3)
    ended(stage, [new], 2)
    exists(stage, {old: None, new: None})
