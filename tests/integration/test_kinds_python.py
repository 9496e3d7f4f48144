"""Kind `python` with real distributions: a class that is wrong or lies costs its own call, and is named."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import LogCapture

from schemas.outcome import State
from services.core.saga import program_contract
from services.core.saga.calls import (
    Absent,
    Answer,
    Call,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.plan import Plan
from services.core.saga.plan_check import check
from services.provisioner.kinds import TRAITS
from services.provisioner.kinds.child_program import ChildProgram
from services.provisioner.kinds.python import PythonKind
from services.steps import StepTraits, host
from tests.support.provisioner_process import Scene, desired, gone, key
from tests.support.provisioner_stage import SHIPPED
from tests.support.step_distribution import EXAMPLES, built, written

HEAD = """
import asyncio, os, signal, sys, threading, time
from services.steps import *
class Good:
    traits = StepTraits(
        inputs=("a",), optional_inputs=("b",), outputs=("id", "token"), secret_outputs=frozenset({"token"})
    )
    async def do(self, call):
        print("to standard output")
        print("secret", call.inputs.get("b"), file=sys.stderr)
        return StepDone({"id": call.name, "token": "t", "extra": 1})
    async def undo(self, call): return StepAbsent()
    async def observe(self, call): return StepFound({"id": call.name, "token": "t"}, None)
"""
BAD = {
    "raises": "async def do(self, call): raise ValueError('canary')",
    "exits": "async def do(self, call): sys.exit(0)",
    "dies": "async def do(self, call): os._exit(0)",
    "aborts": "async def do(self, call): os.abort()",
    "number": "async def do(self, call): return 210",
    "nothing": "async def do(self, call): pass",
    "kind": "async def do(self, call): return StepDone",
    "found": "async def do(self, call): return StepFound({'id': 'x', 'token': 't'})",
    "absent": "async def do(self, call): return StepAbsent()",
    "outputs": "async def do(self, call): return StepDone(['id'])",
    "bytes": "async def do(self, call): return StepDone({'id': b'x', 'token': 't'})",
    "nan": "async def do(self, call): return StepDone({'id': float('nan'), 'token': 't'})",
    "names": "async def do(self, call): return StepDone({1: 'x'})",
    "deep": "async def do(self, call):\n        a = []\n        a.append(a)\n        return StepDone({'id': a})",
    "long": "async def do(self, call): return StepDone({'id': 'x' * 100_000, 'token': 't'})",
    "words": "async def do(self, call): return StepRefused(7)",
    "blocks": "async def do(self, call): time.sleep(600)",
    "hangs": "async def do(self, call): await asyncio.Event().wait()",
    "spins": "async def do(self, call):\n        while True: pass",
    "deaf": "async def do(self, call):\n        signal.signal(signal.SIGTERM, signal.SIG_IGN)\n        time.sleep(600)",
    "closes": "async def do(self, call):\n        os.closerange(0, 100)\n        return StepDone({'id': 'x'})",
}
"""A class that is good but for this method."""
UNLOADED = {
    "import_error": "import no_such_module",
    "import_raises": "raise RuntimeError('at import')",
    "import_exits": "sys.exit('no')",
    "not_there": "",
    "no_class": "C = Good()",
    "no_traits": "class C(Good): traits = None",
    "other_traits": "class C(Good): traits = {'outputs': ('id',)}",
    "bad_traits": "class C(Good): traits = StepTraits(outputs=['id'])",
    "no_output": "class C(Good): traits = StepTraits(secret_outputs=frozenset({'x'}))",
    "not_async": "class C(Good):\n    def do(self, call): return StepDone()",
    "no_undo": "class C(Good): undo = None",
    "not_made": "class C(Good):\n    def __init__(self): raise KeyError('STORE_URL')",
}
"""What a module has that cannot be loaded, in place of or beside the good class."""


@pytest.fixture
async def kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: LogCapture) -> AsyncIterator[PythonKind]:
    """The kind, with every class of this module in one installed distribution or another."""
    bad = "".join(f"class C_{name}(Good):\n    {method}\n" for name, method in BAD.items())
    classes = {"good": "Good"} | {name: f"C_{name}" for name in BAD}
    site = written(tmp_path / "site", "some", HEAD + bad, **classes)
    for name, code in UNLOADED.items():
        written(site, f"x_{name}", f"{HEAD}\n{code}\n", **{name: "C"})
    monkeypatch.syspath_prepend(str(site))
    heard = structlog.make_filtering_bound_logger("debug")
    log = structlog.wrap_logger(structlog.PrintLogger(), processors=[told], wrapper_class=heard)
    made = PythonKind(ChildProgram(tmp_path / "programs", 60.0, log))
    yield made
    await made.close()


@pytest.fixture
def told() -> LogCapture:
    return LogCapture()


def call(name: str, verb: Verb = Verb.CREATE, timeout_s: float = 30.0, **inputs: Any) -> Call:
    settings = {"class": name, "inputs": {"a": 1} | inputs, "outputs": ["id"], "secret_outputs": ["token"]}
    return Call(
        step="s", kind="python", verb=verb, key=key(1), tenant_id="acme", generation=1, epoch=1, idempotency_key="i",
        settings=settings, outputs={}, enabled=True, timeout_s=timeout_s,
    )  # fmt: skip


async def answers(kind: PythonKind, *calls: Call) -> list[Answer]:
    """The answers, four calls at a time."""
    gate = asyncio.Semaphore(4)

    async def ask(one: Call) -> Answer:
        async with gate:
            return await kind.call(one)

    return await asyncio.gather(*map(ask, calls))


async def test_a_class_does_undoes_and_observes(kind: PythonKind, told: LogCapture) -> None:
    name = call("good").key.replace(":", ".") + ".g1"
    found = await answers(kind, call("good", b="canary-12345"), call("good", Verb.DELETE), call("good", Verb.READ))
    assert found == [Done({"id": name, "token": "t"}), Absent(), Done({"id": name, "token": "t"}, None)]
    assert [line["said"] for line in told.entries] == ["to standard output", "secret [redacted]"]
    assert {line["key"] for line in told.entries} == {key(1)}


async def test_a_class_that_lies_has_an_unknown_outcome_which_is_named(kind: PythonKind, told: LogCapture) -> None:
    ends = {"blocks", "hangs", "spins", "deaf"}
    calls = [call(name, timeout_s=4.0 if name in ends else 30.0) for name in BAD]
    found = dict(zip(BAD, await answers(kind, *calls), strict=True))
    # `closes` has an answer, which reaches nobody; `deaf` is killed.
    assert {name: type(answer) for name, answer in found.items()} == dict.fromkeys(BAD, Unknown)
    reasons = {name: answer.reason for name, answer in found.items() if isinstance(answer, Unknown)}
    assert reasons["raises"] == "exit status 70: class raises: do raised ValueError"
    assert reasons["exits"] == "exit status 70: class exits: do raised SystemExit"
    assert reasons["dies"] == "exit status 0, and standard output is empty"
    assert reasons["aborts"] == "ended by signal 6"
    assert reasons["number"] == "exit status 70: class number: do answered int to create"
    assert reasons["found"] == "exit status 70: class found: do answered StepFound to create"
    assert reasons["outputs"] == "exit status 70: class outputs: do: outputs is list, and no dict"
    assert reasons["bytes"] == "exit status 70: the answer is no JSON: TypeError"
    assert reasons["words"] == "exit status 212, and reason is no text"
    assert reasons["long"].startswith("more than 65536 bytes")
    assert {reasons[name] for name in ends} == {"not done within 4 s"}
    assert "ValueError: canary" in str(told.entries), "with its traceback in the log"


async def test_a_class_that_cannot_be_loaded_is_the_operators_fault(kind: PythonKind) -> None:
    found = dict(zip(UNLOADED, await answers(kind, *map(call, UNLOADED)), strict=True))
    assert {name: type(answer) for name, answer in found.items()} == dict.fromkeys(UNLOADED, OperatorRefused)
    reasons = {name: answer.reason for name, answer in found.items() if isinstance(answer, OperatorRefused)}
    assert reasons["import_error"].endswith("ModuleNotFoundError: No module named 'no_such_module'")
    assert reasons["not_made"] == "class not_made: cannot be made: KeyError"


async def test_a_class_that_is_not_installed_is_named_with_those_that_are(kind: PythonKind) -> None:
    answer = await kind.call(call("goood"))
    assert isinstance(answer, OperatorRefused)
    assert "no installed distribution offers goood (did you mean good?); the group genesys_lifecycle.steps has a" in (
        answer.reason
    )
    assert "install the distribution" in answer.remedy


async def test_a_blocking_class_stops_no_other_call(kind: PythonKind) -> None:
    ended: list[str] = []

    async def ask(name: str, timeout_s: float) -> None:
        await kind.call(call(name, timeout_s=timeout_s))
        ended.append(name)

    blocking = [asyncio.create_task(ask(name, 20.0)) for name in ("spins", "blocks")]
    await ask("good", 60.0)
    assert ended == ["good"]
    for task in blocking:
        task.cancel()
    await asyncio.gather(*blocking, return_exceptions=True)


async def test_a_failed_observation_is_an_outage_and_a_missing_output_contradicts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: PythonKind
) -> None:
    code = HEAD + (
        "class C(Good):\n    async def observe(self, call): return StepFound({'id': 'x'})\n"
        "class D(Good):\n    async def observe(self, call): return StepDone({'id': 'x', 'token': 't'})\n"
        "class E(Good):\n    async def do(self, call): return StepUnderWay('job', 3)\n"
        "class F(Good):\n    async def do(self, call): return StepRefused('no', partly=True)\n"
        "class G(Good):\n    async def do(self, call): return StepRetry('away', 9)\n"
        "class H(Good):\n    async def do(self, call): return StepSetUpRefused('key')\n"
    )
    monkeypatch.syspath_prepend(str(written(tmp_path / "more", "more", code, **{name: name for name in "CDEFGH"})))
    found = await answers(kind, call("C", Verb.READ), call("D", Verb.READ), *map(call, "EFGH"))
    assert isinstance(found[0], Contradicted)
    assert isinstance(found[1], Retryable)
    assert found[2:5] == [Unknown("job", 3, succeeded=True), Refused("no", partly=True), Retryable("away", 9)]
    assert isinstance(found[5], OperatorRefused)


STEP = '[[step]]\nname = "s"\nkind = "python"\nundo = "reverse"\n'


def plan(text: str) -> Plan:
    return check(STEP + text, kinds=TRAITS, settings={})


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ('class = "good"\ninputs = { a = 1 }\noutputs = ["id"]\nsecret_outputs = ["token"]', []),
        ('class = "good"\ninputs = { a = 1, b = "{tenant.id}" }', []),
        ('class = "goodd"', ["class: no installed distribution offers goodd (did you mean good?)"]),
        ('class = "good"', ["inputs.a: good needs it"]),
        ('class = "good"\ninputs = { a = 1, c = 2 }', ["inputs.c: good takes no such input; it takes a, b"]),
        (
            'class = "good"\ninputs.a = 1\noutputs = ["ids"]',
            ["outputs: good has no output ids (did you mean id?); it has"],
        ),
        ('class = "good"\ninputs.a = 1\noutputs = ["token"]', ["outputs: token is secret: name it in secret_outputs"]),
        ('class = "import_raises"', ["class: import_raises (x_import_raises_module:C): RuntimeError: at import"]),
        ('class = "not_async"', ["class: not_async (x_not_async_module:C): do is no async method"]),
        ('class = "other_traits"', ["traits is no services.steps.StepTraits"]),
        ('class = "bad_traits"', ["TypeError: traits: outputs is no tuple of texts"]),
    ],
)
async def test_a_plan_and_its_class_are_compared_at_the_start(kind: PythonKind, text: str, faults: list[str]) -> None:
    found = await kind.faults_of(plan(text))
    assert len(found) == len(faults)
    for sentence, part in zip(found, faults, strict=True):
        assert sentence.startswith("step 1 (s): ")
        assert part in sentence


async def test_a_module_that_ends_the_process_at_its_import_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: PythonKind
) -> None:
    monkeypatch.syspath_prepend(str(written(tmp_path / "more", "more", "import os; os._exit(0)", ends="C")))
    assert await kind.faults_of(plan('class = "ends"')) == [
        "step 1 (s): class: ends: its import ended the process with status 0"
    ]


async def test_a_name_of_two_distributions_and_a_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: PythonKind
) -> None:
    site = written(tmp_path / "more", "first", HEAD, twice="Good")
    written(site, "second", HEAD, twice="Good")
    written(site, "damaged", "")
    (site / "damaged-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xff[x\nnonsense")
    monkeypatch.syspath_prepend(str(site))
    (fault,) = await kind.faults_of(plan('class = "twice"'))
    assert "twice is offered by several distributions: first_module:Good, second_module:Good" in fault
    assert isinstance(await kind.call(call("twice")), OperatorRefused)
    assert isinstance(await kind.call(call("good")), Done)


def test_the_statuses_of_the_host_are_those_of_the_contract() -> None:
    names = ("DONE", "ABSENT", "RETRY", "REFUSED", "OPERATOR_REFUSED", "UNDER_WAY")
    assert [getattr(host, name) for name in names] == [getattr(program_contract, name) for name in names]


def test_traits_of_a_wrong_type_are_refused_where_they_are_declared() -> None:
    wrongs: list[dict[str, Any]] = [
        {"outputs": ["id"]},
        {"inputs": "ab"},
        {"secret_outputs": {"a"}},
        {"optional_inputs": (1,)},
    ]
    for wrong in wrongs:
        with pytest.raises(TypeError, match="traits: "):
            StepTraits(**wrong)


# The class of the example, and one that hangs for one tenant, inside a real provisioner.


@pytest.fixture
def scene(kafka_bootstrap: str, topic_prefix: str, database_url: str, tmp_path: Path) -> Iterator[Scene]:
    with Scene(kafka_bootstrap, topic_prefix, database_url, tmp_path, program=SHIPPED) as made:
        root = str(EXAMPLES.parent)
        path = ":".join((root, str(tmp_path / "site")))
        made.environment |= {"STATE_DIR": str(tmp_path / "state"), "LEASE_S": "8", "PYTHONPATH": path}
        yield made


def _configured(of: str, version: int, **configuration: Any) -> Any:
    return desired(of, version, configuration=configuration)


def test_the_example_is_installed_updated_and_uninstalled(scene: Scene, tmp_path: Path) -> None:
    built(EXAMPLES / "python-step", tmp_path / "site")
    store = tmp_path / "store"
    store.mkdir()
    text = (EXAMPLES / "python-step" / "plan.toml").read_text()
    (tmp_path / "plan.toml").write_text(text.replace("file:///srv/cards", store.as_uri()))
    scene.start(PLAN_FILE=str(tmp_path / "plan.toml"))
    one, two = key(1), key(2)
    scene.publish_desired([_configured(one, 1, colour="red"), _configured(two, 1, colour="mauve")])
    assert scene.ended(one, 1).state is State.DONE
    assert scene.ended(two, 1).state is State.ROLLED_BACK, "refused"
    (card,) = store.glob("cards/*.json")
    assert json.loads(card.read_text()) == {"tenant": f"tenant-{one[-12:]}", "enabled": True, "colour": "red"}
    scene.publish_desired([desired(one, 2, configuration={"colour": "green", "note": "n"}, enabled=False)])
    assert scene.ended(one, 2).state is State.DONE
    wanted = {"tenant": f"tenant-{one[-12:]}", "enabled": False, "colour": "green", "note": "n"}
    assert json.loads(card.read_text()) == wanted
    scene.publish_desired([gone(one, 3)])
    assert scene.ended(one, 3).state is State.DONE
    assert not list(store.glob("cards/*.json"))


def test_a_class_that_hangs_for_one_tenant_holds_up_no_other(scene: Scene, tmp_path: Path) -> None:
    code = HEAD + (
        "class Hangs(Good):\n    async def do(self, call):\n"
        "        if call.inputs['a'] == 'hang': time.sleep(600)\n        return StepDone({'id': call.name})\n"
    )
    written(tmp_path / "site", "hangs", code, hangs="Hangs")
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(STEP + 'class = "hangs"\ninputs.a = "{configuration.a}"\noutputs = ["id"]\ntimeout_s = 60')
    process = scene.start(PLAN_FILE=str(plan_file))
    scene.publish_desired([_configured(key(1), 1, a="hang"), *(_configured(key(n), 1, a="go") for n in range(2, 6))])
    for number in range(2, 6):
        assert scene.ended(key(number), 1).state is State.DONE
    assert State.DONE not in {said.state for said in scene.outcomes(key(1))}
    process.kill()
    process.wait()


def test_a_provisioner_whose_plan_names_a_missing_class_says_so_and_ends(scene: Scene, tmp_path: Path) -> None:
    written(tmp_path / "site", "some", HEAD, good="Good")
    plan_file = tmp_path / "plan.toml"
    plan_file.write_text(STEP + 'class = "goood"')
    process = scene.start(PLAN_FILE=str(plan_file))
    assert process.wait(60) == 2
    said = f"PLAN_FILE: {plan_file}: step 1 (s): class: no installed distribution offers goood (did you mean good?)"
    assert said in re.sub(r"\s+", " ", scene.logs())
