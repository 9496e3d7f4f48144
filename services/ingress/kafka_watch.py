"""Watches whether Kafka would take a delivery now: topics as the table says, and leaders that answer.

Rule: nothing is written to a topic that was not seen as the table says: what was acknowledged into another one would be
lost with it. While Kafka does not answer, what was seen last counts.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from schemas.topics import DEAD_LETTERS, RECEIVED, named
from services.adapters.kafka.producer import NOT_AS_TABLE, UNSEEN, KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process.logs import Logger
from services.adapters.process.settings import Settings
from services.core.delivery.topic_rules import judge

LOOK_S: Final = 2.0
_FIRST_S: Final = 2.5
_STALE_S: Final = 15.0
"""A look that has not ended by then hangs."""


class KafkaWatch:
    """Of one process."""

    def __init__(self, settings: Settings, log: Logger) -> None:
        """Look at nothing yet.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        self._log = log
        self._received = named(RECEIVED, settings.topic_prefix)
        self._table = {named(topic, settings.topic_prefix): topic for topic in (RECEIVED, DEAD_LETTERS)}
        self._looking = TopicWatcher(settings.kafka, self._table, timeout_s=LOOK_S)
        # The default is for `topics apply`; only a count that an operator names is known to be the cluster's.
        said = "topic_partitions" in settings.model_fields_set
        self._partitions = settings.topic_partitions if said else None
        self._open: frozenset[str] = frozenset()
        self._was_seen = False
        self._first: asyncio.Task[None] | None = None
        self._ended_s = time.monotonic()
        self._is_silent = True
        self._silent: Mapping[tuple[str, int], str] | None = None
        self._notes = ""
        self.fault = "not asked yet"
        """Why no delivery would be written now; empty where some would."""

    @property
    def notes(self) -> str:
        """What is not as it should be, and keeps other deliveries from nothing; also that a look hangs."""
        age_s = time.monotonic() - self._ended_s
        stale = f"not looked at for {age_s:.0f} s: a look at Kafka hangs" if age_s > _STALE_S else ""
        return "; ".join(filter(None, (stale, self._notes)))

    def topic_fault(self, topic: str) -> str:
        """Returns why nothing may be written to a topic, by its whole name; empty text when it may."""
        if topic in self._open:
            return ""
        return NOT_AS_TABLE if self._was_seen else UNSEEN

    async def first(self) -> None:
        """Look once, before there is anything to write; a look that takes longer goes on, and `run` waits for it."""
        self._first = asyncio.create_task(self._look(), name="kafka-first")
        await asyncio.wait((self._first,), timeout=_FIRST_S)
        if not self._first.done():
            self.fault = "does not answer"

    async def run(self) -> None:
        """Look again and again."""
        told = ""
        if self._first is not None:
            await self._first
        while True:
            await self._look()
            if self.fault and self.fault != told:
                self._log.warning("Kafka takes no deliveries", why=self.fault)
            told = self.fault
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        """Look once; a silence counts at the second look in a row, so that a leader may move."""
        try:
            found = await asyncio.to_thread(self._looking.look)
            silent = await asyncio.to_thread(self._looking.silent, found)
        except KafkaError as error:
            if self._is_silent:
                self.fault = in_words(error)
            self._is_silent = True
        else:
            before, self._silent, self._is_silent = self._silent, silent, False
            still = silent if before is None else {place: why for place, why in silent.items() if place in before}
            verdict = judge(self._table, found, self._partitions, vital={self._received}, silent=still)
            # A broker that has just started may lack a topic for a moment: what is not there takes no record anyway.
            absent = self._open - found.keys()
            self._open, self._was_seen = frozenset(found.keys() - verdict.wrong.keys()) | absent, True
            self._notes = "; ".join(verdict.notes)
            self.fault = "; ".join((*verdict.wrong.values(), *verdict.trouble))
        self._ended_s = time.monotonic()
