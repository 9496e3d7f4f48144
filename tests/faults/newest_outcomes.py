"""Outcomes of many tenants, read by a separate thread, and the instants of their versions."""

import threading
import time
from collections.abc import Sequence
from typing import Self
from uuid import uuid4

import confluent_kafka

from schemas.codec import decode
from schemas.outcome import Outcome, State
from schemas.tenant import Desired
from schemas.topics import OUTCOMES, named
from tests.support.provisioner_process import Scene


class NewestOutcomes:
    """The newest end of each key; use it as a context."""

    def __init__(self, scene: Scene) -> None:
        """Listen to the outcomes of an installation."""
        self._published_s: dict[tuple[str, int], float] = {}
        self._ends: dict[str, tuple[Outcome, float]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="outcomes", daemon=True)
        config = {"bootstrap.servers": scene.kafka, "group.id": str(uuid4()), "auto.offset.reset": "earliest"}
        self._consumer = confluent_kafka.Consumer(config)
        self._consumer.subscribe([named(OUTCOMES, scene.prefix)])

    def note_published(self, versions: Sequence[Desired]) -> None:
        """Note when versions were published: now."""
        self._published_s |= dict.fromkeys(((one.key, one.version) for one in versions), time.monotonic())

    def took_s(self, said: Outcome) -> float:
        """From the publication of a version to the hearing of its end."""
        return self._ends[said.key][1] - self._published_s[said.key, said.desired_version]

    def ended(self, keys: Sequence[str], version: int) -> list[Outcome]:
        """The ends of those that ended so far."""
        found = [self._ends[of][0] for of in keys if of in self._ends]
        return [said for said in found if said.desired_version >= version]

    def until(self, keys: Sequence[str], version: int, at_most_s: float) -> list[Outcome]:
        """Wait until all of them ended.

        Raises:
            AssertionError: they did not.
        """
        deadline = time.monotonic() + at_most_s
        while len(found := self.ended(keys, version)) < len(keys):
            assert time.monotonic() < deadline, f"only {len(found)} of {len(keys)} ended within {at_most_s:.0f} s"
            time.sleep(0.05)
        return found

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            for message in self._consumer.consume(1_000, 0.05):
                if message.error() is None:
                    self._hear(decode(Outcome, message.value() or b""))

    def _hear(self, said: Outcome) -> None:
        known = self._ends.get(said.key)
        if said.state not in {State.WORKING, State.HELD} and (known is None or said.seq > known[0].seq):
            self._ends[said.key] = said, time.monotonic()
