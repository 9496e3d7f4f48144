"""The calls that a fault strikes."""

import random
from typing import Any

import pytest
from pydantic import ValidationError

from services.core.saga.calls import Verb
from services.simulator.faults import GENESYS_ALONE, Fault, FaultEffect, FaultKind, Faults, System


def faults(*given: dict[str, Any]) -> Faults:
    made = Faults(random.Random(1))
    for one in given:
        made.add(Fault.model_validate({"system": "crm"} | one), 100.0)
    return made


def strike(of: Faults, verb: Verb = Verb.CREATE, key: str = "o:i", now_s: float = 100.0) -> FaultEffect:
    return of.strike(System.CRM, verb, key, now_s)


def test_no_fault_strikes_without_a_fault_set() -> None:
    assert strike(faults()) == FaultEffect()


def test_a_fault_is_filtered_by_system_verb_and_key() -> None:
    made = faults({"fault": "refuse", "verb": "create", "key": "o:i"})
    assert strike(made).ending is FaultKind.REFUSE
    assert strike(made, verb=Verb.DELETE).ending is None
    assert strike(made, key="o:j").ending is None
    assert made.strike(System.TOKENS, Verb.CREATE, "o:i", 100.0) == FaultEffect()


def test_a_fault_of_one_integration_strikes_calls_about_its_whole_organisation() -> None:
    made = faults({"fault": "refuse", "key": "o:i"})
    assert strike(made, key="o").ending is FaultKind.REFUSE
    assert strike(made, key="p").ending is None


def test_the_first_ending_fault_decides_and_only_it_is_counted() -> None:
    made = faults({"fault": "refuse", "times": 1}, {"fault": "error", "times": 1})
    assert [strike(made).ending for _ in range(3)] == [FaultKind.REFUSE, FaultKind.ERROR, None]


def test_waits_add_up_beside_an_ending_fault() -> None:
    made = faults(
        {"fault": "slow", "seconds": 1}, {"fault": "slow", "seconds": 2}, {"fault": "ignore_idempotency"},
        {"fault": "lost_answer"},
    )  # fmt: skip
    assert strike(made) == FaultEffect(3.0, FaultKind.LOST_ANSWER, ignores_idempotency=True)


def test_seconds_end_every_fault_but_slow() -> None:
    made = faults({"fault": "down", "seconds": 10}, {"fault": "slow", "seconds": 10})
    assert strike(made, now_s=109.9) == FaultEffect(10.0, FaultKind.DOWN)
    assert strike(made, now_s=110.0) == FaultEffect(10.0, None)


def test_a_fault_with_a_count_never_expires() -> None:
    made = faults({"fault": "lost_answer", "times": 1, "seconds": 1})
    assert strike(made, now_s=500.0).ending is FaultKind.LOST_ANSWER
    assert strike(made, now_s=500.0) == FaultEffect()


def test_clearing_returns_the_number_of_faults() -> None:
    made = faults({"fault": "down"}, {"fault": "refuse"})
    assert made.clear() == 2
    assert strike(made) == FaultEffect()


def test_a_system_is_down_only_by_a_fault_of_every_call() -> None:
    assert faults({"fault": "down"}).is_down(System.CRM, "o:i", 100.0)
    assert not faults({"fault": "down", "verb": "create"}).is_down(System.CRM, "o:i", 100.0)
    assert not faults({"fault": "down", "times": 1}).is_down(System.CRM, "o:i", 100.0)
    assert not faults({"fault": "down", "seconds": 1}).is_down(System.CRM, "o:i", 101.0)
    assert not faults({"fault": "down", "key": "o:j"}).is_down(System.CRM, "o:i", 100.0)
    assert not faults({"fault": "refuse"}).is_down(System.CRM, "o:i", 100.0)


def test_a_fault_with_a_share_strikes_about_that_share_of_calls() -> None:
    made = faults({"fault": "error", "share": 0.1})
    assert 120 < sum(strike(made).ending is FaultKind.ERROR for _ in range(2_000)) < 280


def of_genesys(made: Faults, path: str = "/genesys/api/v2/integrations", *, minting: bool = False) -> FaultEffect:
    return made.strike(System.GENESYS, Verb.READ, "o", 100.0, path, minting=minting)


def test_a_fault_of_a_path_spares_the_other_paths() -> None:
    made = faults({"system": "genesys", "fault": "refuse", "path": "/audits"})
    assert of_genesys(made).ending is None
    assert of_genesys(made, "/genesys/api/v2/audits/query/realtime").ending is FaultKind.REFUSE


def test_requests_for_tokens_meet_over_minting_alone() -> None:
    made = faults({"system": "genesys", "fault": "down"}, {"system": "genesys", "fault": "over_minted", "times": 1})
    assert of_genesys(made).ending is FaultKind.DOWN
    assert [of_genesys(made, minting=True).ending for _ in range(2)] == [FaultKind.OVER_MINTED, None]


def test_a_skew_of_the_clock_stands_beside_an_ending_fault_and_its_seconds_are_no_lifetime() -> None:
    made = faults(
        {"system": "genesys", "fault": "clock_skew", "seconds": 5},
        {"system": "genesys", "fault": "clock_skew"},
        {"system": "genesys", "fault": "empty"},
    )
    assert made.strike(System.GENESYS, Verb.READ, "o", 500.0) == FaultEffect(0.0, FaultKind.EMPTY, skew_s=3605.0)


@pytest.mark.parametrize("kind", sorted(GENESYS_ALONE))
def test_a_fault_of_genesys_alone_is_refused_for_another_system(kind: str) -> None:
    with pytest.raises(ValidationError, match="for the system genesys alone"):
        faults({"fault": kind})
