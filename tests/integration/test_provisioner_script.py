"""Steps of kind `script` inside a real provisioner: the example of the docs, kills, stops, and what is stored."""

import json
import re
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.outcome import State
from services.core.saga.calls import resource_name
from tests.support.eventually import eventually
from tests.support.provisioner_process import Scene, desired, end, gone, key, shut
from tests.support.provisioner_stage import SHIPPED

EXAMPLE = Path(__file__).parents[2] / "examples" / "script-step"
KEY = key(1)
NAME = resource_name(KEY, 1)
SLOW = """
import json, os, subprocess, sys, time
call = json.load(sys.stdin)
place = os.environ["PLACE"]
def note(word):
    with open(os.path.join(place, "journal"), "a") as journal:
        fields = [word, call["verb"], call["idempotency_key"], str(call["epoch"])]
        journal.write(" ".join(fields) + "\\n")
thing = os.path.join(place, call["name"])
note("begin")
if call["verb"] in ("create", "update"):
    open(thing, "a").write("made\\n")
    if not os.path.exists(os.path.join(place, "fast")):
        subprocess.Popen([sys.executable, "-c", "import os, time; os.setsid(); time.sleep(600)", os.environ["WORD"]])
        open(os.path.join(place, "slow"), "w").close()
        time.sleep(600)
elif not os.path.exists(thing):
    sys.exit(210)
elif call["verb"] == "delete":
    os.remove(thing)
print(json.dumps({"outputs": {}, "differs": None}))
note("end")
"""
LOSSY = """
import json, os, signal, sys
call = json.load(sys.stdin)
place, verb = os.environ["PLACE"], call["verb"]
with open(os.path.join(place, "journal"), "a") as journal:
    journal.write(" ".join((verb, call["idempotency_key"], str(call["repeats"]))) + "\\n")
thing, lost = os.path.join(place, call["name"]), os.path.join(place, "lost-" + verb)
if verb in ("create", "update"):
    open(thing, "a").write(verb + call["idempotency_key"] + "\\n")
elif not os.path.exists(thing):
    sys.exit(210)
elif verb == "delete":
    os.remove(thing)
if verb != "read" and not os.path.exists(lost):
    open(lost, "w").close()
    os.kill(os.getpid(), signal.SIGKILL)
if verb == "read" and os.path.exists(os.path.join(place, "blind")):
    sys.exit(2)
print("{}" if verb != "read" else '{"differs": null}')
"""
"""A program whose first answer to each verb is lost after the effect."""


@pytest.fixture
def scene(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with Scene(kafka_bootstrap, topic_prefix, database_url, tmp_path, program=SHIPPED) as made:
        made.environment |= {"STATE_DIR": str(tmp_path / "state"), "LEASE_S": "8"}
        yield made


@pytest.fixture
def places(scene: Scene, tmp_path: Path) -> dict[str, Path]:
    """The example's plan with folders of this test, in force."""
    found = {name: tmp_path / name for name in ("workspaces", "mailboxes")}
    text = (EXAMPLE / "plan.toml").read_text().replace("/opt/example", str(EXAMPLE))
    for name, path in found.items():
        path.mkdir()
        text = text.replace(f"/srv/{name}", str(path))
    (tmp_path / "plan.toml").write_text(text)
    scene.environment["PLAN_FILE"] = str(tmp_path / "plan.toml")
    return found


def there(places: dict[str, Path]) -> dict[str, list[str]]:
    return {name: sorted(p.name for p in path.iterdir() if p.name != ".lock") for name, path in places.items()}


def test_the_example_is_installed_updated_disabled_and_uninstalled(scene: Scene, places: dict[str, Path]) -> None:
    scene.start()
    scene.publish_desired([desired(KEY, 1, configuration={"quota": "7-gigabytes"})])
    assert scene.ended(KEY, 1).state is State.DONE
    assert there(places) == {"workspaces": [NAME], "mailboxes": [NAME]}
    workspace = json.loads((places["workspaces"] / NAME / "workspace.json").read_text())
    mailbox = json.loads((places["mailboxes"] / NAME).read_text())
    assert workspace["enabled"] is True
    path = str(places["workspaces"] / NAME)
    assert mailbox["inputs"] == {"workspace": path, "token": workspace["token"], "quota": "7-gigabytes"}
    assert (mailbox["tenant_id"], mailbox["generation"], mailbox["verb"]) == (f"tenant-{KEY[-12:]}", 1, "create")

    scene.publish_desired([desired(KEY, 2, configuration={"quota": "8-gigabytes"}, enabled=False)])
    assert scene.ended(KEY, 2).state is State.DONE
    assert json.loads((places["workspaces"] / NAME / "workspace.json").read_text())["enabled"] is False
    assert json.loads((places["mailboxes"] / NAME).read_text())["inputs"]["quota"] == "8-gigabytes"

    stored = str(scene.rows("SELECT journal::text FROM lifecycle.sagas"))
    assert path in stored, "an output"
    assert workspace["token"] not in stored, "sealed"
    assert workspace["token"] not in scene.logs()
    said = [line for line in scene.logs().splitlines() if '"program says"' in line]
    assert {(json.loads(line)["said"], json.loads(line)["key"]) for line in said} == {("workspace written", KEY)}

    scene.publish_desired([gone(KEY, 3)])
    assert scene.ended(KEY, 3).state is State.DONE
    assert there(places) == {"workspaces": [], "mailboxes": []}
    assert not list(Path(scene.environment["STATE_DIR"]).glob("programs/*")), "no working folder is left"


def test_a_refusal_of_a_later_step_undoes_the_earlier_ones(scene: Scene, places: dict[str, Path]) -> None:
    text = (scene.folder / "plan.toml").read_text().split("[[step]]")
    # The mailbox first, so that the refusal of the workspace finds a resource to undo.
    mailbox = re.sub(r"inputs = .*", "", text[2])
    (scene.folder / "plan.toml").write_text(f"[[step]]{mailbox}[[step]]{text[1]}")
    scene.start()
    scene.publish_desired([desired(KEY, 1, configuration={"region": "atlantis"})])
    said = scene.ended(KEY, 1)
    assert said.state is State.ROLLED_BACK
    assert there(places) == {"workspaces": [], "mailboxes": []}
    assert "no region of this name: [redacted]" in str(scene.audit(KEY))
    scene.publish_desired([desired(KEY, 2, configuration={"region": "there"})])
    assert scene.ended(KEY, 2).state is State.DONE
    assert there(places) == {"workspaces": [resource_name(KEY, 2)], "mailboxes": [resource_name(KEY, 2)]}
    scene.publish_desired([desired(KEY, 3, configuration={"region": "atlantis"}, enabled=False)])
    said = scene.ended(KEY, 3)
    assert (said.state, said.reason) == (State.DONE, "update_refused")
    found = json.loads((places["workspaces"] / resource_name(KEY, 2) / "workspace.json").read_text())
    assert (found["region"], found["enabled"]) == ("there", True), "restored"


def test_a_missing_program_is_the_operators_fault_and_rolls_nobody_back(scene: Scene, places: dict[str, Path]) -> None:
    plan = scene.folder / "plan.toml"
    plan.write_text(plan.read_text().replace("mailbox.sh", "no-such-program"))
    scene.start(RETRY_MOST_S="1")
    scene.publish_desired([desired(KEY, 1)])
    eventually(lambda: "no-such-program: No such file or directory" in scene.logs())
    assert "make the program of this step executable" in scene.logs()
    assert [said.state for said in scene.outcomes(KEY)] in ([], [State.WORKING])
    assert there(places) == {"workspaces": [NAME], "mailboxes": []}


@pytest.fixture
def slow(scene: Scene, tmp_path: Path) -> Path:
    """A plan of one program that leaves a child and sleeps after it has made its thing; until `fast` is there."""
    word = f'environment.WORD = "{_word(tmp_path / "place")}"'
    return _planned(scene, tmp_path, SLOW, f"timeout_s = 60\n{word}")


def _planned(scene: Scene, folder: Path, program: str, further: str) -> Path:
    """Gives the scene a plan of one program with further keys; returns the folder of its things."""
    place, file = folder / "place", folder / "program.py"
    place.mkdir()
    file.write_text(program)
    argv = json.dumps([sys.executable, str(file)])
    (folder / "plan.toml").write_text(
        f'[[step]]\nname = "thing"\nkind = "script"\nundo = "reverse"\nargv = {argv}\n'
        f'environment.PLACE = "{place}"\n{further}\n'
    )
    scene.environment["PLAN_FILE"] = str(folder / "plan.toml")
    return place


def _word(place: Path) -> str:
    return f"word-{abs(hash(str(place)))}"


def _running(place: Path) -> list[str]:
    """Processes of the slow program and of its child."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if _word(place) in words or str(place.parent / "program.py") in words:
            found.append(path.parent.name)
    return found


def _journal(place: Path) -> list[list[str]]:
    return [line.split() for line in (place / "journal").read_text().splitlines()]


def test_a_provisioner_killed_during_a_call_leaves_no_program_and_its_heir_repeats(scene: Scene, slow: Path) -> None:
    process = scene.start()
    scene.publish_desired([desired(KEY, 1)])
    eventually(lambda: (slow / "slow").exists() and len(_running(slow)) == 2)
    end(process, signal.SIGKILL)
    eventually(lambda: not _running(slow))
    eventually(lambda: not list(Path(scene.environment["STATE_DIR"]).glob("programs/*")))
    (slow / "fast").write_text("")
    scene.start()
    assert scene.ended(KEY, 1).state is State.DONE
    assert (slow / NAME).read_text() == "made\n", "found by `read`, so nothing is made twice"
    assert [(word, verb) for word, verb, *_ in _journal(slow)] == [
        ("begin", "create"),
        ("begin", "read"),
        ("end", "read"),
    ]


def test_a_stopped_provisioner_does_not_act_beside_its_heir(scene: Scene, slow: Path) -> None:
    stopped = scene.start()
    scene.publish_desired([desired(KEY, 1)])
    eventually(lambda: (slow / "slow").exists() and len(_running(slow)) == 2)
    (slow / "fast").write_text("")
    stopped.send_signal(signal.SIGSTOP)
    scene.start()
    # The program of the stopped worker is gone before the lease is: nobody else has called yet.
    eventually(lambda: not _running(slow))
    assert len(_journal(slow)) == 1
    assert scene.ended(KEY, 1).state is State.DONE
    before = _journal(slow)
    stopped.send_signal(signal.SIGCONT)
    scene.publish_desired([gone(KEY, 2)])
    assert scene.ended(KEY, 2).state is State.DONE
    after = _journal(slow)[len(before) :]
    assert [verb for word, verb, *_ in after if word == "begin"] == ["delete"], "the stopped worker acts no more"
    epochs = [int(epoch) for *_, epoch in before + after]
    assert epochs == sorted(epochs)


def test_a_worker_that_loses_its_lease_ends_its_program(scene: Scene, slow: Path, database_admin_url: str) -> None:
    scene.start()
    scene.publish_desired([desired(KEY, 1)])
    eventually(lambda: (slow / "slow").exists() and len(_running(slow)) == 2)
    (slow / "fast").write_text("")
    # The worker runs and cannot renew; the program has a minute.
    with shut(database_admin_url, scene.database):
        eventually(lambda: not _running(slow))
    assert len(_journal(slow)) == 1
    assert scene.ended(KEY, 1).state is State.DONE
    assert (slow / NAME).read_text() == "made\n"


@pytest.fixture
def lossy(scene: Scene, tmp_path: Path) -> Path:
    """A plan of one program whose first answers are lost."""
    return _planned(scene, tmp_path, LOSSY, 'unknown = "hold"\ninputs.a = "{configuration.a?}"')


def test_a_lost_answer_to_each_verb_is_looked_up_and_repeated_with_its_own_key(scene: Scene, lossy: Path) -> None:
    scene.start()
    scene.publish_desired([desired(KEY, 1)])
    assert scene.ended(KEY, 1).state is State.DONE
    assert [verb for verb, *_ in _journal(lossy)] == ["create", "read"]
    scene.publish_desired([desired(KEY, 2, enabled=False)])
    assert scene.ended(KEY, 2).state is State.DONE
    updates = _journal(lossy)[2:]
    assert [verb for verb, *_ in updates] == ["update", "read", "update"], "being there proves no update"
    assert (updates[0][1], updates[2][2]) == (updates[2][1], "True")
    scene.publish_desired([gone(KEY, 3)])
    assert scene.ended(KEY, 3).state is State.DONE
    assert [verb for verb, *_ in _journal(lossy)[5:]] == ["delete", "read"]


def test_a_step_that_cannot_look_is_held_until_it_is_taught_to(scene: Scene, lossy: Path) -> None:
    (lossy / "blind").write_text("")
    scene.start(RETRY_MOST_S="0.2")
    scene.publish_desired([desired(KEY, 1, configuration={"a": "1"})])
    eventually(lambda: len(_journal(lossy)) > 2 if (lossy / "journal").exists() else False)
    # Not even other settings make it create again.
    scene.publish_desired([desired(KEY, 2, configuration={"a": "2"})])
    count = len(_journal(lossy))
    eventually(lambda: len(_journal(lossy)) > count + 5)
    assert [verb for verb, *_ in _journal(lossy)].count("create") == 1
    assert "held until read is answered: exit status 2" in str(scene.rows("SELECT journal::text FROM lifecycle.sagas"))
    (lossy / "blind").unlink()
    assert scene.ended(KEY, 2).state is State.DONE
    assert [verb for verb, *_ in _journal(lossy)].count("create") == 1


@pytest.mark.long
@pytest.mark.parametrize("when", ["before", "after", "returned"])
def test_a_worker_that_dies_again_and_again_makes_and_removes_each_thing_once(
    scene: Scene, places: dict[str, Path], when: str
) -> None:
    """Each process dies at its fourth mark, which is the least at which an update gets on: look-up, repeat, next."""
    scene.program = ("tests.support.provisioner_dying",)
    scene.environment |= {"LEASE_S": "6", "DIES": when, "DIES_AT": "4"}
    versions = [desired(KEY, 1), desired(KEY, 2, enabled=False, configuration={"quota": "9"}), gone(KEY, 3)]
    tokens, deaths, process = set(), 0, scene.start()
    for version in versions:
        scene.publish_desired([version])
        while not _has_ended(scene, version.version):
            if process.poll() is not None:
                assert process.returncode == -signal.SIGKILL
                deaths += 1
                assert deaths < 60, "no end of it"
                process = scene.start()
        names = [] if version.version == 3 else [NAME]
        assert there(places) == {"workspaces": names, "mailboxes": names}
        tokens |= {json.loads(p.read_text())["token"] for p in places["workspaces"].glob("*/workspace.json")}
    assert deaths > 0
    assert len(tokens) == 1, "made once"
    eventually(lambda: not list(Path(scene.environment["STATE_DIR"]).glob("programs/*")))


def _has_ended(scene: Scene, version: int) -> bool:
    return any(said.desired_version >= version and said.state is State.DONE for said in scene.outcomes(KEY))
