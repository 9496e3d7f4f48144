"""An exit status and a JSON object become one of the answers of a step; what proves nothing is unknown."""

import json
from dataclasses import replace
from typing import Any

import pytest

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
from services.core.saga.plan import BadPlan
from services.core.saga.plan_check import check
from services.core.saga.program_contract import WORDS_MOST, answer_of, cleaned, request
from services.provisioner.kinds import TRAITS
from tests.support.saga_world import KEY

CHANGES = (Verb.CREATE, Verb.UPDATE, Verb.DELETE)
SECRET = "s3cr3t/of the customer"


def call(verb: Verb = Verb.CREATE, **settings: Any) -> Call:
    return Call(
        step="crm", kind="script", verb=verb, key=KEY, tenant_id="acme-tenant", generation=2, epoch=7,
        idempotency_key="an-idempotency-key", settings={"argv": ["x"]} | settings, outputs={}, enabled=True,
        timeout_s=5,
    )  # fmt: skip


def said(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_the_program_is_told_everything_that_a_repeat_needs() -> None:
    given = request(replace(call(inputs={"a": [1]}), outputs={"id": "7"}, repeats=True))
    org, integration = KEY.split(":")
    assert given == {
        "contract": 1, "verb": "create", "step": "crm", "key": KEY, "organisation": org, "integration": integration,
        "generation": 2, "name": f"{org}.{integration}.g2", "tenant_id": "acme-tenant",
        "idempotency_key": "an-idempotency-key", "epoch": 7, "repeats": True, "enabled": True, "timeout_s": 5,
        "inputs": {"a": [1]}, "outputs": {"id": "7"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("verb", "status", "body", "answer"),
    [
        (Verb.CREATE, 0, said(), Done({})),
        (Verb.DELETE, 0, said(outputs={"id": "x"}), Done()),
        (Verb.CREATE, 210, b"", Unknown("exit status 210")),
        (Verb.UPDATE, 210, b"", Absent()),
        (Verb.DELETE, 210, b"", Absent()),
        (Verb.READ, 210, b"", Absent()),
        (Verb.CREATE, 211, b"", Retryable("exit status 211")),
        (Verb.CREATE, 211, said(reason="full", retry_after_s=9), Retryable("full", 9)),
        (Verb.CREATE, 212, said(reason="no such region"), Refused("no such region")),
        (Verb.CREATE, 212, said(partly=True), Refused("exit status 212", partly=True)),
        (Verb.DELETE, 212, said(partly=True), Refused("exit status 212")),
        (Verb.UPDATE, 214, said(reason="job 5"), Unknown("job 5", succeeded=True)),
        (Verb.CREATE, 1, b"", Unknown("exit status 1")),
        (Verb.CREATE, 1, said(reason="oh"), Unknown("exit status 1: oh")),
        (Verb.DELETE, 127, b"", Unknown("exit status 127")),
        (Verb.READ, 2, b"usage", Retryable("exit status 2, and standard output is no JSON object")),
        (Verb.READ, 0, said(differs=None), Done({}, None)),
        (Verb.READ, 0, said(differs="region"), Done({}, "region")),
        (Verb.READ, 0, said(), Done({}, "inputs")),
    ],
)
def test_each_exit_status_means_one_thing(verb: Verb, status: int, body: bytes, answer: Answer) -> None:
    assert answer_of(call(verb), status, body) == answer


def test_a_refusal_of_the_operators_set_up_judges_no_tenant() -> None:
    found = answer_of(call(), 213, said(reason="token expired"))
    assert isinstance(found, OperatorRefused)
    assert found.reason == "token expired"


@pytest.mark.parametrize("verb", CHANGES)
@pytest.mark.parametrize(
    "body",
    [
        b"", b" \n", b"done", b"[]", b"null", b"{", b"\xff", said() + said(), said(outputs=[]), said(reason=7),
        said(outputs={"id": "a\0b"}), b'{"outputs": {"id": "\\ud800"}}', b'{"outputs": {"n": NaN}}',
        said(outputs={"n": 2**63}), b'{"outputs": {"n": 1e999}}', b"[" * 60_000, b'{"a":' * 10_000,
        said(outputs={"a": [[[[[[[[[1]]]]]]]]]}), said(partly=1), said(retry_after_s=-1), said(retry_after_s=True),
        said(differs=3),
    ],
)  # fmt: skip
def test_a_success_that_lies_in_its_form_is_unknown(verb: Verb, body: bytes) -> None:
    found = answer_of(call(verb), 0, body)
    assert isinstance(found, Unknown)
    assert not found.succeeded
    assert isinstance(answer_of(call(Verb.READ), 0, body), Retryable), "a look-up changes nothing"


@pytest.mark.parametrize("status", [210, 211, 212, 213, 214])
def test_a_status_with_other_words_than_json_is_unknown(status: int) -> None:
    assert isinstance(answer_of(call(Verb.UPDATE), status, b"Traceback"), Unknown)
    assert isinstance(answer_of(call(Verb.READ), status, b"Traceback"), Retryable)


def test_a_step_without_a_look_up_is_held_and_never_counts_as_an_outage() -> None:
    for status, body in ((1, b""), (2, b"usage"), (0, b""), (0, b"ok")):
        found = answer_of(call(Verb.READ, unknown="hold"), status, body)
        assert isinstance(found, Unknown)
        assert found.succeeded
        assert found.reason.startswith("held until read is answered")
    assert answer_of(call(Verb.READ, unknown="hold"), 210, b"") == Absent(), "a person made it answer"


def test_only_outputs_that_the_plan_names_are_kept() -> None:
    body = said(outputs={"id": 7, "url": "u", "token": "t", "password": "p"})
    found = answer_of(call(outputs=["id", "url"], secret_outputs=["token"]), 0, body)
    assert found == Done({"id": 7, "url": "u", "token": "t"})


def test_a_success_without_a_named_output_is_read_back_and_then_contradicts() -> None:
    named: dict[str, Any] = {"outputs": ["id"], "secret_outputs": ["token"]}
    for outputs in ({"id": "7"}, {"token": "t"}, {"id": None, "token": "t"}, {}):
        found = answer_of(call(**named), 0, said(outputs=outputs))
        assert isinstance(found, Unknown)
        assert found.succeeded
        assert isinstance(answer_of(call(Verb.READ, **named), 0, said(outputs=outputs)), Contradicted)


def test_an_update_keeps_the_outputs_that_it_does_not_show() -> None:
    made = replace(call(Verb.UPDATE, outputs=["id", "url"]), outputs={"id": "7", "url": "old", "former": 1})
    assert answer_of(made, 0, said(outputs={"url": "new"})) == Done({"id": "7", "url": "new"})


def test_a_text_for_the_log_hides_inputs_environment_and_secret_outputs() -> None:
    pem = "-----BEGIN KEY-----\nMIIabcdef\n-----END KEY-----"
    asked = replace(
        call(inputs={"a": [{"b": SECRET}], "t": "acme-tenant"}, environment={"PEM": pem}, secret_outputs=["token"]),
        outputs={"token": "tok-123456", "id": "id-123456"},
    )
    text = f"{SECRET} s3cr3t%2Fof%20the%20customer MIIabcdef tok-123456 id-123456 acme-tenant \x1b[31m"
    hidden = "[redacted]"
    assert cleaned(text, asked) == f"{hidden} {hidden} {hidden} {hidden} id-123456 acme-tenant \\x1b[31m"


def test_a_long_text_is_cut_after_its_secrets_are_hidden() -> None:
    found = cleaned("x" * (WORDS_MOST - 8) + SECRET, call(inputs={"a": SECRET}))
    assert len(found) == WORDS_MOST
    assert "s3c" not in found


def test_a_reason_is_cleaned_like_a_log_line() -> None:
    found = answer_of(call(inputs={"a": SECRET}), 212, said(reason=f"bad \n{SECRET}"))
    assert found == Refused("bad \\n[redacted]")


SCRIPT = '[[step]]\nname = "a"\nkind = "script"\nundo = "reverse"\n'


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "step 1 (a): argv: must be a list of text, and is missing"),
        ('argv = "x"', "argv: must be a list of text, and is another text"),
        ('argv = ["bin/x"]', "argv: bin/x: must begin with /"),
        ("argv = []", "step 1 (a): argv: names no program"),
        ('argv = ["x", "{configuration.region}"]', "argv: {configuration.region}: takes no reference; a value of"),
        ('argv = ["{tenant.id}"]', "argv: {tenant.id}: takes no reference"),
        ('argv = ["x"]\noutputs = ["{tenant.id}"]', "outputs: {tenant.id}: takes no reference"),
        ('argv = ["x"]\noutputs = ["Id"]', "outputs: 'Id': an output has lower-case letters"),
        ('argv = ["x"]\noutputs = ["a"]\nsecret_outputs = ["a"]', "outputs: a is named twice"),
        ('argv = ["x"]\noutputs = 7', "outputs: must be a list of text, and is a number"),
        ('argv = ["x"]\nunknown = "repeat"', 'unknown: must be "read" or "hold"'),
        ('argv = ["x"]\nurl = "https://x"', "url: no such key"),
        ('argv = ["x"]\ninputs = { a = [{ b = 2026-01-01 }] }', "inputs: has a date or time, which JSON does not have"),
        ('argv = ["x"]\ninputs = { a = nan }', "inputs: has a number without an end"),
        ('argv = ["x"]\nenvironment = { "A=B" = "c" }', "environment: 'A=B': a variable has letters"),
        ('argv = ["x"]\nenvironment = ["A"]', "environment: must be a table, and is a list"),
        ('argv = ["x"]\noutputs = ["url"]\n' + SCRIPT.replace('"a"', '"b"')
         + 'argv = ["y"]\ninputs.of = "{steps.a.urls}"',
         "step 2 (b): inputs: {steps.a.urls}: no such output (did you mean url?); a has url"),
    ],
)  # fmt: skip
def test_a_bad_script_step_is_refused_in_one_sentence(text: str, fault: str) -> None:
    with pytest.raises(BadPlan) as found:
        check(SCRIPT + text, kinds=TRAITS, settings={})
    assert fault in str(found.value)
    assert len(found.value.faults) == 1


def test_a_script_step_seals_what_its_plan_declares_secret() -> None:
    text = SCRIPT + 'argv = ["x"]\noutputs = ["id"]\nsecret_outputs = ["token"]\nunknown = "hold"'
    (step,) = check(text, kinds=TRAITS, settings={}).steps
    assert step.traits.secret_outputs_of(step.settings) == {"token"}
    assert step.traits.outputs_of(step.settings) == ("id", "token")
    assert step.traits.left_behind_of(step.settings), "no orphan check asks what cannot answer"
