"""The contexts of open calls: kept for the next try of a step, and gone with the step's trouble or life."""

from collections.abc import Sequence

import pytest

from schemas.saga import Journal, Life, OrphanCheck
from services.core.saga.calls import Absent, Answer, Done, Refused, Retryable, Unknown
from services.core.saga.intents import decide
from services.core.saga.moves import Wait
from services.core.saga.next_move import Plans
from services.core.saga.open_calls import after_answer, place_of, with_call
from services.core.saga.pace import Pace
from services.core.saga.plan import parse
from services.core.saga.results import settle
from services.provisioner.kinds import TRAITS
from tests.support.provisioner_process import desired, key

PLANS = Plans(parse('[[step]]\nname = "thing"\nkind = "http"\nundo = "reverse"\n', kinds=TRAITS, settings={}))
THING = place_of("thing", 1)


def contexts_after(answers: Sequence[Answer]) -> list[dict[str, str]]:
    """Drives an install through the answers; returns the contexts after each answer and after the last turn."""
    journal, contexts, now_us, found = Journal(), dict[str, str](), 1_000_000, list[dict[str, str]]()
    left = list(answers)
    while True:
        turn = decide(PLANS, journal, desired(key(1), 1), now_us, {})
        journal, move = turn.journal, turn.move
        if isinstance(move, Wait):
            contexts = with_call(contexts, journal, {})
            if move.until_us is None or not left:
                return [*found, contexts]
            now_us = move.until_us
            continue
        contexts = with_call(contexts, journal, {place_of(move.step.name, move.generation): f"try {len(found) + 1}"})
        journal = settle(journal, move, left.pop(0), now_us, Pace())
        contexts = after_answer(contexts, journal, move)
        found.append(contexts)


@pytest.mark.parametrize(
    ("answers", "contexts"),
    [
        ([Done()], [{}, {}]),
        ([Retryable("503"), Done()], [{THING: "try 1"}, {}, {}]),
        ([Unknown("lost"), Done()], [{THING: "try 1"}, {}, {}]),
        ([Unknown("lost"), Absent(), Done()], [{THING: "try 1"}, {THING: "try 2"}, {}, {}]),
        ([Refused("422"), Done()], [{THING: "try 1"}, {}, {}]),
    ],
    ids=["done", "tried again", "looked up and found", "looked up and repeated", "refused and looked up"],
)
def test_a_context_stays_while_the_step_is_to_be_tried_again(
    answers: list[Answer], contexts: list[dict[str, str]]
) -> None:
    assert contexts_after(answers) == contexts


def test_the_contexts_of_lives_that_nobody_looks_up_any_more_are_dropped() -> None:
    lives = [Life(generation=generation, plan="p", tenant_id="acme") for generation in (1, 2, 3)]
    contexts = {place_of("a g1 step", life.generation): "of " + str(life.generation) for life in lives}
    check = OrphanCheck(due_at=0, life=lives[1])
    journal = Journal(generation=3, life=lives[2], orphan_checks=(check,))
    assert set(with_call(contexts, journal, {}).values()) == {"of 2", "of 3"}
    assert with_call(contexts, Journal(generation=3), {}) == {}
    assert with_call({}, journal, {"x g3": "own"}) == {"x g3": "own"}
