"""Generated histories against the truth: with lost, late, doubled or restamped events the end is true or flagged."""

from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.rows import TenantRow
from schemas.webhook import Delivery
from services.core.ledger.identity import identify
from services.core.ledger.journal import RecordPosition, enter
from services.core.ledger.merge import merged_state
from tests.property.histories import MINUTE, attempt
from tests.support.deliveries import KEY, NOON_US, RULES
from tests.support.examples import examples

BACKOFF = (0, 1_000, 3_000, 7_000, 60_000, 19 * MINUTE)
"""How much later each attempt of the sender is than the event."""

CHANGES = ("enabled", "disabled", "configuration_updated", "uninstalled", "installed")


class TellingStyle(NamedTuple):
    """Manner in which a sender reports its events."""

    names: bool
    """It gives an id."""
    restamps: bool
    """A retry carries the time of the attempt, and says that it is one."""


class Happened(NamedTuple):
    """One true event, and which attempts to tell it arrived."""

    event: str
    gap: int
    configuration: str
    attempts: list[int]


HAPPENED = st.builds(
    Happened,
    st.sampled_from(CHANGES),
    st.sampled_from([1_000, 2_000, 10_000, MINUTE, 21 * MINUTE]),
    st.sampled_from("AB"),
    st.lists(st.integers(0, len(BACKOFF) - 1), min_size=1, max_size=4),
)
TRUTHS = st.lists(HAPPENED, min_size=1, max_size=6).map(lambda rest: [Happened("installed", 1_000, "A", [0]), *rest])


def truth(happened: list[Happened]) -> tuple[bool, bool | None, str | None]:
    """Installed, enabled, configured, by walking through it."""
    installed, enabled, configuration = False, True, ""
    for one in happened:
        if one.event in ("installed", "uninstalled"):
            if one.event == "uninstalled":
                enabled = True
            installed = one.event == "installed"
        if one.event in ("installed", "configuration_updated"):
            configuration = one.configuration
        if one.event in ("enabled", "disabled"):
            enabled = one.event == "enabled"
    return (True, enabled, configuration) if installed else (False, None, None)


def possible(happened: list[Happened]) -> list[Happened]:
    """The part that a real integration can go through: nothing happens to what is not installed."""
    installed, kept = False, []
    for one in happened:
        if installed != (one.event == "installed"):
            kept.append(one)
            installed = one.event != "uninstalled" and (installed or one.event == "installed")
    return kept


def deliveries(happened: list[Happened], sender: TellingStyle) -> list[Delivery]:
    told, now = [], 0
    for number, one in enumerate(happened):
        now += one.gap
        for tried in one.attempts:
            at = now + (BACKOFF[tried] if sender.restamps else 0)
            name = str(number) if sender.names else None
            told.append(attempt(one.event, at, one.configuration, name, marked=tried > 0))
    return told


def end(told: list[Delivery]) -> tuple[Any, bool]:
    row = TenantRow(KEY)
    for offset, delivery in enumerate(told):
        claims = identify(delivery, RULES.identity)
        row = enter(row, claims, RecordPosition("received", 0, offset, NOON_US + 150 * MINUTE * 1000)).row
    seen = merged_state(row.now)
    text = None if seen.digest is None else (row.texts or {})[seen.digest]
    configuration = None if text is None else text.split('"')[3]
    return (seen.installed, seen.enabled, configuration), bool(row.flags)


@given(TRUTHS, st.builds(TellingStyle, st.booleans(), st.booleans()), st.data())
@settings(max_examples=examples(1500), deadline=None)
def test_the_final_state_is_true_or_flagged(
    happened: list[Happened], sender: TellingStyle, data: st.DataObject
) -> None:
    real = possible(happened)
    told = data.draw(st.permutations(deliveries(real, sender)))
    state, flagged = end(told)
    assert flagged or state == truth(real)


@given(TRUTHS, st.booleans(), st.data())
@settings(max_examples=examples(500), deadline=None)
def test_the_final_state_is_true_and_unflagged_if_every_first_attempt_arrived(
    happened: list[Happened],
    names: bool,  # noqa: FBT001 - drawn
    data: st.DataObject,
) -> None:
    real = [one._replace(attempts=[0, *one.attempts]) for one in possible(happened)]
    told = data.draw(st.permutations(deliveries(real, TellingStyle(names=names, restamps=names))))
    assert end(told) == (truth(real), False)
