"""A kind is its file and a line in the list; wrong traits stop the start."""

from dataclasses import MISSING, fields, replace
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from schemas.saga import Journal, Life, Phase, StepLog, StepState
from schemas.tenant import Desired
from services.adapters.process import logs
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Call, Done, Verb
from services.core.saga.intents import begin
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.moves import Finish, Run, TakeUp, Undo
from services.core.saga.next_move import Plans
from services.core.saga.outside_system import system_of
from services.core.saga.plan import BadPlan, Plan, parse
from services.core.saga.plan_check import check
from services.core.saga.plan_forms import Form, PlanKey
from services.core.saga.plan_keys import STEP
from services.provisioner.caller import Caller
from services.provisioner.kinds import KINDS, TRAITS
from services.provisioner.kinds.step_kind import StepKind, traits_of
from tests.support.queue_kind import QueueKind
from tests.support.saga_world import KEY

WITH_QUEUE = traits_of((*KINDS, QueueKind))
PLAN = """
[[step]]
name = "q"
kind = "queue"
undo = "reverse"
url = "{configuration.broker}"
passphrase = "{configuration.phrase?}"
[[step]]
name = "crm"
kind = "http"
undo = "reverse"
body = { queue = "{steps.q.queue}" }
"""
SETTINGS = dict.fromkeys(("middleware_url", "oauth_url"), "https://x")
LOG = logs.configure("traits", "critical")


class Unnamed(QueueKind):
    """Derived from a kind, and forgot that it is another."""


class Namesake(QueueKind):
    traits: ClassVar = replace(QueueKind.traits, name="http")


def _run(plan: Plan, verb: Verb, **configuration: str) -> tuple[Journal, Run]:
    """The journal with a committed intent of the queue's step, and its move."""
    inputs = {"configuration": {"broker": "https://MQ.example.com/x"} | configuration, "enabled": True}
    life = Life(generation=1, plan=plan.digest, tenant_id="acme", steps={"q": StepLog(n=1, inputs=inputs)})
    return Journal(generation=1, life=life), Run(1, plan.steps[0], verb, 1, inputs, "", None)


def _caller() -> Caller:
    return Caller({"queue": QueueKind()}, WITH_QUEUE, Sealer([SecretStr("k" * 40)]), b"k" * 40, LOG)


async def test_a_new_kind_is_parsed_checked_gated_and_sealed_by_its_traits() -> None:
    plan = check(PLAN, kinds=WITH_QUEUE, settings=SETTINGS)
    assert plan == parse(PLAN, kinds=WITH_QUEUE, settings=SETTINGS)
    step, caller = plan.steps[0], _caller()
    journal, move = _run(plan, Verb.CREATE)
    call = caller.prepare(KEY, 1, journal, move)
    assert isinstance(call, Call)
    assert system_of(call, step.traits) == "q mq.example.com"
    assert system_of(replace(call, verb=Verb.UPDATE), step.traits) is None, "its update asks nobody"
    answer = await caller.call(call)
    assert isinstance(answer, Done)
    assert answer.outputs["queue"] == KEY
    assert "canary" not in str(answer.outputs["password"]), "sealed"
    assert journal.life is not None
    logged = StepLog(n=1, inputs=move.inputs, outputs=dict(answer.outputs))
    later = journal.model_copy(update={"life": journal.life.model_copy(update={"steps": {"q": logged}})})
    undo = caller.prepare(KEY, 1, later, Undo(1, step, 2))
    assert isinstance(undo, Call)
    assert undo.outputs["password"] == "canary", "and opened for the next call"


@pytest.mark.parametrize(("configuration", "own"), [({}, True), ({"phrase": "theirs"}, False)])
def test_credentials_from_the_configuration_belong_to_the_tenant(configuration: dict[str, str], *, own: bool) -> None:
    text = PLAN if configuration else PLAN.replace("{configuration.phrase?}", "ours")
    call = _caller().prepare(KEY, 1, *_run(parse(text, kinds=WITH_QUEUE, settings={}), Verb.CREATE, **configuration))
    assert isinstance(call, Call)
    assert call.own_credentials is own


@pytest.mark.parametrize(
    ("told", "fault"),
    [
        (('"{configuration.broker}"', "7"), "step 1 (q): url: must be an http or https URL, and is a number"),
        (("passphrase", "pasphrase"), "step 1 (q): pasphrase: no such key (did you mean passphrase?); kind queue has"),
        (("passphrase", "topics"), "(topics is a key of kind subscription)"),
        (("steps.q.queue", "steps.q.quue"), "no such output (did you mean queue?); q has queue, password"),
        (
            ('"http"', '"htp"'),
            "'htp' is none of archive, http, oauth, postgres, python, queue, rest, script, subscription",
        ),
    ],
)
def test_a_plan_that_misuses_a_new_kind_is_refused_with_the_fault(told: tuple[str, str], fault: str) -> None:
    with pytest.raises(BadPlan) as found:
        check(PLAN.replace(*told), kinds=WITH_QUEUE, settings=SETTINGS)
    assert fault in str(found.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_plan_with_a_kind_missing_from_the_release_is_refused(kind: type[StepKind]) -> None:
    less = {name: traits for name, traits in TRAITS.items() if name != kind.traits.name}
    text = f'[[step]]\nname = "a"\nkind = "{kind.traits.name}"\nundo = "reverse"\n'
    assert parse(text, kinds=TRAITS, settings={}).steps[0].traits is kind.traits
    with pytest.raises(BadPlan, match=f"'{kind.traits.name}' is none of"):
        parse(text, kinds=less, settings={})


def test_every_trait_must_be_declared() -> None:
    assert not [field.name for field in fields(KindTraits) if field.default is not MISSING]
    given: dict[str, Any] = {field.name: getattr(QueueKind.traits, field.name) for field in fields(KindTraits)}
    for name in given:
        with pytest.raises(TypeError, match=name):
            KindTraits(**{other: value for other, value in given.items() if other != name})


@pytest.mark.parametrize(
    ("wrong", "fault"),
    [
        ({"secret_outputs": frozenset({"token"})}, "kind queue: secret output token is no output"),
        ({"credentials": frozenset({"token"})}, "kind queue: credential token is no key"),
        ({"keys": (*QueueKind.traits.keys, STEP[0])}, "kind queue: key name is a key of every step"),
        ({"keys": QueueKind.traits.keys + QueueKind.traits.keys[:1]}, "kind queue: key url is declared twice"),
        ({"keys": QueueKind.traits.keys[1:]}, "kind queue: the system is named by a key url, and the kind has no such"),
        (
            {"keys": (PlanKey("undo", Form.TEXT, "Ours."),), "system": SystemBy.STEP},
            "kind queue: key undo is a key of every step; credential passphrase is no key",
        ),
    ],
)
def test_traits_that_contradict_each_other_are_refused_by_name(wrong: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=f"^{fault}"):
        type("Made", (QueueKind,), {"traits": replace(QueueKind.traits, **wrong)})


def test_two_kinds_with_one_name_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"^kind http: declared by HttpKind and by Namesake$"):
        traits_of((*KINDS, Namesake))


def test_a_kind_in_the_list_without_traits_of_its_own_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"^kind Unnamed: declares no traits$"):
        traits_of((*KINDS, Unnamed))


def _plans(**changed: Any) -> Plans:
    kinds = WITH_QUEUE | {"queue": replace(QueueKind.traits, **changed)}
    return Plans(parse(PLAN, kinds=kinds, settings={}))


def _life(plans: Plans) -> Life:
    return Life(
        generation=1, plan=plans.current.digest, tenant_id="acme", steps={"q": StepLog(n=1, state=StepState.PRESENT)}
    )


def _desired(version: int, *, installed: bool) -> Desired:
    return Desired(
        key=KEY,
        version=version,
        installed=installed,
        enabled=True,
        configuration={},
        tenant_id="acme",
        installed_at=1,
        uninstalled_at=9,
    )


@pytest.mark.parametrize(("reissued", "names"), [(True, ("q",)), (False, ())])
def test_a_kind_is_issued_anew_after_a_reinstall_by_its_trait(names: tuple[str, ...], *, reissued: bool) -> None:
    plans = _plans(reissued=reissued)
    again = _desired(2, installed=True)
    journal = Journal(phase=Phase.ACTIVE, generation=1, life=_life(plans), target=_desired(1, installed=True))
    taken_up, _ = begin(plans, journal, again, TakeUp(Phase.UPDATING, again), 10)
    assert taken_up.life is not None
    assert taken_up.life.reissue == names


@pytest.mark.parametrize(("left_behind", "state"), [(True, StepState.ABSENT), (False, StepState.IN_DOUBT)])
def test_a_kind_that_leaves_remains_is_not_looked_up_after_its_end(state: StepState, *, left_behind: bool) -> None:
    plans = _plans(left_behind=left_behind)
    gone = _desired(2, installed=False)
    journal = Journal(phase=Phase.REMOVING, generation=1, life=_life(plans), target=gone)
    ended, _ = begin(plans, journal, gone, Finish(), 10)
    assert ended.orphan_checks[0].life.steps["q"].state is state
