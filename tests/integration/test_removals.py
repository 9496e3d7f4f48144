"""The brake on removals, in a registry on a real PostgreSQL: one count for all workers, approvals for exactly a set."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

import psycopg
import pytest

from schemas.removal import removals_digest
from schemas.saga import Journal, Life, Phase
from schemas.tenant import Desired
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Claim, Removal, RemovalRules, RemovalVerdict, Unconfirmed, Written
from tests.support.provisioner_process import untraced
from tests.support.unreadable import unexpected

LIMIT = 5
HOUR_S = 3_600.0
RULES = RemovalRules(at_once=LIMIT, percent=2, window_s=HOUR_S)
ADMITTED, HELD, REFUSED = RemovalVerdict.ADMITTED, RemovalVerdict.HELD, RemovalVerdict.REFUSED


def key(number: int) -> str:
    """A key of one organisation."""
    return f"00000000-0000-4000-8000-000000000001:00000000-0000-4000-9000-{number:012x}"


def in_an_hour() -> int:
    """An hour from now, microseconds UTC."""
    return time.time_ns() // 1_000 + 3_600_000_000


@pytest.fixture
async def registry(database_url: str) -> AsyncIterator[Registry]:
    opened = Registry(database_url, schema="lifecycle", lease_s=60, worker="one", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


@pytest.fixture
async def other(registry: Registry, database_url: str) -> AsyncIterator[Registry]:
    opened = Registry(database_url, schema="lifecycle", lease_s=60, worker="two", on_unreadable=unexpected)
    await opened.start()
    yield opened
    await opened.close()


def _wanted(of: str, version: int, *, installed: bool = True, installed_at: int = 1) -> Desired:
    """A version of a key; the configuration has the one character that PostgreSQL's text cannot hold."""
    return Desired(
        key=of, version=version, installed=installed, enabled=installed, configuration={"note": "a\0b"},
        tenant_id="acme", installed_at=installed_at, uninstalled_at=None if installed else version,
    )  # fmt: skip


async def _leased(registry: Registry, number: int) -> list[Claim]:
    """Leases of so many installed keys."""
    await registry.store(untraced([_wanted(key(n), 1) for n in range(number)]))
    return sorted(await registry.claim(number), key=lambda claim: claim.key)


async def _write(registry: Registry, claim: Claim, phase: Phase, generation: int = 1) -> None:
    """Writes a turn that waits for an hour, and gives the lease back."""
    life = None if phase is Phase.EMPTY else Life(generation=generation, plan="p", tenant_id="acme")
    journal = Journal(phase=phase, generation=generation, life=life)
    assert await registry.write(claim, journal, (), due_in_s=HOUR_S, release=True) == Written()


async def _ask(
    registry: Registry, claim: Claim, teardown: int = 1, generation: int = 1, installed_at: int = 1
) -> RemovalVerdict:
    removal = Removal(claim.key, generation, teardown, teardown, installed_at)
    return await registry.admit_removal(removal, claim.epoch, limit=LIMIT, window_s=HOUR_S)


async def _all_ask(registry: Registry, claims: Sequence[Claim]) -> list[RemovalVerdict]:
    return [await _ask(registry, claim) for claim in claims]


async def _storm(registry: Registry, number: int) -> list[Claim]:
    """So many removals, of which the brake admits five; every teardown waits."""
    claims = await _leased(registry, number)
    assert await _all_ask(registry, claims) == [ADMITTED] * LIMIT + [HELD] * (number - LIMIT)
    await _uninstall(registry, claims, 2)
    return claims


async def _uninstall(
    registry: Registry, claims: Sequence[Claim], version: int, *, generation: int = 1, installed_at: int = 1
) -> None:
    """Stores an uninstall of each leased key, and writes that the teardown waits."""
    for claim in claims:
        claim.desired = _wanted(claim.key, version, installed=False, installed_at=installed_at)
    await registry.store(untraced([claim.desired for claim in claims]))
    for claim in claims:
        await _write(registry, claim, Phase.REMOVING, generation)


async def _again(registry: Registry, claim: Claim) -> RemovalVerdict:
    """The verdict on a teardown that comes again, under a new lease."""
    leased = await registry.claim_one(claim.key)
    assert leased is not None
    found = await _ask(registry, leased)
    await _write(registry, leased, Phase.REMOVING)
    return found


async def _approve(registry: Registry, keys: Sequence[str], **given: object) -> int:
    asked = {"digest": removals_digest(keys), "by": "ada", "reason": "closed", "expires_us": in_an_hour()} | given
    return len(await registry.approve_removals(keys, **asked))  # type: ignore[arg-type]


async def test_the_limit_goes_and_the_rest_is_held_for_as_long_as_it_takes(
    registry: Registry, database_url: str
) -> None:
    claims = await _storm(registry, 8)
    held = await registry.held_removals()
    assert [(one.key, one.generation, one.refused_by, one.refused_at_us) for one in held] == [
        (claim.key, 1, None, None) for claim in claims[LIMIT:]
    ]
    assert abs(held[0].held_since_us - time.time_ns() // 1_000) < 60_000_000
    counts = await registry.removal_counts(RULES)
    assert (counts.counted, counts.limit, counts.held, counts.refused) == (8, LIMIT, 3, 0)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("UPDATE lifecycle.removals SET asked_at = asked_at - interval '2 h'")
    assert await _again(registry, claims[7]) is HELD, "no teardown that was held goes by the passing of time"
    assert await _again(registry, claims[0]) is ADMITTED, "what was admitted stays admitted"
    (late,) = await _leased(registry, 9)
    assert await _ask(registry, late) is ADMITTED, "the window is over"


async def test_the_limit_grows_with_the_tenants(registry: Registry) -> None:
    for claim in await _leased(registry, 8):
        await _write(registry, claim, Phase.ACTIVE)
    assert await registry.removal_limit(RemovalRules(at_once=2, percent=50, window_s=HOUR_S)) == 4
    assert await registry.removal_limit(RULES) == LIMIT


async def test_two_workers_never_exceed_the_limit(registry: Registry, other: Registry) -> None:
    claims = await _leased(registry, 40)
    found = await asyncio.gather(
        *(_ask((registry, other)[number % 2], claim) for number, claim in enumerate(claims)),
    )
    assert found.count(ADMITTED) == LIMIT


async def test_an_approval_lets_exactly_its_set_go_once(registry: Registry) -> None:
    claims = await _storm(registry, 10)
    approved = [claim.key for claim in claims[5:8]]
    assert await _approve(registry, approved) == 3
    due = await registry.claim(10)
    assert {claim.key for claim in due} == set(approved), "an approval makes its sagas due at once"
    assert await _all_ask(registry, due) == [ADMITTED] * 3
    for claim in due:
        await _write(registry, claim, Phase.REMOVING)
    assert [one.key for one in await registry.held_removals()] == [claim.key for claim in claims[8:]]
    assert await _approve(registry, approved) == 0, "a second approval finds nothing to let go"
    assert await _again(registry, claims[9]) is HELD
    counts = await registry.removal_counts(RULES)
    assert (counts.counted, counts.held) == (7, 2), "what an approval let go takes no place from others"


async def test_an_approval_of_another_set_or_an_expired_one_does_nothing(registry: Registry, database_url: str) -> None:
    claims = await _storm(registry, 7)
    held = [claim.key for claim in claims[5:]]
    assert await _approve(registry, held, digest=removals_digest(held[:1])) == 0
    assert await _approve(registry, held, expires_us=time.time_ns() // 1_000 - 1) == 0
    assert await _again(registry, claims[5]) is HELD
    assert await _approve(registry, held) == 2
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("UPDATE lifecycle.removal_approvals SET expires_at = clock_timestamp()")
    assert await _again(registry, claims[5]) is HELD, "it has expired meanwhile"


async def test_an_approval_may_come_before_its_removal(registry: Registry) -> None:
    claims = await _leased(registry, 7)
    assert await _all_ask(registry, claims[:5]) == [ADMITTED] * 5
    for claim in claims[5:]:
        await _write(registry, claim, Phase.ACTIVE)
    assert await _approve(registry, [claims[5].key]) == 1
    assert await _again(registry, claims[5]) is ADMITTED
    assert await _again(registry, claims[6]) is HELD


async def test_an_approval_is_for_the_install_that_it_was_given_for(registry: Registry) -> None:
    claims = await _storm(registry, 8)
    held = [claim.key for claim in claims[5:]]
    assert await _approve(registry, held) == 3
    # Two are installed again before the approval was used: a life goes on in its generation, or another one begins.
    await registry.store(untraced([_wanted(of, 3, installed_at=2) for of in held[:2]]))
    revived, anew, untouched = sorted(await registry.claim(10), key=lambda claim: claim.key)
    assert await _ask(registry, revived, teardown=4, installed_at=2) is HELD, "it is another removal"
    assert await _ask(registry, anew, teardown=4, generation=2, installed_at=2) is HELD
    assert await _ask(registry, untouched) is ADMITTED
    await _uninstall(registry, [revived], 4, installed_at=2)
    await _uninstall(registry, [anew], 4, generation=2, installed_at=2)
    assert await _approve(registry, held[:2]) == 2
    revived, anew = sorted(await registry.claim(10), key=lambda claim: claim.key)
    assert await _ask(registry, revived, teardown=4, installed_at=2) is ADMITTED
    assert await _ask(registry, anew, teardown=4, generation=2, installed_at=2) is ADMITTED


async def test_a_removal_whose_integration_is_installed_again_takes_no_approval(registry: Registry) -> None:
    claims = await _storm(registry, 6)
    held = claims[5].key
    await registry.store(untraced([_wanted(held, 3, installed_at=2)]))
    assert await _approve(registry, [held]) == 0, "the life is about to go on"


async def test_a_second_uninstall_after_an_approved_one_asks_again(registry: Registry) -> None:
    claims = await _storm(registry, 6)
    approved = claims[5].key
    assert await _approve(registry, [approved]) == 1
    assert await _again(registry, claims[5]) is ADMITTED
    await registry.store(untraced([_wanted(approved, 3, installed_at=2)]))
    again = await registry.claim_one(approved)
    assert again is not None
    assert await _ask(registry, again, teardown=4, generation=2, installed_at=2) is HELD


async def test_a_refused_removal_stays_held_until_it_is_approved(registry: Registry) -> None:
    claims = await _storm(registry, 7)
    held = [claim.key for claim in claims[5:]]
    assert await _approve(registry, held) == 2
    refused = await registry.refuse_removals([claims[0].key, held[0]], by="ada", reason="an accident")
    assert refused == [held[0]], "the other was admitted, and cannot be taken back"
    assert {claim.key for claim in await registry.claim(10)} == set(held)
    first, second = await registry.held_removals()
    assert (first.key, first.refused_by, second.refused_by) == (held[0], "ada", None)
    assert abs((first.refused_at_us or 0) - time.time_ns() // 1_000) < 60_000_000
    counts = await registry.removal_counts(RULES)
    assert (counts.held, counts.refused) == (1, 1)


async def test_a_refusal_withdraws_the_approval_and_an_approval_the_refusal(registry: Registry) -> None:
    claims = await _storm(registry, 6)
    held = claims[5].key
    assert await _approve(registry, [held]) == 1
    assert await registry.refuse_removals([held], by="ada", reason="an accident") == [held]
    assert await _again(registry, claims[5]) is REFUSED
    assert await _approve(registry, [held]) == 1
    assert (await registry.removal_counts(RULES)).refused == 0
    assert await _again(registry, claims[5]) is ADMITTED


async def test_a_worker_whose_lease_was_taken_over_uses_nothing_up(registry: Registry, database_url: str) -> None:
    claims = await _leased(registry, 7)
    zombie = claims[0]
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("UPDATE lifecycle.sagas SET epoch = epoch + 1 WHERE key = %s", (zombie.key,))
    assert await _ask(registry, zombie) is HELD
    assert (await registry.removal_counts(RULES)).counted == 0
    assert await _all_ask(registry, claims[1:]) == [ADMITTED] * LIMIT + [HELD]
    assert await _approve(registry, [zombie.key]) == 0, "nothing of it exists yet"


async def test_a_worker_whose_lease_was_taken_over_renames_no_held_removal(
    registry: Registry, database_url: str
) -> None:
    claims = await _storm(registry, 6)
    zombie = await registry.claim_one(claims[5].key)
    assert zombie is not None
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("UPDATE lifecycle.sagas SET epoch = epoch + 1 WHERE key = %s", (zombie.key,))
        # The same version, and a begin that is never committed: the next second uninstall would find neither.
        late = Removal(zombie.key, 1, 99, 1, 1)
        assert await registry.admit_removal(late, zombie.epoch, limit=LIMIT, window_s=HOUR_S) is HELD
        asked = "SELECT began_us, version FROM lifecycle.removals WHERE key = %s"
        assert await (await session.execute(asked, (zombie.key,))).fetchall() == [(1, 1)]


async def test_a_recovery_forgets_approvals_that_the_backup_may_hold_though_used(registry: Registry) -> None:
    claims = await _storm(registry, 6)
    assert await _approve(registry, [claims[5].key]) == 1
    await registry.begin_recovery()
    await registry.end_recovery()
    assert await _again(registry, claims[5]) is HELD
    assert await _approve(registry, [claims[5].key]) == 1
    assert await _again(registry, claims[5]) is ADMITTED


async def test_a_life_that_was_revived_is_asked_for_anew(registry: Registry) -> None:
    claims = await _leased(registry, 6)
    assert await _all_ask(registry, claims) == [ADMITTED] * LIMIT + [HELD]
    await _write(registry, claims[5], Phase.ACTIVE)
    assert await registry.held_removals() == [], "a reinstall has ended the wait"
    again = await registry.claim_one(claims[5].key)
    assert again is not None
    assert await _ask(registry, again, teardown=2) is HELD, "it is another teardown"
    assert await _ask(registry, claims[4], teardown=2) is ADMITTED, "a key counts once, and keeps its place"
    assert await _ask(registry, claims[4], teardown=3, generation=2) is ADMITTED
    assert (await registry.removal_counts(RULES)).counted == 6


async def test_an_admitted_removal_that_genesys_does_not_confirm_is_counted_by_the_reason(registry: Registry) -> None:
    (claim,) = await _leased(registry, 1)
    assert await _ask(registry, claim) is ADMITTED
    removal = Removal(claim.key, 1, 1, 1, 1)
    assert await registry.note_unconfirmed(removal, Unconfirmed.INSTALLED) < 60
    await _write(registry, claim, Phase.REMOVING)
    assert (await registry.removal_counts(RULES)).unconfirmed == {Unconfirmed.INSTALLED: 1}
    assert await registry.held_removals() == [], "no approval ends this wait"
    await asyncio.sleep(0.05)
    assert await registry.note_unconfirmed(removal, Unconfirmed.INSTALLED) >= 0.05
    assert await registry.note_unconfirmed(removal, None) == 0
    assert (await registry.removal_counts(RULES)).unconfirmed == {}


async def test_what_no_longer_counts_is_deleted(registry: Registry, database_url: str) -> None:
    claims = await _storm(registry, 7)
    leased = await registry.claim_one(claims[0].key)
    assert leased is not None
    await _write(registry, leased, Phase.EMPTY)
    (late,) = await _leased(registry, 8)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("UPDATE lifecycle.removals SET asked_at = asked_at - interval '2 h'")
        assert await _ask(registry, late) is ADMITTED
        rows = await (await session.execute("SELECT key FROM lifecycle.removals ORDER BY key")).fetchall()
    assert [row[0] for row in rows] == [key(n) for n in range(1, 8)], "teardowns under way stay"


async def test_a_worker_that_dies_before_its_commit_uses_up_no_second_approval(registry: Registry) -> None:
    claims = await _storm(registry, 5)
    (late,) = await _leased(registry, 6)
    await _write(registry, late, Phase.ACTIVE)
    assert await _approve(registry, [late.key]) == 1
    admitted = [
        await registry.admit_removal(Removal(late.key, 1, began, version, 1), late.epoch, limit=LIMIT, window_s=HOUR_S)
        # The begin of a dead worker's turn was never written; a second uninstall keeps the begin.
        for began, version in ((10, 7), (11, 7), (11, 8))
    ]
    assert admitted == [ADMITTED] * 3
    assert await _ask(registry, late, teardown=12) is HELD
    assert await _again(registry, claims[0]) is ADMITTED
