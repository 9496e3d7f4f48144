"""The budget of a Genesys token: a request waits while the budget is spent or unknown, and never for ever."""

import asyncio

import pytest

from services.adapters.genesys.answers import ServerTrouble, Unanswered
from services.adapters.genesys.rate_budget import RateBudget


def figures(count: int, allowed: int, reset_s: int) -> dict[str, str]:
    values = {"count": count, "allowed": allowed, "reset": reset_s}
    return {f"inin-ratelimit-{name}": str(value) for name, value in values.items()}


async def waits(budget: RateBudget, share: float = 1.0) -> bool:
    """True if a request has to wait now; else the request is counted."""
    taking = asyncio.create_task(budget.take(share))
    done, _ = await asyncio.wait((taking,), timeout=0.05)
    if done:
        return False
    taking.cancel()
    await asyncio.wait((taking,))
    return True


async def test_the_first_request_goes_alone_until_its_answer_tells_the_figures() -> None:
    budget = RateBudget()
    assert not await waits(budget)
    assert await waits(budget)
    await budget.answered(figures(1, 3, 60))
    assert [await waits(budget) for _ in range(3)] == [False, False, True]


async def test_a_first_request_without_an_answer_lets_the_next_ask() -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(None)
    assert not await waits(budget)


async def test_requests_of_others_with_the_same_token_count() -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(figures(298, 300, 60))
    assert [await waits(budget) for _ in range(3)] == [False, False, True]


async def test_a_count_that_falls_frees_the_budget() -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(figures(2, 3, 60))
    await budget.take()
    await budget.answered(figures(1, 3, 60))
    assert [await waits(budget) for _ in range(3)] == [False, False, True]


async def test_a_window_ends_a_second_after_its_reset() -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(figures(3, 3, 0))
    began_s = asyncio.get_running_loop().time()
    await budget.take()
    assert asyncio.get_running_loop().time() - began_s >= 0.95


@pytest.mark.parametrize(
    "odd", [{}, {"inin-ratelimit-count": "x"}, {**figures(1, 3, 60), "inin-ratelimit-allowed": "-1"}]
)
async def test_an_answer_without_usable_figures_means_the_platforms_default(odd: dict[str, str]) -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(odd)
    for _ in range(299):
        await budget.take()
    assert await waits(budget)


async def test_callers_with_a_share_leave_the_rest_to_the_others() -> None:
    budget = RateBudget()
    await budget.take(0.2)
    await budget.answered(figures(1, 10, 60))
    assert [await waits(budget, 0.2) for _ in range(2)] == [False, True]
    assert [await waits(budget) for _ in range(8)] == [False] * 8
    assert await waits(budget)


@pytest.mark.parametrize(("headers", "refused_s"), [({}, 1e12), ({}, float("inf")), (figures(1, 0, 999_999_999), None)])
async def test_no_answer_holds_back_the_callers_for_longer_than_an_hour(
    headers: dict[str, str], refused_s: float | None
) -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered(headers, refused_s)
    with pytest.raises(ServerTrouble, match=r"no request for another 360[01] s"):
        await budget.take()


async def test_a_refusal_holds_back_everybody_and_a_long_one_is_told_at_once() -> None:
    budget = RateBudget()
    await budget.take()
    await budget.answered({}, refused_s=30.0)
    assert await waits(budget)
    budget = RateBudget()
    await budget.take()
    await budget.answered({}, refused_s=3600.0)
    with pytest.raises(ServerTrouble, match="no request for another 3600 s"):
        await budget.take()


async def test_a_caller_in_a_hurry_is_refused_at_once_instead_of_waiting_for_the_window() -> None:
    budget = RateBudget(wait_max_s=3)
    await budget.take()
    await budget.answered(figures(3, 3, 10))
    with pytest.raises(ServerTrouble) as refused:
        await budget.take()
    assert refused.value.sort is Unanswered.RATE_LIMITED
