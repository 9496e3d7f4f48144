"""The ledger's own agent, killed at any of its awaits, ends with the state of an undisturbed run.

The broker is a model: what was sent outlives a death up to a point of each topic that chance decides, an offset is
committed up to where everything before it was acknowledged, and the next worker's table is the changelog.
"""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple, cast

from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas import webhook
from schemas.codec import Message
from schemas.topics import AUDIT, DEAD_LETTERS, EVENTS, RECEIVED, TENANTS
from services.adapters.process import logs
from services.adapters.tables.app import DurableApp
from services.adapters.tables.store import version
from services.adapters.tables.table import DurableTable
from services.ledger.agents import Ledger, PoisonLimit
from tests.support.deliveries import KEY, NOON_US, RULES, body
from tests.support.examples import examples

LOG = logs.configure("test", "critical")
CHANGELOG = "changelog"
NAMES = ("tenant_id", "installed", "enabled", "configuration", "flags", "revision", "stage", "version")


class Killed(BaseException):
    """Passes through everything, as a death does."""


class Arrived(NamedTuple):
    """A record as Faust gives it."""

    tp: TP
    partition: int
    offset: int
    timestamp: float
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


class Event(NamedTuple):
    message: Arrived


class MemoryBroker:
    """State that outlives a worker."""

    def __init__(self, values: list[bytes]) -> None:
        headers = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
        tp = TP(RECEIVED.name, 0)
        self.log = [
            Event(Arrived(tp, 0, offset, NOON_US / 1e6 + 30 * 60 + offset, KEY.encode(), value, headers))
            for offset, value in enumerate(values)
        ]
        self.topics: dict[str, list[Message]] = defaultdict(list)
        self.committed = -1

    def rows(self) -> dict[bytes, bytes]:
        """The table as a recovery makes it: of each key the newest version."""
        found: dict[bytes, bytes] = {}
        for key, row, _ in self.topics[CHANGELOG]:
            assert key is not None
            if version(row) >= version(found.get(key)):
                found[key] = row
        return found


class AgentLife:
    """One life: in place of the app, of both tables and of the stream."""

    partitions = 1

    def __init__(self, broker: MemoryBroker, awaits: int | None) -> None:
        self._broker = broker
        self._left = awaits
        self._rows = broker.rows()
        self._sent: list[tuple[int, str, Message]] = []
        self._at = broker.committed

    async def live(self) -> None:
        """Work until the log ends, or death comes."""
        me: Any = self
        table, none = cast("DurableTable", me), cast("DurableTable", _Nothing())
        patience = {RECEIVED.name: PoisonLimit(100)}
        ledger = Ledger(cast("DurableApp", me), table, none, RULES, {}, {RECEIVED.name: "one"}, "", LOG, patience)
        await ledger.reads_received(me)

    def leave(self, data: st.DataObject | None) -> None:
        """Keeps the durable part of the writes: of each topic the front, and offsets no further than all of them."""
        acked: dict[str, int] = {}
        for topic in sorted({topic for _, topic, _ in self._sent}):
            own = [message for _, of, message in self._sent if of == topic]
            acked[topic] = len(own) if data is None else data.draw(st.integers(0, len(own)))
            self._broker.topics[topic] += own[: acked[topic]]
        seen: dict[str, int] = defaultdict(int)
        whole = self._at
        for offset, topic, _ in self._sent:
            seen[topic] += 1
            if seen[topic] > acked[topic]:
                whole = min(whole, offset - 1)
        least = self._broker.committed
        whole = max(whole, least)
        self._broker.committed = whole if data is None else data.draw(st.integers(least, whole))

    async def _breathe(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    # The stream.

    async def events(self) -> AsyncIterator[Event]:
        for event in self._broker.log[self._broker.committed + 1 :]:
            await self._breathe()
            yield event

    # The app.

    async def begin(self, event: Event) -> bool:
        await self._breathe()
        assert event.message.offset == self._at + 1
        return True

    @contextmanager
    def guard_decision(self, _: Event) -> Iterator[None]:
        yield

    def finish(self, event: Event) -> None:
        self._at = event.message.offset

    def committed(self, _: Event) -> int:
        return self._broker.committed

    def emit(self, topic: str, message: Message, _: Callable[[], None] | None = None) -> None:
        self._sent.append((self._at + 1, topic, message))

    # The table.

    def row(self, _: int, key: bytes) -> bytes | None:
        return self._rows.get(key)

    def put(self, _: int, key: bytes, row: bytes) -> None:
        self._rows[key] = row
        self._sent.append((self._at + 1, CHANGELOG, Message(key, row)))


class _Nothing:
    def row(self, *_: Any) -> None:
        """No outcome was ever heard of."""


def said(broker: MemoryBroker) -> Any:
    """A reader's final knowledge: the events by uid, the audit by id, the letters, and the newest view."""
    events: dict[str, set[bytes]] = defaultdict(set)
    for message in broker.topics[EVENTS.name]:
        events[json.loads(message.value)["uid"]].add(message.value)
    audit = {message.value for message in broker.topics[AUDIT.name]}
    letters = {message.value for message in broker.topics[DEAD_LETTERS.name]}
    views = [json.loads(message.value) for message in broker.topics[TENANTS.name]]
    newest = max(views, key=lambda view: view["version"], default=None)
    return dict(events), audit, letters, newest and {name: newest[name] for name in NAMES}


CONFIGURATIONS = st.sampled_from([{"crmEndpoint": "https://a"}, {"crmEndpoint": "https://b"}])
BODIES = st.builds(
    lambda event, seconds, configuration, metadata: json.dumps(
        body(event, seconds, configuration, **metadata)
    ).encode(),
    st.sampled_from(["installed", "uninstalled", "enabled", "disabled", "configuration_updated"]),
    st.sampled_from([0, 1, 60, 300, 1140, 1200, 1260]),
    CONFIGURATIONS,
    st.sampled_from([{}, {}, {"eventId": "1"}, {"eventId": "2"}, {"retryCount": 1}]),
)
VALUES = st.lists(st.one_of(BODIES, BODIES, BODIES, st.just(b"{}")), min_size=1, max_size=10)


@given(VALUES, st.data())
@settings(max_examples=examples(400), deadline=None)
async def test_a_ledger_agent_killed_anywhere_ends_with_the_same_state(
    values: list[bytes], data: st.DataObject
) -> None:
    calm, wild = MemoryBroker(values), MemoryBroker(values)
    undisturbed = AgentLife(calm, None)
    await undisturbed.live()
    undisturbed.leave(None)
    for _ in range(data.draw(st.integers(1, 4))):
        worker = AgentLife(wild, data.draw(st.integers(0, 2 * len(values))))
        with suppress(Killed):
            await worker.live()
        worker.leave(data)
    last = AgentLife(wild, None)
    await last.live()
    last.leave(None)
    assert said(wild) == said(calm)
    assert all(len(told) == 1 for told in said(wild)[0].values()), "an event with two faces"
    assert wild.committed == len(values) - 1
