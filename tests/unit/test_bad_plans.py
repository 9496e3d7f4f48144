"""Every plan of the corpus gets its sentences: from `lifecycle plan check`, and from the provisioner's start."""

import json
import re
from pathlib import Path

import pytest

from services.adapters.process.environment import read
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ProvisionerSettings
from services.cli.exits import Exit
from services.provisioner.main import main
from tests.support.bad_plans import CASES, SETTINGS, BadPlanCase
from tests.unit import test_cli_commands
from tests.unit.test_cli_commands import CommandLine

program = test_cli_commands.program

_REMEDY = re.compile(
    r"did you mean |must be |must have|; (take|put|write|give|say|use|set|list|add|close|double|a key may) |write \[\["
    r"| is none of |references are to |earlier steps are |; a plan may name | has [a-z_]+(, [a-z_]+)*$"
    r"|may use outputs of earlier steps alone"
)
_STEP = re.compile(r"step \d+ \(([^)]+)\): [A-Za-z_.]+: ")
_WITHOUT_STEP = re.compile(r"not TOML: |no \[\[step\]\]|[a-z]+: (no such table|must be a list of tables)")
"""A fault outside every step; a line that is no TOML may have no key."""

EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def test_the_corpus_is_large_and_no_name_stands_twice() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


@EACH
def test_every_sentence_names_step_key_and_remedy_and_no_secret(case: BadPlanCase) -> None:
    assert case.sentences
    for sentence in case.sentences:
        assert _STEP.match(sentence) or _WITHOUT_STEP.search(sentence), sentence
        assert _REMEDY.search(sentence), sentence
        assert "canary" not in sentence


@EACH
def test_plan_check_prints_the_sentences_with_the_file(case: BadPlanCase, tmp_path: Path, program: CommandLine) -> None:
    (tmp_path / "plan.toml").write_text(case.text)
    done = program("plan", "check", "plan.toml", cwd=tmp_path, **SETTINGS)
    assert done.returncode == Exit.DEVIATION, done.stderr
    assert done.stdout.splitlines() == [f"plan.toml: {sentence}" for sentence in case.sentences]
    assert len(done.stderr.splitlines()) == 1


@EACH
def test_the_provisioner_starts_with_no_bad_plan_and_says_the_same(case: BadPlanCase, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_text(case.text)
    environ = {
        **SETTINGS, "PLAN_FILE": str(plan), "STATE_DIR": str(tmp_path / "state"), "LOG_LEVEL": "error",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
    }  # fmt: skip
    with pytest.raises(Unusable) as refused:
        main(read(environ, ProvisionerSettings))
    assert str(refused.value).splitlines() == [f"PLAN_FILE: {plan}: {sentence}" for sentence in case.sentences]


def test_faults_as_json_have_step_name_key_and_sentence(tmp_path: Path, program: CommandLine) -> None:
    (tmp_path / "plan.toml").write_text('[[step]]\nname = "crm"\nkind = "http"\nundo = "reverse"\nretrys = 3\n')
    done = program("plan", "check", "plan.toml", "--json", cwd=tmp_path, **SETTINGS)
    (fault,) = json.loads(done.stdout)["faults"]
    assert (done.returncode, fault["step"], fault["name"], fault["key"]) == (Exit.DEVIATION, 1, "crm", "retrys")
    assert fault["sentence"] == f"plan.toml: step 1 (crm): retrys: {fault['fault']}"


def test_a_good_plan_is_listed_with_the_names_it_uses(tmp_path: Path, program: CommandLine) -> None:
    done = program("plan", "check", "--json", cwd=tmp_path, **SETTINGS, SUBSCRIPTIONS_URL="http://subscriptions:8080")
    assert done.returncode == Exit.OK, done.stdout
    found = json.loads(done.stdout)
    assert (found["usable"], found["faults"]) == (True, [])
    assert [step["name"] for step in found["steps"]][:3] == ["archive", "middleware", "crm"]
    assert found["steps"][1]["uses"] == ["settings.middleware_url", "configuration"]


def test_the_plan_of_the_environment_is_checked_where_no_file_is_named(tmp_path: Path, program: CommandLine) -> None:
    (tmp_path / "own.toml").write_text('[[step]]\nname = "db"\nkind = "postgres"\nundo = "reverse"\n')
    done = program("plan", "check", cwd=tmp_path, PLAN_FILE="own.toml")
    assert (done.returncode, done.stderr) == (Exit.OK, "own.toml: 1 step, no fault\n")


@pytest.mark.parametrize("content", [None, b'[[step]]\nname = "\xff"\n'], ids=["missing", "not UTF-8"])
def test_a_file_that_cannot_be_read_is_unusable(content: bytes | None, tmp_path: Path, program: CommandLine) -> None:
    if content is not None:
        (tmp_path / "plan.toml").write_bytes(content)
    done = program("plan", "check", "plan.toml", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (Exit.UNUSABLE, "")
    assert done.stderr.startswith("lifecycle: FILE: plan.toml: ")
