"""Texts for people: short keys, spans, reasons in words, and unwell tenants."""

from typing import Any

import pytest

from schemas.tenant import Flag, Stage, Tenant
from services.cli import options, show, wording
from services.cli.exits import CommandError, Exit
from services.cli.reconcile_text import _say
from services.core import reasons
from services.core.unwell import UNWELL_AFTER_US, is_unwell
from tests.support.genesys_worlds import tenant

S = 1_000_000
NOW = 1_705_329_130 * S  # 14:32:10 UTC


def one(**values: Any) -> Tenant:
    return tenant(1).model_copy(update={"flags": (), "reason": None, "enabled": True} | values)


@pytest.mark.parametrize(
    ("stage", "reason", "age_us", "unwell"),
    [
        (Stage.ACTIVE, None, 0, False),
        (Stage.ACTIVE, "update_refused", 0, True),
        (Stage.ACTIVE, "tenant_changed", 0, True),
        (Stage.PENDING_INSTALL, None, 0, False),
        (Stage.PENDING_INSTALL, "retrying", UNWELL_AFTER_US - 1, False),
        (Stage.PENDING_INSTALL, "retrying", UNWELL_AFTER_US, True),
        (Stage.PENDING_INSTALL, "system_away", 0, False),
        (Stage.PENDING_INSTALL, "waiting_for:crm", 0, True),
        (Stage.PENDING_INSTALL, "compensating", 0, False),
        (Stage.PENDING_INSTALL, "compensating", UNWELL_AFTER_US, True),
        (Stage.PENDING_INSTALL, "former_life", UNWELL_AFTER_US - 1, False),
        (Stage.PENDING_INSTALL, "system_refuses", UNWELL_AFTER_US, True),
        (Stage.PENDING_INSTALL, "tenant_conflict", 0, True),
        (Stage.DEPROVISIONING, "grace", 10 * UNWELL_AFTER_US, False),
        (Stage.DEPROVISIONING, "waiting_for:tokens", 0, True),
        (Stage.DEPROVISIONING_FAILED, None, 0, True),
        (Stage.PROVISIONING_ROLLED_BACK, "crm_refused", 0, True),
        (Stage.DEPROVISIONED, "anything", 0, False),
        (None, "anything", 0, False),
    ],
)
def test_a_tenant_is_unwell_by_stage_reason_and_age(
    stage: Stage | None, reason: str | None, age_us: int, *, unwell: bool
) -> None:
    assert is_unwell(one(stage=stage, reason=reason, updated_at=NOW - age_us), NOW) is unwell


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (None, ""),
        ("waiting_for:crm", "waiting for crm since 14:17 UTC or before"),
        ("compensating", "what was made is being removed again"),
        ("crm_refused", "crm: refused"),
        (
            "oauth_tokens_exhausted HTTP 503 unavailable",
            "oauth_tokens: was away for longer than give_up_after HTTP 503 unavailable",
        ),
        ("crm_contradicted", "crm: shows something else than was asked for"),
        ("a word of a newer release", "a word of a newer release"),
    ],
)
def test_a_known_reason_is_put_into_words_and_an_unknown_reason_shown_unchanged(reason: str | None, words: str) -> None:
    assert reasons.reason_text(reason, NOW) == words


def test_the_notes_of_a_tenant_list_every_deviation() -> None:
    told = one(stage=Stage.PENDING_INSTALL, installed=True, enabled=False, reason="retrying", flags=(Flag.TIE,))
    assert reasons.note_text(told).split("; ") == [
        "disabled",
        "the last try failed",
        "it is tried again",
        "events of one instant contradict each other: Genesys is asked",
    ]
    assert reasons.note_text(one()) == ""


def test_every_stage_has_a_colour_and_every_flag_its_words() -> None:
    assert set(wording.STYLES) == set(Stage)
    assert all(reasons.note_text(one(flags=(flag,))) for flag in Flag)


@pytest.mark.parametrize(
    ("us", "words"),
    [(-1, "0 s"), (59 * S, "59 s"), (60 * S, "1 min"), (3_600 * S, "1 h"), (86_399 * S, "23 h"), (86_400 * S, "1 d")],
)
def test_a_span_is_printed_in_its_greatest_unit(us: int, words: str) -> None:
    assert wording.span(us) == words


def test_a_short_key_is_just_long_enough_to_be_unique() -> None:
    org, integration = "98765432-1234-5678-9abc-def012345678", "a1b2c3d4-e5f6-7890-abcd-ef1234567890"
    alike = [f"{org}:{integration[:-1]}{digit}" for digit in "012"]
    other = f"{org}:{integration[:9]}0000-7890-abcd-ef1234567890"
    assert wording.short_keys([alike[0]]) == {alike[0]: "98765432:a1b2c3d4"}
    found = wording.short_keys([*alike, other])
    assert [found[key] for key in alike] == alike, "they differ in the last digit alone"
    assert found[other] == "98765432-1234:a1b2c3d4-0000"


def test_the_summary_counts_tenants_by_stage_and_in_total() -> None:
    shown = [one(stage=Stage.ACTIVE), one(stage=Stage.ACTIVE), one(stage=None)]
    assert wording.summary(shown, 3, 1) == "3 tenants: 2 active, 1 without a stage, 1 unwell"
    assert wording.summary(shown[:1], 3, 0) == "1 of 3 tenants: 1 active, 0 unwell"
    assert wording.summary([], 3, 0) == "0 of 3 tenants"
    assert "nothing was ever installed" in wording.summary([], 0, 0)


@pytest.mark.parametrize(("text", "us"), [("0", 0), ("30s", 30 * S), ("15m", 900 * S), ("2h", 7_200 * S)])
def test_a_span_is_parsed(text: str, us: int) -> None:
    assert options.span_us(text, "--older-than", "7d") == us


@pytest.mark.parametrize(
    ("text", "seconds"), [("PT1H", 3_600), ("P1D", 86_400), ("P1DT2H3M4S", 93_784), ("PT90M", 5_400), ("PT0S", 0)]
)
def test_a_span_may_be_a_duration_of_iso_8601(text: str, seconds: int) -> None:
    assert options.span_us(text, "--expires", "P7D") == seconds * 1_000_000


@pytest.mark.parametrize("text", ["P", "PT", "P1", "PT1", "P1H", "1H", "P1DT", "P1Y", "P1W", "PT1.5H", "P8D", "-PT1H"])
def test_another_text_is_no_duration(text: str) -> None:
    with pytest.raises(CommandError, match=f"--expires: {text!r} is neither 0 nor a number"):
        options.span_us(text, "--expires", "P7D")


@pytest.mark.parametrize("text", ["", "m", "15", "-1m", "1.5h", "15 m", "8d", "1w", "٣m"])
def test_an_invalid_span_is_refused_by_its_option(text: str) -> None:
    with pytest.raises(CommandError, match=r"^--older-than: .* at most 7d") as refused:
        options.span_us(text, "--older-than", "7d")
    assert refused.value.status is Exit.UNUSABLE


def test_an_unknown_word_is_refused_with_the_choices_and_the_nearest() -> None:
    with pytest.raises(
        CommandError, match="'activ' is no stage; the nearest: active; there are pending_install, active"
    ):
        options.one_of("activ", list(Stage), "--stage", "stage")


def test_texts_of_others_steer_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "pre\x1b[2J\x9b1A\x7f\r\u202emium-é"
    show.table(("type",), [(hostile,)])
    show.listing(("type",), [show.ListingRow((hostile,), note=hostile)])
    show.styled(hostile, "red")
    show.say(hostile)
    _say(hostile)
    out, err = capsys.readouterr()
    shown = r"pre\x1b[2J\x9b1A\x7f\r\u202emium-é"
    assert (out.count(shown), err.count(shown)) == (5, 1)
    assert all(char == "\n" or char.isprintable() for char in out + err)


def test_line_breaks_and_usual_letters_stay() -> None:
    assert show.visible("Zoë\n\t日本 · 1") == "Zoë\n\t日本 · 1"
