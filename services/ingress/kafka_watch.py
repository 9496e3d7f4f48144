"""Watches whether Kafka would take a delivery now: topics as the table says, and leaders that answer.

Rule: nothing is written to a topic that was not seen as the table says: what was acknowledged into another one would be
lost with it. While Kafka does not answer, what was seen last counts.
"""

import asyncio
from typing import Final

from schemas.topics import DEAD_LETTERS, RECEIVED, named
from services.adapters.kafka import NOT_AS_TABLE, UNSEEN, KafkaError
from services.adapters.logs import Logger
from services.adapters.reach import in_words
from services.adapters.settings import Settings
from services.adapters.topic_state import TopicLook
from services.core.topic_table import judge

LOOK_S: Final = 2.0
_FIRST_S: Final = 2.5


class KafkaWatch:
    """Of one process."""

    def __init__(self, settings: Settings, log: Logger) -> None:
        """Look at nothing yet.

        Raises:
            Unusable: librdkafka does not know a setting, or not its value.
        """
        self._log = log
        self._table = {named(topic, settings.topic_prefix): topic for topic in (RECEIVED, DEAD_LETTERS)}
        self._looking = TopicLook(settings.kafka, self._table, timeout_s=LOOK_S)
        # The default is for `topics apply`; only a count that an operator names is known to be the cluster's.
        said = "topic_partitions" in settings.model_fields_set
        self._partitions = settings.topic_partitions if said else None
        self._open: frozenset[str] = frozenset()
        self._was_seen = False
        self.fault = "not asked yet"
        """Why a delivery would not be written now; empty when it would."""
        self.notes = ""
        """What is not as it should be, and keeps no delivery from being written."""

    def against(self, topic: str) -> str:
        """Returns why nothing may be written to a topic, by its whole name; empty text when it may."""
        if topic in self._open:
            return ""
        return NOT_AS_TABLE if self._was_seen else UNSEEN

    async def first(self) -> None:
        """Look once, before there is anything to write; who does not answer soon is looked at again by `run`."""
        try:
            async with asyncio.timeout(_FIRST_S):
                await self._look()
        except TimeoutError:
            self.fault = "does not answer"

    async def run(self) -> None:
        """Look again and again."""
        told = ""
        while True:
            await self._look()
            if self.fault and self.fault != told:
                self._log.warning("Kafka takes no deliveries", why=self.fault)
            told = self.fault
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        try:
            found = await asyncio.to_thread(self._looking.look)
            verdict = judge(self._table, found, self._partitions)
            # A broker that has just started may lack a topic for a moment: what is not there takes no record anyway.
            absent = self._open - found.keys()
            self._open, self._was_seen = frozenset(found.keys() - verdict.wrong.keys()) | absent, True
            self.notes = "; ".join(verdict.notes)
            trouble = [*verdict.wrong.values(), *verdict.trouble]
            self.fault = "; ".join(trouble) or await asyncio.to_thread(self._looking.unreachable, found)
        except KafkaError as error:
            self.fault = in_words(error)
