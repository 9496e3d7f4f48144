"""The table from HTTP answers to the seven answers of a call."""

from dataclasses import replace
from typing import Any

import pytest

from services.adapters.http_client import HttpResponse, NoAnswer, NotSent
from services.core.saga.calls import (
    Absent,
    Answer,
    Contradicted,
    Done,
    OperatorRefused,
    Refused,
    Retryable,
    Unknown,
    Verb,
)
from services.core.saga.json_values import difference
from services.provisioner.kinds.answers import is_ours, meaning, shown, silence
from tests.support.simulator_process import a_call

OURS = {"key": a_call(Verb.READ).key, "generation": 1}
CHANGES = (Verb.CREATE, Verb.UPDATE)
PAGE = {"content-type": "text/html; charset=utf-8"}


def means(verb: Verb, status: int, body: Any = None, **headers: str) -> Answer:
    return meaning(a_call(verb), HttpResponse(status, headers, body))


def operator_means(verb: Verb, status: int, body: Any = None, *, own: bool = True) -> Answer:
    call = a_call(verb, settings={"url": "http://middleware", "url_from": "operator"})
    return meaning(replace(call, own_credentials=own), HttpResponse(status, {}, body))


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("status", [200, 201, 204])
def test_success_is_done(verb: Verb, status: int) -> None:
    assert means(verb, status) == Done()


@pytest.mark.parametrize("verb", [*CHANGES, Verb.DELETE])
def test_a_202_is_not_done_and_is_read_back(verb: Verb) -> None:
    assert means(verb, 202) == Unknown("HTTP 202: taken, and not done yet", succeeded=True)


@pytest.mark.parametrize("verb", list(Verb))
def test_a_proxy_page_with_status_200_is_an_outage(verb: Verb) -> None:
    answer = meaning(a_call(verb), HttpResponse(200, PAGE, None, other=True))
    reason = "HTTP 200 with HTML where JSON is due"
    assert answer == (Unknown(reason) if verb in CHANGES else Retryable(reason))


@pytest.mark.parametrize("status", [404, 410])
def test_a_404_or_410_is_absence_only_for_a_read_or_delete(status: int) -> None:
    assert means(Verb.DELETE, status) == Absent()
    assert means(Verb.READ, status) == Absent()
    for verb in CHANGES:
        assert means(verb, status) == (Retryable("HTTP 404") if status == 404 else Refused("HTTP 410"))


@pytest.mark.parametrize("headers", [PAGE, {"content-type": "text/plain"}, {}])
@pytest.mark.parametrize("status", [404, 410])
@pytest.mark.parametrize("verb", [Verb.READ, Verb.DELETE])
def test_a_404_of_a_proxy_without_a_backend_is_retryable(verb: Verb, status: int, headers: dict[str, str]) -> None:
    answer = meaning(a_call(verb), HttpResponse(status, headers, None, other=True))
    assert answer == Retryable(f"HTTP {status} without JSON")


def test_a_conflict_is_done_only_if_it_shows_our_own_generation() -> None:
    assert means(Verb.CREATE, 409, OURS) == Done()
    assert isinstance(means(Verb.CREATE, 409, OURS | {"generation": 2}), Refused)
    assert isinstance(means(Verb.CREATE, 409, {"key": "another"}), Refused)
    assert isinstance(means(Verb.CREATE, 409), Refused)
    assert isinstance(means(Verb.UPDATE, 409, OURS), Refused)
    assert isinstance(means(Verb.DELETE, 409, OURS), Refused)


def test_a_conflict_with_retry_after_is_retryable() -> None:
    assert means(Verb.CREATE, 409, **{"retry-after": "2"}) == Retryable("HTTP 409", 2.0)


@pytest.mark.parametrize("verb", [*CHANGES, Verb.DELETE])
@pytest.mark.parametrize(
    "code",
    [
        "request_in_progress",
        "idempotency_key_in_use",
        "key_in_use",
        "OperationInUse",
        "ConcurrentRequest",
        "inFlight",
        "still_processing",
    ],
)
def test_a_conflict_with_our_own_running_request_is_retryable(verb: Verb, code: str) -> None:
    assert means(verb, 409, {"error": code}) == Retryable(f"HTTP 409 {code}")


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize(
    "code", ["name_in_use", "email_in_use", "domain_already_in_use", "license_key_in_use", "processing_error", "taken"]
)
def test_a_conflict_with_a_foreign_resource_is_refused(code: str, *, repeats: bool) -> None:
    call = replace(a_call(Verb.CREATE), repeats=repeats)
    assert meaning(call, HttpResponse(409, {}, {"error": code})) == Refused(f"HTTP 409 {code}")


@pytest.mark.parametrize("verb", [*CHANGES, Verb.DELETE])
@pytest.mark.parametrize("body", [None, {}, {"error": "conflict"}, {"status": 409, "error": "Conflict"}], ids=str)
def test_an_unexplained_conflict_is_retryable_for_the_repeat_of_a_lost_intent(verb: Verb, body: Any) -> None:
    repeat = replace(a_call(verb), repeats=True)
    assert isinstance(meaning(repeat, HttpResponse(409, {}, body)), Retryable)
    assert isinstance(meaning(a_call(verb), HttpResponse(409, {}, body)), Refused)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"code": "idempotency_key_in_use", "type": "idempotency_error"}},
        {"error": {"type": "request_in_progress"}},
        {"errors": [{"code": "request_in_progress"}]},
        {"error": "Conflict", "code": "request_in_progress"},
        {"error": "Somebody asks for the same at the moment.", "code": "request_in_progress"},
        [{"errorCode": "request_in_progress"}],
    ],
    ids=str,
)
def test_an_error_code_is_found_in_every_known_form_of_body(body: Any) -> None:
    assert isinstance(means(Verb.CREATE, 409, body), Retryable)


def test_the_error_code_is_part_of_the_reason_from_every_known_form() -> None:
    said = {"code": "idempotency_key_in_use", "type": "idempotency_error"}
    assert means(Verb.CREATE, 409, {"error": said}) == Retryable("HTTP 409 idempotency_key_in_use")
    assert means(Verb.CREATE, 400, {"error": {"type": "rate_limit_error"}}) == Retryable("HTTP 400 rate_limit_error")
    assert means(Verb.CREATE, 422, {"errors": [{"code": "bad_size"}]}) == Refused("HTTP 422 bad_size")
    assert means(Verb.CREATE, 409, {"error": {"code": "stale_epoch"}}) == Retryable("HTTP 409 stale_epoch", well=True)
    assert isinstance(operator_means(Verb.CREATE, 400, {"error": {"code": "invalid_client"}}), OperatorRefused)
    odds: list[Any] = [{"errors": []}, {"errors": [[]]}, {"error": {"code": 7}}, {"error": [None]}, [[{"code": "x"}]]]
    for odd in odds:
        assert means(Verb.CREATE, 422, odd) == Refused("HTTP 422")


@pytest.mark.parametrize("verb", list(Verb))
def test_a_stale_epoch_is_retryable(verb: Verb) -> None:
    assert means(verb, 409, {"error": "stale_epoch"}) == Retryable("HTTP 409 stale_epoch", well=True)
    assert isinstance(means(verb, 403, {"error": "stale_epoch"}), Refused)


@pytest.mark.parametrize("status", [405, 408, 423, 425, 429, 500, 501, 502, 503, 504, 599])
@pytest.mark.parametrize("verb", list(Verb))
def test_an_outage_is_retryable(verb: Verb, status: int) -> None:
    assert means(verb, status) == Retryable(f"HTTP {status}")


@pytest.mark.parametrize("status", [300, 301, 302, 307, 308, 400, 401, 402, 403, 406, 413, 415, 418, 422, 451])
@pytest.mark.parametrize("verb", list(Verb))
def test_every_other_status_is_refused(verb: Verb, status: int) -> None:
    assert means(verb, status) == Refused(f"HTTP {status}")


@pytest.mark.parametrize("status", [400, 403, 429])
def test_an_exhausted_quota_is_retryable(status: int) -> None:
    body = [{"errorCode": "REQUEST_LIMIT_EXCEEDED", "message": "TotalRequests Limit exceeded."}]
    assert means(Verb.CREATE, status, body) == Retryable(f"HTTP {status} REQUEST_LIMIT_EXCEEDED")


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("status", [401, 403, 407])
def test_a_refusal_by_the_operators_system_is_the_operators_fault(verb: Verb, status: int) -> None:
    answer = operator_means(verb, status)
    assert isinstance(answer, OperatorRefused)
    assert answer.reason == f"HTTP {status}"
    assert "credentials" in answer.remedy
    assert operator_means(verb, status, own=False) == Refused(f"HTTP {status}"), "the secret is the customer's"


def test_an_unknown_client_and_a_redirect_are_the_operators_fault() -> None:
    assert isinstance(operator_means(Verb.CREATE, 400, {"error": "invalid_client"}), OperatorRefused)
    assert isinstance(operator_means(Verb.CREATE, 302), OperatorRefused)
    assert operator_means(Verb.CREATE, 400, {"error": "bad_configuration"}) == Refused("HTTP 400 bad_configuration")
    assert operator_means(Verb.CREATE, 422) == Refused("HTTP 422")
    assert operator_means(Verb.CREATE, 503) == Retryable("HTTP 503")


@pytest.mark.parametrize(
    ("text", "date", "wait_s"),
    [
        ("0", "", 0.0),
        ("42", "", 42.0),
        ("-1", "", None),
        ("1.5", "", None),
        (" 600 ", "", 600.0),
        ("9" * 400, "", None),
        ("²", "", None),
        ("soon", "", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "", 0.0),
        ("Wed, 21 Oct 2015 07:28:30 GMT", "yesterday", 0.0),
    ],
)
def test_retry_after_is_read_as_seconds_or_date(text: str, date: str, wait_s: float | None) -> None:
    assert means(Verb.CREATE, 503, **{"retry-after": text, "date": date}) == Retryable("HTTP 503", wait_s)


def test_only_a_short_code_of_an_error_is_kept() -> None:
    assert means(Verb.CREATE, 401, {"error": "invalid_client"}) == Refused("HTTP 401 invalid_client")
    assert means(Verb.CREATE, 401, {"code": "not.authorized"}) == Refused("HTTP 401 not.authorized")
    for odd in ({"error": "the secret s3cr3t is wrong"}, {"error": ["x"]}, {"error": "x" * 65}, ["error"], "error", 7):
        assert means(Verb.CREATE, 401, odd) == Refused("HTTP 401")


def test_an_error_code_that_quotes_a_sent_secret_is_not_kept() -> None:
    call = a_call(
        Verb.CREATE, settings={"credentials": {"client_secret": "s3cr3t-A.b"}}, outputs={"access_token": "tok3n"}
    )
    for quoted in ("s3cr3t-A.b", "s3cr3t", "tok3n", "bad_secret_s3cr3t-A.b"):
        assert meaning(call, HttpResponse(401, {}, {"error": quoted})) == Refused("HTTP 401")
    assert meaning(call, HttpResponse(401, {}, {"error": "invalid_client"})) == Refused("HTTP 401 invalid_client")


def test_an_unanswered_change_is_unknown_and_an_unanswered_read_retryable() -> None:
    for verb in Verb:
        assert silence(a_call(verb), NotSent("refused")) == Retryable("refused")
    assert silence(a_call(Verb.READ), NoAnswer("reset")) == Retryable("reset")
    for verb in (Verb.CREATE, Verb.UPDATE, Verb.DELETE):
        assert silence(a_call(verb), NoAnswer("reset")) == Unknown("reset")


def test_an_unusable_url_is_the_fault_of_its_owner() -> None:
    failure = NotSent("InvalidURL", passing=False)
    assert silence(a_call(Verb.CREATE), failure) == Refused("InvalidURL", heard=False)
    operators = a_call(Verb.CREATE, settings={"url_from": "operator"})
    assert isinstance(silence(operators, failure), OperatorRefused)


def test_a_bad_certificate_is_the_operators_fault_only_at_the_operators_system() -> None:
    failure = NotSent("certificate not accepted", untrusted=True)
    assert silence(a_call(Verb.CREATE), failure) == Retryable("certificate not accepted")
    answer = silence(a_call(Verb.CREATE, settings={"url_from": "operator"}), failure)
    assert isinstance(answer, OperatorRefused)
    assert "certificate" in answer.remedy


STRANGE: list[Any] = [None, [], "ok", 7, True, {}, {"id": "7"}, OURS | {"generation": 2}, OURS | {"key": "another"}]


@pytest.mark.parametrize("body", STRANGE, ids=str)
def test_a_success_that_does_not_show_our_resource_is_read_back(body: Any) -> None:
    answer = shown(a_call(Verb.CREATE), HttpResponse(200, {}, body))
    assert answer == Unknown("the answer shows no resource of ours", succeeded=True)


@pytest.mark.parametrize("body", STRANGE, ids=str)
def test_a_read_that_does_not_show_our_resource_is_contradicted(body: Any) -> None:
    assert isinstance(shown(a_call(Verb.READ), HttpResponse(200, {}, body)), Contradicted)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (OURS | {"generation": 2}, "generation is not ours"),
        (OURS | {"generation": True}, "generation is not ours"),
        ({"key": "another"}, "key is not ours"),
        ({"generation": 2}, "generation is not ours"),
        ({"key": None, "generation": 2}, "generation is not ours"),
    ],
    ids=str,
)
def test_a_foreign_owner_field_is_named(body: Any, reason: str) -> None:
    assert shown(a_call(Verb.READ), HttpResponse(200, {}, body)) == Contradicted(reason, anothers=True)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"key": OURS["key"]}, "generation is not shown"),
        ({"generation": 1}, "key is not shown"),
        ({"key": None, "generation": None}, "key is not shown"),
        ({}, "key is not shown"),
        ([], "the answer shows no resource"),
    ],
    ids=str,
)
def test_a_resource_without_an_owner_is_not_anothers(body: Any, reason: str) -> None:
    assert shown(a_call(Verb.READ), HttpResponse(200, {}, body)) == Contradicted(reason, anothers=False)


def test_a_number_as_text_equals_the_number() -> None:
    assert is_ours(a_call(Verb.READ), OURS | {"generation": "1"})
    assert not is_ours(a_call(Verb.READ), OURS | {"generation": "2"})
    assert not is_ours(a_call(Verb.READ), OURS | {"generation": True})


@pytest.mark.parametrize(
    ("asked", "found", "path"),
    [
        ({"enabled": True}, {"enabled": True, "id": 7}, None),
        ({"enabled": True}, {"id": 7}, None),
        ({"enabled": True}, {"enabled": False}, "enabled"),
        ({"enabled": True}, {"enabled": "true"}, "enabled"),
        ({"n": 1}, {"n": "1"}, None),
        ({"n": "5"}, {"n": 5}, None),
        ({"n": "5"}, {"n": 6}, "n"),
        ({"n": 1.0}, {"n": "1"}, None),
        ({"n": "1.0"}, {"n": 1}, None),
        ({"n": 0.1}, {"n": "0.10"}, None),
        ({"n": 1e22}, {"n": "10000000000000000000000"}, None),
        ({"n": 2**53 + 1}, {"n": str(2**53)}, "n"),
        ({"n": "007"}, {"n": 7}, "n"),
        ({"n": "1"}, {"n": "1.0"}, "n"),
        ({"n": "1"}, {"n": True}, "n"),
        ({"n": float("nan")}, {"n": "nan"}, "n"),
        ({"n": 1}, {"n": "1_0"}, "n"),
        ({"n": 0}, {"n": None}, "n"),
        ({"n": ""}, {"n": 0}, "n"),
        ({"n": 5}, {"n": "1" * 200_000}, "n"),
        ({"n": 1}, {"n": True}, "n"),
        ({"a": {"b": [1, {"c": "x"}]}}, {"a": {"b": ["1", {"c": "x", "d": 2}]}}, None),
        ({"a": {"b": [1, {"c": "x"}]}}, {"a": {"b": [1, {"c": "y"}]}}, "a.b.1.c"),
        ({"a": [1]}, {"a": [1, 2]}, "a"),
        ({"a": None}, {"a": None}, None),
        ({"a": {}}, {"a": 7}, "a"),
    ],
    ids=str,
)
def test_the_first_differing_value_is_named(asked: Any, found: Any, path: str | None) -> None:
    assert difference(asked, found) == path


@pytest.mark.parametrize("told", ["0061x", 7])
def test_the_id_of_our_resource_is_a_text(told: object) -> None:
    assert shown(a_call(Verb.CREATE), HttpResponse(200, {}, OURS | {"id": told})) == str(told)
