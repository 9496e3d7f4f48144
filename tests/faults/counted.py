"""The counting application of `table_worker` as a subject of the chaos driver."""

import json
import random
import sys
import time
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import records
from tests.faults.subject import ChaosVerdict, Command
from tests.faults.table_worker import INPUTS, OUTPUT, Row

PARTITIONS = 4
_KEYS = 212
_DUPLICATES = 0.25
_COMPACTED = {"cleanup.policy": "compact", "min.compaction.lag.ms": "3600000"}


@dataclass(slots=True)
class Counted:
    """The input fed, and the output due from it."""

    bootstrap: str
    prefix: str
    session_s: float
    look_s: float = 30.0
    _fed: list[tuple[str, bytes]] = field(default_factory=list)
    _per_key: Counter[tuple[str, bytes]] = field(default_factory=Counter)

    @property
    def _group(self) -> str:
        return f"{self.prefix}chaos"

    def prepare(self) -> None:
        """Make its topics."""
        plain: dict[str, dict[str, str]] = {self.prefix + name: {} for name in (*INPUTS, OUTPUT)}
        changelogs = {f"{self._group}-{table}-changelog": _COMPACTED for table in INPUTS.values()}
        records.create(self.bootstrap, plain | changelogs, PARTITIONS)

    def worker(self, disk: Path) -> Command:
        """One counting process."""
        arguments = {
            "brokers": self.bootstrap,
            "prefix": self.prefix,
            "partitions": PARTITIONS,
            "folder": str(disk),
            "session_s": self.session_s,
            "look_s": self.look_s,
        }
        return Command((sys.executable, "-m", "tests.faults.table_worker", json.dumps(arguments)))

    def feed(self, count: int, rate: float, draw: random.Random) -> None:
        """Write deliveries to both inputs, a fifth to the second."""
        producer = records.producer(self.bootstrap)
        recent: deque[tuple[str, bytes, bytes]] = deque(maxlen=300)
        started = time.monotonic()
        for number in range(count):
            topic = "events" if draw.random() < 0.8 else "notes"
            key, uid = b"k%03d" % draw.randrange(_KEYS), b"%08d" % number
            recent.append((topic, key, uid))
            self._fed.append((INPUTS[topic], uid))
            self._per_key[INPUTS[topic], key] += 1
            producer.produce(self.prefix + topic, key=key, value=uid)
            if draw.random() < _DUPLICATES:
                topic, key, uid = draw.choice(recent)
                producer.produce(self.prefix + topic, key=key, value=uid)
            producer.poll(0)
            if number % 20 == 0:
                time.sleep(max(0.0, started + number / rate - time.monotonic()))
        assert producer.flush(120) == 0, "the feeder's own records must be written"

    def begun(self) -> bool:
        """True if any output was written yet."""
        return sum(records.end_offsets(self.bootstrap, self.prefix + OUTPUT, PARTITIONS)) > 0

    def drained(self) -> bool:
        """True if every input offset is committed."""
        return records.behind(self.bootstrap, self._group, [self.prefix + name for name in INPUTS], PARTITIONS) == 0

    def judge(self) -> ChaosVerdict:
        """Compare what was said, and the rows, with what was fed."""
        inputs = sum(sum(records.end_offsets(self.bootstrap, self.prefix + name, PARTITIONS)) for name in INPUTS)
        said = [value for *_, value in records.read(self.bootstrap, self.prefix + OUTPUT, PARTITIONS)]
        sequences: defaultdict[tuple[str, bytes], set[int]] = defaultdict(set)
        ids: defaultdict[tuple[str, bytes], defaultdict[int, set[bytes]]] = defaultdict(lambda: defaultdict(set))
        for value in said:
            table, uid, key, sequence = value.split(b"|")
            sequences[table.decode(), uid].add(int(sequence))
            ids[table.decode(), key][int(sequence)].add(uid)
        missing = [str(fed) for fed in self._fed if fed not in sequences]
        double = [f"{fed} {found}" for fed, found in sequences.items() if len(found) > 1]
        counts = self._counts()
        bad = [
            f"{of}: {count} fed, row says {counts.get(of)}, said {sorted(ids[of])[-1:]}"
            for of, count in self._per_key.items()
            if sorted(ids[of]) != list(range(1, count + 1))
            or any(len(uids) > 1 for uids in ids[of].values())
            or counts.get(of) != count
        ]
        examples = (*missing[:4], *double[:4], *bad[:4])
        repeats = len(said) - len(set(said))
        return ChaosVerdict(inputs, len(self._fed), len(said), repeats, len(missing), len(double), len(bad), examples)

    def _counts(self) -> dict[tuple[str, bytes], int]:
        """The newest row of each key, by a recovery from the changelogs alone."""
        newest: dict[tuple[str, bytes], Row] = {}
        for table in INPUTS.values():
            for *_, key, packed in records.read(self.bootstrap, f"{self._group}-{table}-changelog", PARTITIONS):
                row = Row(packed)
                held = newest.get((table, key))
                if held is None or row.version >= held.version:
                    newest[table, key] = row
        return {of: row.count for of, row in newest.items()}
