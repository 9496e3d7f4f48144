"""Floods of hints: bounded memory, a request to come back, and no effect on deliveries."""

from uuid import UUID

import pytest

from services.ingress.recent import RECHECK_MAX, RECHECK_US
from tests.support.hints import envelope, hint_request
from tests.support.ingress_process import ORG, SECRET, body, now_us, raw, request
from tests.support.ingress_site import Site, statuses

_AT_ONCE = 100


class SetClock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.us = now_us()

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def site(clock: SetClock) -> Site:
    return Site(SECRET.encode(), clock)


def key_of(number: int) -> str:
    return f"{ORG}:{UUID(int=number)}"


async def answered(site: Site, *keys: str) -> list[int]:
    told = b"".join(hint_request(envelope(key, "Update"), SECRET) for key in keys)
    return statuses(await site.exchange(told))


async def test_a_flood_of_keys_is_told_to_come_back_and_known_keys_are_taken(site: Site, clock: SetClock) -> None:
    found: list[int] = []
    for first in range(0, RECHECK_MAX, _AT_ONCE):
        found += await answered(site, *(key_of(first + number) for number in range(_AT_ONCE)))
    assert set(found) == {200}
    wire = await site.exchange(hint_request(envelope(key_of(RECHECK_MAX), "Update"), SECRET))
    assert statuses(wire) == [429]
    assert b"retry-after: 60" in wire
    assert await answered(site, key_of(1)) == [200], "a key of the flood has room for a further audit"
    assert statuses(await site.exchange(request(raw(body())))) == [200], "a delivery is taken as ever"
    clock.us += RECHECK_US
    assert await answered(site, key_of(RECHECK_MAX)) == [200]


async def test_an_audit_is_known_for_a_day_by_its_key_and_id(site: Site, clock: SetClock) -> None:
    async def said(key: str) -> bytes:
        wire = await site.exchange(hint_request(envelope(key, "Update", id="audit-1"), SECRET))
        return wire.rpartition(b"\r\n")[2]

    assert await said(key_of(1)) == b'{"status":"queued"}'
    assert await said(key_of(2)) == b'{"status":"queued"}', "an id of another key is another audit"
    clock.us += 86_399_000_000
    assert await said(key_of(1)) == b'{"status":"duplicate_handled"}'
    clock.us += 1_000_000
    assert await said(key_of(1)) == b'{"status":"queued"}', "by then the ledger tells"
