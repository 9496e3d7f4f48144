"""The one table from HTTP answers to what is known."""

from typing import Any

import pytest

from services.adapters.http import NoAnswer, NotSent, Response
from services.core.calls import Absent, Answer, Done, Refused, Retryable, Unknown, Verb, resource_name
from services.provisioner.kinds.answers import meaning, silence
from services.provisioner.kinds.http import shown
from tests.outside import a_call

OURS = {"key": a_call(Verb.READ).key, "generation": 1}


def means(verb: Verb, status: int, body: Any = None, **headers: str) -> Answer:
    return meaning(a_call(verb), Response(status, headers, body))


@pytest.mark.parametrize("verb", list(Verb))
@pytest.mark.parametrize("status", [200, 201, 202, 204])
def test_success_is_done(verb: Verb, status: int) -> None:
    assert means(verb, status) == Done()


@pytest.mark.parametrize("status", [404, 410])
def test_gone_is_absent_only_for_who_asked_or_removed(status: int) -> None:
    assert means(Verb.DELETE, status) == Absent()
    assert means(Verb.READ, status) == Absent()
    assert isinstance(means(Verb.CREATE, status), Refused)
    assert isinstance(means(Verb.UPDATE, status), Refused)


def test_a_conflict_is_done_only_when_it_shows_our_own_life() -> None:
    assert means(Verb.CREATE, 409, OURS) == Done()
    assert isinstance(means(Verb.CREATE, 409, OURS | {"generation": 2}), Refused)
    assert isinstance(means(Verb.CREATE, 409, {"key": "another"}), Refused)
    assert isinstance(means(Verb.CREATE, 409), Refused)
    assert isinstance(means(Verb.UPDATE, 409, OURS), Refused)
    assert isinstance(means(Verb.DELETE, 409, OURS), Refused)


def test_a_conflict_that_names_a_wait_is_a_busy_system() -> None:
    assert means(Verb.CREATE, 409, **{"retry-after": "2"}) == Retryable("HTTP 409", 2.0)


@pytest.mark.parametrize("verb", list(Verb))
def test_a_stale_epoch_says_nothing_of_the_tenant(verb: Verb) -> None:
    assert means(verb, 409, {"error": "stale_epoch"}) == Retryable("HTTP 409 stale_epoch", well=True)
    assert isinstance(means(verb, 403, {"error": "stale_epoch"}), Refused)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 501, 502, 503, 504, 599])
@pytest.mark.parametrize("verb", list(Verb))
def test_what_passes_by_itself_is_retryable_and_spends_a_try(verb: Verb, status: int) -> None:
    assert means(verb, status) == Retryable(f"HTTP {status}")


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 402, 403, 405, 406, 413, 415, 418, 422, 451])
@pytest.mark.parametrize("verb", list(Verb))
def test_every_other_answer_is_refused(verb: Verb, status: int) -> None:
    assert means(verb, status) == Refused(f"HTTP {status}")


@pytest.mark.parametrize(
    ("text", "date", "wait_s"),
    [
        ("0", "", 0.0),
        ("42", "", 42.0),
        ("-1", "", None),
        ("1.5", "", None),
        ("9" * 400, "", None),
        ("²", "", None),
        ("soon", "", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30.0),
        ("Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 21 Oct 2026 07:28:30 GMT", 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "", None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "yesterday", None),
    ],
)
def test_a_wait_is_read_where_it_can_be(text: str, date: str, wait_s: float | None) -> None:
    assert means(Verb.CREATE, 503, **{"retry-after": text, "date": date}) == Retryable("HTTP 503", wait_s)


def test_of_an_error_only_a_short_code_is_kept() -> None:
    assert means(Verb.CREATE, 401, {"error": "invalid_client"}) == Refused("HTTP 401 invalid_client")
    assert means(Verb.CREATE, 401, {"code": "not.authorized"}) == Refused("HTTP 401 not.authorized")
    for odd in ({"error": "the secret s3cr3t is wrong"}, {"error": ["x"]}, {"error": "x" * 65}, ["error"], "error", 7):
        assert means(Verb.CREATE, 401, odd) == Refused("HTTP 401")


def test_a_code_that_quotes_what_was_sent_is_not_kept() -> None:
    call = a_call(
        Verb.CREATE, settings={"credentials": {"client_secret": "s3cr3t-A.b"}}, outputs={"access_token": "tok3n"}
    )
    for quoted in ("s3cr3t-A.b", "s3cr3t", "tok3n", "bad_secret_s3cr3t-A.b"):
        assert meaning(call, Response(401, {}, {"error": quoted})) == Refused("HTTP 401")
    assert meaning(call, Response(401, {}, {"error": "invalid_client"})) == Refused("HTTP 401 invalid_client")


def test_a_silence_leaves_in_doubt_only_what_could_change_something() -> None:
    for verb in Verb:
        assert silence(a_call(verb), NotSent("refused")) == Retryable("refused", silent=True)
    assert silence(a_call(Verb.READ), NoAnswer("reset")) == Retryable("reset", silent=True)
    for verb in (Verb.CREATE, Verb.UPDATE, Verb.DELETE):
        assert silence(a_call(verb), NoAnswer("reset")) == Unknown("reset")


def test_what_will_not_pass_soon_spends_a_try() -> None:
    assert silence(a_call(Verb.CREATE), NotSent("no address", passing=False)) == Retryable("no address")


@pytest.mark.parametrize(
    "body", [None, [], "ok", 7, True, {}, {"id": "7"}, OURS | {"generation": 2}, OURS | {"key": "another"}], ids=str
)
def test_a_success_that_does_not_show_our_resource_proves_nothing_and_costs_a_try(body: Any) -> None:
    answer = shown(a_call(Verb.CREATE), Response(200, {}, body))
    assert answer == Unknown("the answer shows no resource of ours", silent=False)


@pytest.mark.parametrize("told", [[[[]]], "\ud800", {"$sealed": "AAAA"}, "x" * 2_000, 7, None, "a\nb"])
def test_an_id_that_is_no_short_text_is_not_kept(told: object) -> None:
    call = a_call(Verb.CREATE)
    kept = shown(call, Response(200, {}, OURS | {"id": told}))
    assert kept == Done({"id": resource_name(call.key, call.generation)})
    assert shown(call, Response(200, {}, OURS | {"id": "0061x"})) == Done({"id": "0061x"})
