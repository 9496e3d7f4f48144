"""Proves that the registry is as new as the records published from it, and recovers a registry that is older.

Problem: a registry restored from a backup, or a standby that lagged, is not empty and lacks the newest turns. Driven
from there, sagas would reuse idempotency keys, outcome numbers and epochs, and would not find lives begun since.
Approach (docs/decisions/0021): an outcome is published, and an offset committed, only after the commit in the registry,
so a registry never set back is never behind Kafka. The proof compares both. An operator who accepts an older registry
(`--accept-older-registry`) has the missing facts read back from Kafka: outcomes, the view of tenants, desired versions.

Rule: no saga is driven before every older or unfinished row is in doubt. Each resource in doubt is looked up by name
before any change. A recovery in progress is marked in the registry and blocks every claim, also after a crash; a
repeated recovery begins anew.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from schemas.codec import Unreadable, decode
from schemas.outcome import Outcome
from schemas.saga import Journal
from schemas.stored import StoredRecord
from schemas.tenant import Desired, Tenant
from schemas.topics import AUDIT, DEAD_LETTERS, DESIRED, OUTCOMES, PROVISIONER_GROUP, TENANTS, named
from services.adapters.kafka import reader
from services.adapters.kafka.producer import KafkaError
from services.adapters.kafka.reach import in_words
from services.adapters.kafka.topic_state import TopicWatcher
from services.adapters.process.logs import Logger
from services.adapters.registry.registry import Registry
from services.adapters.registry.types import Arrival, Claim, LeaseLost, NewerDesired, TenantTaken, Written
from services.adapters.tenant_file import TenantFile
from services.core.delivery.topic_rules import judge
from services.core.saga.intents import completed
from services.core.saga.next_move import Plans
from services.core.saga.plan import BadPlan
from services.core.saga.recovery import KnownOfKey, is_older, recovered, with_placeholder_tenant, with_record
from services.provisioner.plans import PlanBook

GROUP: Final = PROVISIONER_GROUP
"""Consumer group of `lifecycle.desired`, without the installation's prefix."""

_MODELS: Final[Mapping[str, type[Outcome | Tenant | Desired]]] = {
    OUTCOMES.name: Outcome,
    TENANTS.name: Tenant,
    DESIRED.name: Desired,
}
_BATCH: Final = 500
_KEYS_IN_TEXT: Final = 5
_ASK_S: Final = 5.0
_OLDER: Final = "the registry is older than what was said from it"
_REMEDY: Final = (
    "If DATABASE_URL is right, and a backup was restored, stop every provisioner and start one with "
    "--accept-older-registry: it looks everything up that may have been done since. Then go on without"
)
_NOT_ALONE: Final = (
    "somebody else drives it: stop every other provisioner, and start again with --accept-older-registry"
)


class Stuck(Exception):
    """The recovery cannot go on; the text has the reason and the remedy.

    Rows already written stay written, and a recovery already begun stays marked as begun.
    """


class Recovery:
    """Proof and recovery of the registry for one process."""

    def __init__(  # noqa: PLR0913 - one argument a part
        self,
        registry: Registry,
        plans: PlanBook,
        tenant_file: TenantFile,
        config: dict[str, Any],
        *,
        prefix: str,
        accept_older: bool,
        is_stopping: Callable[[], bool],
        log: Logger,
    ) -> None:
        """Prepares the proof.

        Args:
            registry: Started registry.
            plans: Plans of all lives.
            tenant_file: What an operator tells, where no event does.
            config: librdkafka's connection settings.
            prefix: Prefix of the installation's topics.
            accept_older: True to recover an older or empty registry, until the first proof without a fault.
            is_stopping: Asked during a recovery, also by another thread; True ends the recovery early.
            log: Logger of the service.
        """
        self._registry, self._plans, self._config = registry, plans, config
        self._tenant_file = tenant_file
        self._prefix, self._accept_older = prefix, accept_older
        self._is_stopping, self._log = is_stopping, log
        self._stuck = ""

    async def prove(self, note_progress: Callable[[str], None]) -> str:
        """Compares the registry with Kafka, and recovers an older registry if the operator accepted.

        Args:
            note_progress: Called with the progress of a recovery, as a sentence for `/readyz`.

        Returns:
            The reason why no saga may be driven; empty text if the registry is as new as Kafka, or is so by now.

        Raises:
            RegistryAway: the registry does not answer.
        """
        # A stuck recovery needs the operator and a new start: no second attempt in this process.
        if self._stuck:
            return self._stuck
        try:
            # Accepted by nobody: a recovery would publish into a topic that may lose records, and then count as proof.
            if wrong := await asyncio.to_thread(self._wrong_topics):
                return wrong
            fault = await self._find_fault()
            if self._accept_older and (fault or await self._registry.is_empty()):
                fault = await self._recover(note_progress)
            # Used up: a registry that is set back later needs the operator's consent again.
            self._accept_older = self._accept_older and bool(fault)
        except KafkaError as error:
            return f"not yet compared with what was said from it: {in_words(error)}"
        except Stuck as stuck:
            self._stuck = str(stuck)
            return self._stuck
        return fault

    async def _find_fault(self) -> str:
        """Returns the reason why the registry is not as new as Kafka; empty text without a reason.

        The operator's option accepts each of these reasons.
        """
        if await self._registry.is_half_recovered():
            return f"its recovery was begun and has not ended. {_REMEDY}"
        # A set-back loses the newest turns first, so the last record of each partition reveals a set-back.
        outcomes, versions = await asyncio.to_thread(self._last_records)
        heads = await self._registry.progress_of(
            [
                *(outcome.key for outcome in outcomes),
                *(desired.key for desired in versions),
            ]
        )
        for outcome in outcomes:
            counted = heads[outcome.key].seq if outcome.key in heads else 0
            # None: this release cannot read the journal, and nothing can be concluded.
            if counted is not None and counted < outcome.seq:
                return f"{_OLDER}: {outcome.key} counts {counted} outcomes, and {outcome.seq} were said. {_REMEDY}"
        # An empty registry is refused by the intake, which names a remedy of its own.
        for desired in versions if not await self._registry.is_empty() else ():
            stored = heads[desired.key].desired_version if desired.key in heads else -1
            if stored < desired.version:
                return (
                    f"{_OLDER}: of {desired.key} version {desired.version} was read, and {stored} is stored. {_REMEDY}"
                )
        return ""

    def _wrong_topics(self) -> str:
        """Returns the faults of the topics this service writes; records in a faulty topic could be lost. Blocks."""
        table = {named(topic, self._prefix): topic for topic in (OUTCOMES, AUDIT, DEAD_LETTERS)}
        with TopicWatcher(self._config, table, timeout_s=_ASK_S) as watcher:
            found = watcher.look()
        return "; ".join(judge(table, found, None).wrong.values())

    def _last_records(self) -> tuple[list[Outcome], list[Desired]]:
        """Returns the last outcome and the last committed desired version of each partition. Blocks."""
        group = self._prefix + GROUP
        outcomes = reader.last_per_partition(self._config, named(OUTCOMES, self._prefix))
        versions = reader.last_per_partition(self._config, named(DESIRED, self._prefix), group=group)
        decoded = [record for stored in outcomes if isinstance(record := self._decoded(stored), Outcome)]
        return decoded, [record for stored in versions if isinstance(record := self._decoded(stored), Desired)]

    async def _recover(self, note_progress: Callable[[str], None]) -> str:
        """Recovers the registry under the lock of recoveries.

        Args:
            note_progress: As of `prove`.

        Returns:
            Empty text after a complete recovery, or the reason why the recovery has not been completed.

        Raises:
            Stuck: the operator has to act first.
            KafkaError: Kafka could not be read.
            RegistryAway: the registry does not answer.
        """
        async with self._registry.hold_recovery_lock() as is_held:
            if not is_held:
                return "another provisioner recovers it"
            # Asked again under the lock: another process may have finished a recovery meanwhile.
            if not await self._registry.is_empty() and not await self._find_fault():
                return ""
            self._log.warning("recovery begins")
            note_progress("recovering: reading what was said")
            known_by_key, versions = await asyncio.to_thread(self._read_kafka)
            # A read that was cut short must not count as complete.
            if self._is_stopping():
                return "asked to stop"
            newest = [Arrival(version, None) for version in versions.values()]
            for first in range(0, len(newest), _BATCH):
                await self._registry.store(newest[first : first + _BATCH])
            older = await self._older(known_by_key)
            # From here on no worker claims, and every lease is void, until `end_recovery`.
            await self._registry.begin_recovery()
            keys = list(dict.fromkeys((*older, *await self._registry.unsettled_keys())))
            for number, key in enumerate(keys):
                if self._is_stopping():
                    return "asked to stop"
                if number % _BATCH == 0:
                    note_progress(f"recovering: {number} of {len(keys)} tenants")
                await self._recover_key(key, known_by_key.get(key, KnownOfKey()))
            await self._registry.end_recovery()
        self._log.warning("recovery ended", keys=len(keys), older=len(older))
        return ""

    async def _older(self, known_by_key: dict[str, KnownOfKey]) -> list[str]:
        """Returns the keys whose rows are older than Kafka, ended lives first.

        The order frees the tenantIds bound to ended lives before lives still on are bound to them.

        Raises:
            Stuck: Kafka has outcomes of keys without any desired version.
        """
        older: list[str] = []
        unknown: list[str] = []
        keys = [key for key, known in known_by_key.items() if known.generation or known.seq]
        for first in range(0, len(keys), _BATCH):
            batch = keys[first : first + _BATCH]
            heads = await self._registry.progress_of(batch)
            unknown += [key for key in batch if key not in heads]
            older += [key for key, head in heads.items() if is_older(head.seq or 0, head.generation, known_by_key[key])]
        if unknown:
            raise Stuck(
                f"of {len(unknown)} keys something was said, and no desired version is kept "
                f"({', '.join(unknown[:_KEYS_IN_TEXT])} …): have every key published again "
                "(`lifecycle ledger --republish`), then start again with --accept-older-registry"
            )
        return sorted(older, key=lambda key: not known_by_key[key].ended)

    async def _recover_key(self, key: str, known: KnownOfKey) -> None:
        """Writes the recovered journal of one key.

        Raises:
            Stuck: another process holds the row, or no tenantId is free for the life.
            RegistryAway: the registry does not answer.
        """
        try:
            claim = await self._registry.claim_one(key)
        except Unreadable as fault:
            # No worker drives an unreadable row either, so the remaining keys need not wait for a repair.
            self._log.error("row cannot be read, nor recovered: mend it, or remove it", key=key, why=str(fault))
            return
        if claim is None:
            raise Stuck(f"{key}: {_NOT_ALONE}")
        # Kafka has the outcomes up to this number; published again, they would come out of order.
        await self._registry.delete_published(key, OUTCOMES.name, known.seq)
        plans = await self._plans_of(key, claim.journal)
        journal = await self._recovered(claim, known, plans)
        while True:
            match await self._registry.write(claim, journal, (), due_in_s=0.0, release=True):
                case Written() | NewerDesired(written=True):
                    return
                case NewerDesired():
                    journal = await self._recovered(claim, known, plans)
                # Another organisation may have bound the tenantId since: the life goes on as `unknown.{integration}`.
                case TenantTaken() if journal != with_placeholder_tenant(journal, key):
                    self._log.error("its tenant is another organisation's by now", key=key)
                    journal = with_placeholder_tenant(journal, key)
                case TenantTaken():
                    raise Stuck(f"{key}: another organisation has its tenant, and the name that is nobody's too")
                case LeaseLost():
                    raise Stuck(f"{key}: {_NOT_ALONE}")

    async def _recovered(self, claim: Claim, known: KnownOfKey, plans: Plans) -> Journal:
        # A resource may be at a URL of the operator's configuration.
        desired = completed(claim.desired, await self._tenant_file.of(claim.key, time.monotonic()))
        return recovered(claim.journal, desired, known, plans, claim.now_us())

    async def _plans_of(self, key: str, journal: Journal) -> Plans:
        try:
            return await self._plans.needed_by(journal)
        except BadPlan as error:
            self._log.warning("plan of a life cannot be carried out", key=key, why=str(error))
            # A life without a plan is recovered from the steps in its journal alone.
            return self._plans.known()

    def _read_kafka(self) -> tuple[dict[str, KnownOfKey], dict[str, Desired]]:
        """Returns the facts and the newest desired version of every key in Kafka; incomplete if stopping. Blocks."""
        known_by_key: dict[str, KnownOfKey] = {}
        versions: dict[str, Desired] = {}
        for stored in reader.present_records(self._config, [self._prefix + name for name in _MODELS]):
            if self._is_stopping():
                break
            record = self._decoded(stored)
            if record is None:
                continue
            known_by_key[record.key] = with_record(known_by_key.get(record.key, KnownOfKey()), record)
            # Greater or equal: the first version of a key is compared with itself.
            if isinstance(record, Desired) and record.version >= versions.get(record.key, record).version:
                versions[record.key] = record
        return known_by_key, versions

    def _decoded(self, record: StoredRecord) -> Outcome | Tenant | Desired | None:
        """Returns the value of a record; None for a tombstone and for a record unreadable to this release."""
        try:
            return decode(_MODELS[record.topic.removeprefix(self._prefix)], record.value)
        except Unreadable:
            return None
