"""The real ledger as a subject of the chaos driver: lifecycles of many integrations, and outcomes beside them.

Every delivery carries an event id of its own, so each unique one is exactly one event; the final state of a key is
what the core makes of its deliveries in one go.
"""

import json
import random
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schemas import codec, webhook
from schemas.outcome import Direction, Outcome, State
from schemas.rows import TenantRow
from schemas.tenant import Tenant
from schemas.topics import AUDIT, EVENTS, LEDGER_APP, OUTCOMES, RECEIVED, TENANTS, Topic, named
from schemas.values import EventType
from services.adapters import keyring as keyring_file
from services.core.ledger import Place, Rules, receive
from services.core.views import tenant
from tests.faults import records
from tests.faults.subject import Command, Verdict
from tests.ledger_process import PARTITIONS, LedgerBench, body, new_key, now_us

_KEYS = 120
_DUPLICATES = 0.25
_OUTCOMES = 0.2
_EVENTS = tuple(EventType)
_COMPARED = ("tenant_id", "installed", "enabled", "configuration", "configuration_mac", "flags")


@dataclass(slots=True)
class Lifecycles:
    """What was fed, and what must come out of it."""

    bootstrap: str
    prefix: str
    session_s: float
    folder: Path
    _bench: LedgerBench = field(init=False)
    _fed: dict[str, dict[str, bytes]] = field(default_factory=lambda: defaultdict(dict))
    _concluded: Counter[str] = field(default_factory=Counter)

    def prepare(self) -> None:
        """Make its topics and its keyring."""
        self._bench = LedgerBench(self.bootstrap, self.prefix, self.folder)

    def worker(self, disk: Path) -> Command:
        """One `lifecycle ledger`."""
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "KEYRING_FILE": str(self.folder / "keyring.json"),
            "STATE_DIR": str(disk),
            "SESSION_TIMEOUT_S": str(self.session_s),
        }
        return Command((sys.executable, "-m", "services.cli.main", "ledger"), environ)

    def feed(self, count: int, rate: float, draw: random.Random) -> None:
        """Write deliveries, some of them twice, and outcomes of the same keys."""
        producer = records.producer(self.bootstrap)
        keys = [new_key() for _ in range(_KEYS)]
        recent: deque[tuple[str, bytes]] = deque(maxlen=300)
        started, base_us = time.monotonic(), now_us()
        headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
        for number in range(count):
            key, uid = draw.choice(keys), f"{number:08d}"
            raw = self._delivery(key, uid, base_us + number, draw)
            recent.append((key, raw))
            for spoken, told in [(key, raw)] + ([draw.choice(recent)] if draw.random() < _DUPLICATES else []):
                producer.produce(named(RECEIVED, self.prefix), value=told, key=spoken.encode(), headers=headers)
            if draw.random() < _OUTCOMES:
                message = self._outcome(draw.choice(keys))
                producer.produce(named(OUTCOMES, self.prefix), value=message.value, key=message.key)
            producer.poll(0)
            if number % 20 == 0:
                time.sleep(max(0.0, started + number / rate - time.monotonic()))
        assert producer.flush(120) == 0, "the feeder's own records must be written"

    def begun(self) -> bool:
        """Whether any event was published yet."""
        return sum(records.end_offsets(self.bootstrap, named(EVENTS, self.prefix), PARTITIONS)) > 0

    def drained(self) -> bool:
        """Whether every input offset is committed."""
        names = [named(topic, self.prefix) for topic in (RECEIVED, OUTCOMES)]
        return records.behind(self.bootstrap, self.prefix + LEDGER_APP, names, PARTITIONS) == 0

    def judge(self) -> Verdict:
        """Compare events, audit and view with what was fed."""
        inputs = self._read(RECEIVED)
        said = self._read(EVENTS)
        revisions: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        for _, _, key, value in said:
            revisions[key.decode(), json.loads(value)["uid"]].add(value)
        missing = [
            f"{key} {uid}" for key, fed in self._fed.items() for uid in fed if (key, f"e:{uid}") not in revisions
        ]
        audited = {json.loads(value)["id"] for *_, value in self._read(AUDIT)}
        missing += [
            f"audit of offset {offset} in partition {partition}"
            for partition, offset, *_ in inputs
            if f"{RECEIVED.name}/{partition}/{offset}/delivery" not in audited
        ]
        double = [f"{place} {values}" for place, values in revisions.items() if len(values) > 1]
        bad = list(self._misjudged(revisions))
        return Verdict(
            len(inputs) + len(self._read(OUTCOMES)),
            sum(map(len, self._fed.values())),
            len(said),
            len(said) - len({value for *_, value in said}),
            *(len(missing), len(double), len(bad)),
            (*missing[:4], *double[:4], *bad[:4]),
        )

    def _misjudged(self, revisions: dict[tuple[str, str], set[bytes]]) -> Iterator[str]:
        """Keys with a gap in their revisions, or whose newest view is not what their deliveries say."""
        given: defaultdict[str, list[int]] = defaultdict(list)
        for (key, _), values in revisions.items():
            given[key] += [json.loads(value)["revision"] for value in values]
        views: dict[str, Tenant] = {}
        for _, _, spoken, value in self._read(TENANTS):
            view = codec.decode(Tenant, value)
            if spoken.decode() not in views or view.version >= views[spoken.decode()].version:
                views[spoken.decode()] = view
        rules = self._rules()
        for key, fed in self._fed.items():
            expected, shown = self._expected(key, rules), views.get(key)
            if sorted(given[key]) != list(range(1, len(fed) + 1)):
                yield f"{key}: revisions {sorted(given[key])} of {len(fed)}"
            elif shown is None or any(getattr(shown, name) != getattr(expected, name) for name in _COMPARED):
                yield f"{key}: shown {shown}, expected {expected}"
            elif (shown.revision, shown.generation) != (len(fed), self._concluded[key]):
                yield f"{key}: revision {shown.revision} of {len(fed)}, generation {shown.generation}"

    def _expected(self, key: str, rules: Rules) -> Tenant:
        row: TenantRow | None = None
        for offset, raw in enumerate(self._fed[key].values()):
            decision = receive(row, None, webhook.parse(raw), Place(RECEIVED.name, 0, offset, now_us()), rules)
            row = decision.row if isinstance(decision.row, TenantRow) else row
        (output,) = tenant(row, None, rules)
        return codec.decode(Tenant, output.message.value)

    def _rules(self) -> Rules:
        found = keyring_file.material(self.folder / "keyring.json")
        identity, configuration, audit = map(keyring_file.raw, (found.identity, found.configuration, found.audit[0]))
        return Rules(identity, configuration, audit, ("crmEndpoint", "syncInterval", "featureFlags"))

    def _delivery(self, key: str, uid: str, at_us: int, draw: random.Random) -> bytes:
        configuration = {"crmEndpoint": f"https://{uid}.salesforce.com", "hidden": uid * draw.randrange(1, 40)}
        raw = body(
            key, draw.choice(_EVENTS), at_us, configuration=configuration, metadata={"eventId": uid, "source": "chaos"}
        )
        self._fed[key][uid] = raw
        return raw

    def _outcome(self, key: str) -> codec.Message:
        self._concluded[key] += 1
        number = self._concluded[key]
        outcome = Outcome(
            key=key,
            seq=number,
            desired_version=number,
            generation=number,
            direction=Direction.UP,
            state=State.DONE,
            at=now_us(),
        )
        return codec.encode(
            outcome, key=key, ce_id=f"{key}/{number}", source="/genesys-lifecycle/chaos", at_us=now_us()
        )

    def _read(self, topic: Topic) -> list[tuple[int, int, bytes, bytes]]:
        return records.read(self.bootstrap, named(topic, self.prefix), PARTITIONS)
