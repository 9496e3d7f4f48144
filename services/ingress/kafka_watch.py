"""Watches if Kafka would take a delivery now: topic settings match the table of `schemas.topics`, and leaders answer.

Rule: nothing is written to a topic before its settings were seen to match the table. A topic with wrong settings could
lose acknowledged records. While Kafka does not answer, the last answer counts.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from typing import Final

from schemas.topics import RECEIVED, Topic, named
from services.adapters.kafka.producer import NOT_AS_TABLE, UNSEEN, KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process.logs import Logger
from services.adapters.process.settings import TopicSettings
from services.core.delivery.topic_rules import judge

LOOK_S: Final = 2.0
_FIRST_S: Final = 2.5
_STALE_S: Final = 15.0
"""A look that takes longer hangs."""


class KafkaWatch:
    """Looks at the topics of a service every `LOOK_S` seconds. Use one watch per process.

    Attributes:
        fault: Why no delivery would be written now; empty where at least some would be.
    """

    def __init__(self, settings: TopicSettings, log: Logger, topics: Iterable[Topic]) -> None:
        """Prepares the admin client; the first look connects.

        Args:
            settings: The environment.
            log: Gets a line for each new fault.
            topics: The topics that the service writes; RECEIVED is among them.

        Raises:
            Unusable: librdkafka rejects a setting or its value.
        """
        self._log = log
        self._received = named(RECEIVED, settings.topic_prefix)
        self._table = {named(topic, settings.topic_prefix): topic for topic in topics}
        self._topics = TopicWatcher(settings.kafka, self._table, timeout_s=LOOK_S)
        # The default is for `topics apply`. Only a count that an operator has set is known to be the cluster's.
        is_set = "topic_partitions" in settings.model_fields_set
        self._partitions = settings.topic_partitions if is_set else None
        self._writable: frozenset[str] = frozenset()
        self._was_seen = False
        self._first: asyncio.Task[None] | None = None
        self._ended_s = time.monotonic()
        self._unanswered = True
        self._silent: Mapping[tuple[str, int], str] | None = None
        self._notes = ""
        self.fault = "not asked yet"

    @property
    def notes(self) -> str:
        """Faults of single partitions or settings, which leave other deliveries writable; also a look that hangs."""
        age_s = time.monotonic() - self._ended_s
        stale = f"not looked at for {age_s:.0f} s: a look at Kafka hangs" if age_s > _STALE_S else ""
        return "; ".join(filter(None, (stale, self._notes)))

    def topic_fault(self, topic: str) -> str:
        """Returns the fault for which nothing may be written to a topic, given by full name; empty text for none."""
        if topic in self._writable:
            return ""
        return NOT_AS_TABLE if self._was_seen else UNSEEN

    async def look_once(self) -> None:
        """Looks once before the server listens, for `_FIRST_S` at most."""
        self._first = asyncio.create_task(self._look(), name="kafka-first")
        # `wait` does not cancel at its timeout: a look runs in a thread, which cannot be cancelled, and TopicWatcher
        # allows one thread at a time. So a slow look goes on, and `run` waits for its end.
        await asyncio.wait((self._first,), timeout=_FIRST_S)
        if not self._first.done():
            self.fault = "does not answer"

    async def run(self) -> None:
        """Looks every `LOOK_S` seconds, and logs each new fault, until cancelled."""
        logged = ""
        if self._first is not None:
            await self._first
        while True:
            await self._look()
            if self.fault and self.fault != logged:
                self._log.warning("Kafka takes no deliveries", why=self.fault)
            logged = self.fault
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Looks once. A failure counts at the second look in a row, since a leader may be moving at the first."""
        try:
            found = await asyncio.to_thread(self._topics.look)
            silent = await asyncio.to_thread(self._topics.silent_partitions, found)
        except KafkaError as error:
            # `_writable` stays as it was: writing goes on by the last answer, and each record's report decides.
            if self._unanswered:
                self.fault = in_words(error)
            self._unanswered = True
        else:
            before, self._silent, self._unanswered = self._silent, silent, False
            still = (
                silent
                if before is None
                else {partition_id: why for partition_id, why in silent.items() if partition_id in before}
            )
            verdict = judge(self._table, found, self._partitions, vital={self._received}, silent=still)
            # A broker that has just started may not list a topic for a moment. A topic that is gone takes no record
            # anyway, so keeping it writable does no harm.
            absent = self._writable - found.keys()
            self._writable, self._was_seen = frozenset(found.keys() - verdict.wrong.keys()) | absent, True
            self._notes = "; ".join(verdict.notes)
            self.fault = "; ".join((*verdict.wrong.values(), *verdict.trouble))
        self._ended_s = time.monotonic()
