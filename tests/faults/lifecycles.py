"""The real ledger as a subject of the chaos driver: lifecycles of many integrations, and outcomes beside them.

Their times are shuffled within 20 minutes, a quarter comes twice, and some carry no event id and are told again with
another time. What must be published, and what every key must look like at last, is what the core makes of the log in
one go: nothing that a crash could have touched.
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
from schemas.rows import StageRow, TenantRow
from schemas.times import instant, rfc3339
from schemas.topics import AUDIT, DESIRED, EVENTS, LEDGER_APP, OUTCOMES, RECEIVED, TENANTS, Topic, named
from schemas.values import EventType
from services.adapters.secrets import keyring as keyring_file
from services.core.ledger.decisions import receive, receive_outcome
from services.core.ledger.journal import RecordPosition
from services.core.ledger.projections import ProjectionRules, tenant
from tests.faults import records
from tests.faults.subject import ChaosVerdict, Command
from tests.support.ledger_process import PARTITIONS, LedgerBench, body, new_key, now_us

_KEYS = 120
_DUPLICATES = 0.25
_OUTCOMES = 0.2
_NAMELESS = 0.3
"""Deliveries that no id of the sender names: they are told apart by what they say, and when."""
_RESTAMPS = 0.4
"""Of those, how many say again what one before said, with another time, half of them marked as retries."""
_SHUFFLED_US = 20 * 60 * 1_000_000
_EVENTS = tuple(EventType)


Read = tuple[int, int, int, bytes, bytes]
"""Partition, offset, time (µs UTC), key and value of a record."""


@dataclass(frozen=True, slots=True)
class Due:
    """The records due of a key.

    Attributes:
        view: Its last record of `lifecycle.tenants`.
        events: Each of `lifecycle.events`, by uid.
        desired: Each of `lifecycle.desired`, by version; of those in between some may never be told.
        audit: Each verdict of `lifecycle.audit`, by id.
    """

    view: bytes
    events: dict[str, bytes]
    desired: dict[int, bytes]
    audit: dict[str, bytes]


@dataclass(slots=True)
class Lifecycles:
    """The input fed, and the output due from it."""

    bootstrap: str
    prefix: str
    session_s: float
    folder: Path
    replication: int = 1
    standbys: int = 0
    _bench: LedgerBench = field(init=False)
    _concluded: Counter[str] = field(default_factory=Counter)
    _fed: int = 0

    def prepare(self) -> None:
        """Make its topics and its keyring."""
        self._bench = LedgerBench(self.bootstrap, self.prefix, self.folder, replication=self.replication)

    def worker(self, disk: Path) -> Command:
        """One `lifecycle ledger`."""
        environ = {
            "KAFKA_BOOTSTRAP_SERVERS": self.bootstrap,
            "TOPIC_PREFIX": self.prefix,
            "KEYRING_FILE": str(self.folder / "keyring.json"),
            "STATE_DIR": str(disk),
            "SESSION_TIMEOUT_S": str(self.session_s),
            "STANDBY_REPLICAS": str(self.standbys),
        }
        return Command((sys.executable, "-m", "services.cli.main", "ledger"), environ)

    def feed(self, count: int, rate: float, draw: random.Random) -> None:
        """Write deliveries with times in any order, some twice, some restamped, and outcomes of the same keys."""
        producer = records.producer(self.bootstrap)
        keys = [new_key() for _ in range(_KEYS)]
        recent: deque[tuple[str, bytes]] = deque(maxlen=300)
        nameless: deque[tuple[str, bytes]] = deque(maxlen=300)
        started, base_us = time.monotonic(), now_us()
        headers: list[tuple[str, Any]] = [("ce_type", webhook.CE_TYPE.encode()), ("endpoint", b"default")]
        for number in range(count):
            key = draw.choice(keys)
            at_us = base_us + number - draw.randrange(_SHUFFLED_US)
            if draw.random() < _NAMELESS:
                restamps = nameless and draw.random() < _RESTAMPS
                key, raw = draw.choice(nameless) if restamps else (key, _delivery(key, None, at_us, draw))
                raw = _restamped(raw, draw) if restamps else raw
                nameless.append((key, raw))
            else:
                raw = _delivery(key, f"{number:08d}", at_us, draw)
            recent.append((key, raw))
            for spoken, told in [(key, raw)] + ([draw.choice(recent)] if draw.random() < _DUPLICATES else []):
                producer.produce(named(RECEIVED, self.prefix), value=told, key=spoken.encode(), headers=headers)
            if draw.random() < _OUTCOMES:
                message = self._outcome(draw.choice(keys), draw)
                producer.produce(named(OUTCOMES, self.prefix), value=message.value, key=message.key)
            producer.poll(0)
            if number % 20 == 0:
                time.sleep(max(0.0, started + number / rate - time.monotonic()))
        assert producer.flush(120) == 0, "the feeder's own records must be written"
        self._fed = count

    def begun(self) -> bool:
        """True if any event was published yet."""
        return sum(records.end_offsets(self.bootstrap, named(EVENTS, self.prefix), PARTITIONS)) > 0

    def drained(self) -> bool:
        """True if every input offset is committed."""
        names = [named(topic, self.prefix) for topic in (RECEIVED, OUTCOMES)]
        return records.behind(self.bootstrap, self.prefix + LEDGER_APP, names, PARTITIONS) == 0

    def judge(self) -> ChaosVerdict:
        """Compare events, audit, desired and view with what the core makes of the log in one go."""
        inputs, outcomes, said = self._read(RECEIVED), self._read(OUTCOMES), self._read(EVENTS)
        oracle = self._oracle(inputs, outcomes)
        published: defaultdict[tuple[str, str], set[bytes]] = defaultdict(set)
        for *_, key, value in said:
            published[key.decode(), json.loads(value)["uid"]].add(value)
        events = {(key, uid): value for key, due in oracle.items() for uid, value in due.events.items()}
        missing = [f"{key} {uid}" for key, uid in events if (key, uid) not in published]
        audited: defaultdict[str, set[bytes]] = defaultdict(set)
        for *_, value in self._read(AUDIT):
            audited[json.loads(value)["id"]].add(value)
        lines = {name: value for due in oracle.values() for name, value in due.audit.items()}
        missing += [f"audit {name}" for name in lines if name not in audited]
        missing += [f"only {len(inputs)} deliveries of {self._fed}"] if len(inputs) < self._fed else []
        double = [f"{position} {values}" for position, values in published.items() if len(values) > 1]
        bad = [f"{position} said, and not due" for position in published if position not in events]
        bad += [
            f"{position} said {values}, due {events[position]!r}"
            for position, values in published.items()
            if position in events and values != {events[position]}
        ]
        bad += [
            f"audit {name} says {found}"
            for name, found in audited.items()
            if len(found) > 1 or (name in lines and found != {lines[name]})
        ]
        bad += [*self._misjudged(oracle, published), *self._undesired(oracle)]
        return ChaosVerdict(
            len(inputs) + len(outcomes),
            len(events),
            len(said),
            len(said) - len({value for *_, value in said}),
            *(len(missing), len(double), len(bad)),
            (*missing[:4], *double[:4], *bad[:4]),
        )

    def _oracle(self, inputs: list[Read], outcomes: list[Read]) -> dict[str, Due]:
        """The records due of each key in a run without a crash."""
        rules = self._rules()
        rows: dict[str, TenantRow] = {}
        stages: dict[str, StageRow] = {}
        told: defaultdict[Topic, defaultdict[str, dict[Any, bytes]]] = defaultdict(lambda: defaultdict(dict))
        named_by = {EVENTS: "uid", DESIRED: "version", AUDIT: "id"}
        for partition, offset, at_us, spoken, raw in inputs:
            key = spoken.decode()
            position = RecordPosition(RECEIVED.name, partition, offset, at_us)
            decision = receive(rows.get(key), None, webhook.parse(raw), position, rules)
            if isinstance(decision.row, TenantRow):
                rows[key] = decision.row
            for output in decision.outputs:
                body = json.loads(output.message.value)
                if output.topic in named_by and body.get("what") != "stage":
                    told[output.topic][key][body[named_by[output.topic]]] = output.message.value
        for partition, offset, at_us, spoken, raw in outcomes:
            key, outcome = spoken.decode(), codec.decode(Outcome, raw)
            position = RecordPosition(OUTCOMES.name, partition, offset, at_us)
            decision = receive_outcome(rows.get(key), stages.get(key), outcome, position, rules)
            if isinstance(decision.row, StageRow):
                stages[key] = decision.row
        return {
            key: Due(
                tenant(rows.get(key), stages.get(key), rules)[0].message.value,
                *(told[topic][key] for topic in (EVENTS, DESIRED, AUDIT)),
            )
            for key in rows.keys() | stages.keys()
        }

    def _undesired(self, oracle: dict[str, Due]) -> Iterator[str]:
        """Desired states that no delivery asked for, and keys whose newest one was never told."""
        newest: Counter[str] = Counter()
        for *_, spoken, value in self._read(DESIRED):
            key, version = spoken.decode(), int(json.loads(value)["version"])
            newest[key] = max(newest[key], version)
            if key not in oracle or oracle[key].desired.get(version) != value:
                yield f"{key}: desired {value!r} at version {version} is not due"
        for key, due in oracle.items():
            if due.desired and newest[key] != max(due.desired):
                yield f"{key}: desired is told up to version {newest[key]} of {max(due.desired)}"

    def _misjudged(self, oracle: dict[str, Due], published: dict[tuple[str, str], set[bytes]]) -> Iterator[str]:
        """Keys with a gap in their revisions, or whose newest view is not what their records say."""
        given: defaultdict[str, list[int]] = defaultdict(list)
        for (key, _), values in published.items():
            given[key] += [json.loads(value)["revision"] for value in values]
        views: dict[str, tuple[int, bytes]] = {}
        for *_, spoken, value in self._read(TENANTS):
            views[spoken.decode()] = max(views.get(spoken.decode(), (-1, b"")), (json.loads(value)["version"], value))
        for key, due in oracle.items():
            if sorted(given[key]) != list(range(1, len(given[key]) + 1)):
                yield f"{key}: revisions {sorted(given[key])}"
            _, shown = views.get(key, (-1, b""))
            if shown != due.view:
                yield f"{key}: shown {shown!r}, expected {due.view!r}"

    def _rules(self) -> ProjectionRules:
        found = keyring_file.material(self.folder / "keyring.json")
        identity, configuration, audit = map(keyring_file.raw, (found.identity, found.configuration, found.audit[0]))
        return ProjectionRules(identity, configuration, audit, ("crmEndpoint", "syncInterval", "featureFlags"), 86_400)

    def _outcome(self, key: str, draw: random.Random) -> codec.Message:
        """The next outcome of a key, or one that was told before."""
        number = self._concluded[key] = self._concluded[key] + 1
        if number > 1 and draw.random() < _DUPLICATES:
            number = self._concluded[key] = draw.randrange(1, number)
        outcome = Outcome(
            key=key,
            seq=number,
            desired_version=draw.randrange(1, 5_000),
            generation=1 + number // 4,
            direction=draw.choice(tuple(Direction)),
            state=draw.choice(tuple(State)),
            at=now_us(),
        )
        return codec.encode(
            outcome, key=key, ce_id=f"{key}/{number}", source="/genesys-lifecycle/chaos", at_us=now_us()
        )

    def _read(self, topic: Topic) -> list[Read]:
        return records.read(self.bootstrap, named(topic, self.prefix), PARTITIONS)


def _delivery(key: str, uid: str | None, at_us: int, draw: random.Random) -> bytes:
    named_so = f"{draw.randrange(10**8):08d}" if uid is None else uid
    configuration = {"crmEndpoint": f"https://{named_so}.salesforce.com", "hidden": named_so * draw.randrange(1, 40)}
    metadata = {"source": "chaos"} | ({} if uid is None else {"eventId": uid})
    return body(key, draw.choice(_EVENTS), at_us, configuration=configuration, metadata=metadata)


def _restamped(raw: bytes, draw: random.Random) -> bytes:
    """The same delivery as a sender tells it again that changes its time."""
    told = json.loads(raw)
    told["eventTimestamp"] = rfc3339(instant(told["eventTimestamp"]) + draw.randrange(1, 600_000_000))
    if draw.random() < 0.5:
        told["metadata"] |= {"retryCount": draw.randrange(1, 6)}
    return json.dumps(told).encode()
