"""Is the registry older than what was said from it? And, where an operator accepts that, the way back.

Rule: no saga is driven from a registry that was set back before every row that is older, or in the middle of something,
is in doubt: it would give numbers out a second time and know nothing of lives that began since. What is known beside
the registry is in Kafka: outcomes, the view of the tenants, desired versions.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.codec import Unreadable, decode
from schemas.outcome import Outcome
from schemas.saga import Journal
from schemas.tenant import Desired, Tenant
from schemas.topics import AUDIT, DEAD_LETTERS, DESIRED, OUTCOMES, PROVISIONER_GROUP, TENANTS, named
from services.adapters.kafka import reader
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import LeaseLost, NewerDesired, TenantTaken, Written
from services.core.delivery.topic_rules import judge
from services.core.saga.next_move import Plans
from services.core.saga.plan import BadPlan
from services.core.saga.recovery import KnownOfKey, is_older, nobodys, recovered, with_record
from services.provisioner.plans import PlanBook

GROUP: Final = PROVISIONER_GROUP
"""Of the consumers of `lifecycle.desired`, after the installation's prefix."""

_MODELS: Final[Mapping[str, type[Outcome | Tenant | Desired]]] = {
    OUTCOMES.name: Outcome,
    TENANTS.name: Tenant,
    DESIRED.name: Desired,
}
_BATCH: Final = 500
_NAMED: Final = 5
_ASK_S: Final = 5.0
_OLDER: Final = "the registry is older than what was said from it"
_WAY: Final = (
    "If DATABASE_URL is right, and a backup was restored, stop every provisioner and start one with "
    "--accept-older-registry: it looks everything up that may have been done since. Then go on without"
)
_ALONE: Final = "somebody else drives it: stop every other provisioner, and start again with --accept-older-registry"


class Stuck(Exception):
    """The recovery cannot go on; the text says why and what to do. What was done is done, and it counts as begun."""


class Recovery:
    """Of one process."""

    def __init__(
        self,
        registry: Registry,
        plans: PlanBook,
        config: dict[str, Any],
        *,
        prefix: str,
        accept: bool,
        log: Logger,
    ) -> None:
        """Take what it needs.

        Args:
            registry: Started.
            plans: Of every life.
            config: librdkafka's connection settings.
            prefix: Of this installation's topics.
            accept: Go on with an older registry, once.
            log: Of the service.
        """
        self._registry, self._plans, self._config = registry, plans, config
        self._prefix, self._accept, self._log = prefix, accept, log
        self._stuck = ""
        self.is_stopping: Callable[[], bool] = lambda: False
        """Asked in the middle of a recovery."""
        self.tell: Callable[[str], None] = lambda _: None
        """Called with how far it is."""

    async def prove(self) -> str:
        """Why no saga may be driven; empty text when the registry is as new as what was said from it, or is now.

        Raises:
            RegistryAway: it does not answer.
        """
        if self._stuck:
            return self._stuck
        try:
            fault = await self._fault()
            if self._accept and (fault or await self._registry.is_empty()):
                fault = await self._recover()
            self._accept = self._accept and bool(fault)
        except KafkaError as error:
            return f"not yet compared with what was said from it: {in_words(error)}"
        except Stuck as stuck:
            self._stuck = str(stuck)
            return self._stuck
        return fault

    async def _fault(self) -> str:
        if wrong := await asyncio.to_thread(self._wrong_topics):
            return wrong
        if await self._registry.is_half_recovered():
            return f"its recovery was begun and has not ended. {_WAY}"
        said, read = await asyncio.to_thread(self._last)
        heads = await self._registry.heads([*(one.key for one in said), *(one.key for one in read)])
        for outcome in said:
            counted = heads[outcome.key].seq if outcome.key in heads else 0
            if counted is not None and counted < outcome.seq:
                return f"{_OLDER}: {outcome.key} counts {counted} outcomes, and {outcome.seq} were said. {_WAY}"
        for desired in read if not await self._registry.is_empty() else ():
            stored = heads[desired.key].desired_version if desired.key in heads else -1
            if stored < desired.version:
                return f"{_OLDER}: of {desired.key} version {desired.version} was read, and {stored} is stored. {_WAY}"
        return ""

    def _wrong_topics(self) -> str:
        """Which topics that it writes are not as the table says; what was said there could be lost. Blocks."""
        table = {named(topic, self._prefix): topic for topic in (OUTCOMES, AUDIT, DEAD_LETTERS)}
        with TopicWatcher(self._config, table, timeout_s=_ASK_S) as looking:
            found = looking.look()
        return "; ".join(judge(table, found, None).wrong.values())

    def _last(self) -> tuple[list[Outcome], list[Desired]]:
        """What was said last in each partition, and the last version that was read. Blocks."""
        group = self._prefix + GROUP
        outcomes = reader.last(self._config, named(OUTCOMES, self._prefix))
        versions = reader.last(self._config, named(DESIRED, self._prefix), group=group)
        said = [one for record in outcomes if isinstance(one := self._decoded(record), Outcome)]
        return said, [one for record in versions if isinstance(one := self._decoded(record), Desired)]

    async def _recover(self) -> str:
        async with self._registry.alone() as alone:
            if not alone:
                return "another provisioner recovers it"
            if not await self._registry.is_empty() and not await self._fault():
                return ""  # another has, just now
            self._log.warning("recovery begins")
            self.tell("recovering: reading what was said")
            told, versions = await asyncio.to_thread(self._heard)
            if self.is_stopping():
                return "asked to stop"
            wishes = list(versions.values())
            for first in range(0, len(wishes), _BATCH):
                await self._registry.store(wishes[first : first + _BATCH])
            older = await self._older(told)
            await self._registry.begin_recovery()
            keys = list(dict.fromkeys((*older, *await self._registry.under_way())))
            for number, key in enumerate(keys):
                if self.is_stopping():
                    return "asked to stop"
                if number % _BATCH == 0:
                    self.tell(f"recovering: {number} of {len(keys)} tenants")
                await self._one(key, told.get(key, KnownOfKey()))
            await self._registry.end_recovery()
        self._log.warning("recovered", keys=len(keys), older=len(older))
        return ""

    async def _older(self, told: dict[str, KnownOfKey]) -> list[str]:
        """The keys whose rows are older; those whose tenants are gone first, to free their names.

        Raises:
            Stuck: of some no desired version is known.
        """
        older: list[str] = []
        unknown: list[str] = []
        every = [key for key, one in told.items() if one.generation or one.seq]
        for first in range(0, len(every), _BATCH):
            batch = every[first : first + _BATCH]
            heads = await self._registry.heads(batch)
            unknown += [key for key in batch if key not in heads]
            older += [key for key, head in heads.items() if is_older(head.seq or 0, head.generation, told[key])]
        if unknown:
            raise Stuck(
                f"of {len(unknown)} keys something was said, and no desired version is kept "
                f"({', '.join(unknown[:_NAMED])} …): have every key published again (`lifecycle ledger --republish`), "
                "then start again with --accept-older-registry"
            )
        return sorted(older, key=lambda key: not told[key].ended)

    async def _one(self, key: str, told: KnownOfKey) -> None:
        try:
            claim = await self._registry.claim_one(key)
        except Unreadable as fault:
            # It is not driven either while that is so, and no other has to wait for it.
            self._log.error("row cannot be read, nor recovered: mend it, or remove it", key=key, why=str(fault))
            return
        if claim is None:
            raise Stuck(f"{key}: {_ALONE}")
        await self._registry.forget_said(key, OUTCOMES.name, told.seq)
        plans = await self._plans_of(claim.journal)
        journal = recovered(claim.journal, claim.desired, told, plans, claim.now_us())
        while True:
            match await self._registry.write(claim, journal, (), due_in_s=0.0, release=True):
                case Written() | NewerDesired(written=True):
                    return
                case NewerDesired():
                    journal = recovered(claim.journal, claim.desired, told, plans, claim.now_us())
                case TenantTaken() if journal != nobodys(journal, key):
                    self._log.error("its tenant is another organisation's by now", key=key)
                    journal = nobodys(journal, key)
                case TenantTaken():
                    raise Stuck(f"{key}: another organisation has its tenant, and the name that is nobody's too")
                case LeaseLost():
                    raise Stuck(f"{key}: {_ALONE}")

    async def _plans_of(self, journal: Journal) -> Plans:
        try:
            return await self._plans.needed_by(journal)
        except BadPlan as error:
            self._log.warning("plan of a life cannot be carried out", why=str(error))
            return await self._plans.needed_by(Journal())

    def _heard(self) -> tuple[dict[str, KnownOfKey], dict[str, Desired]]:
        """What Kafka still has of every key, and its newest desired version. Blocks."""
        told: dict[str, KnownOfKey] = {}
        versions: dict[str, Desired] = {}
        for record in reader.present(self._config, [self._prefix + name for name in _MODELS]):
            if self.is_stopping():
                break
            said = self._decoded(record)
            if said is None:
                continue
            told[said.key] = with_record(told.get(said.key, KnownOfKey()), said)
            if isinstance(said, Desired) and said.version >= versions.get(said.key, said).version:
                versions[said.key] = said
        return told, versions

    def _decoded(self, record: reader.StoredRecord) -> Outcome | Tenant | Desired | None:
        try:
            return decode(_MODELS[record.topic.removeprefix(self._prefix)], record.value)
        except Unreadable:
            return None
