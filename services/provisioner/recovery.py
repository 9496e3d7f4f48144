"""Is the registry older than what was said from it? And, where an operator accepts that, the way back.

Rule: no saga is driven from a registry that was restored from a backup, before every row that may be older is in doubt:
it would give numbers out a second time and know nothing of lives that began since. What is known beside the registry is
in Kafka: `lifecycle.outcomes` and the view of the tenants.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from schemas.codec import R, Unreadable, decode
from schemas.outcome import Outcome
from schemas.saga import Journal
from schemas.tenant import Desired, Tenant
from schemas.topics import DESIRED, OUTCOMES, TENANTS, named
from services.adapters import history
from services.adapters.claims import Lost, Newer, TenantTaken, Written
from services.adapters.kafka import KafkaError
from services.adapters.logs import Logger
from services.adapters.registry import Registry
from services.core.plan import BadPlan
from services.core.recovery import Told, in_doubt, is_older, recovered, told
from services.core.saga import Plans
from services.provisioner.plans import PlanBook

_MODELS: Final[Mapping[str, type[Outcome | Tenant | Desired]]] = {
    OUTCOMES.name: Outcome,
    TENANTS.name: Tenant,
    DESIRED.name: Desired,
}
_BATCH: Final = 500
_READ_S: Final = 600.0
_PROGRESS: Final = 5_000
_NAMED: Final = 5
_BEFORE: Final = "the registry is older than what was said from it"
_WAY: Final = (
    "If DATABASE_URL is right, and a backup was restored, stop the provisioners and start one with "
    "--accept-older-registry: it looks everything up that may have been done since"
)


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
            accept: Go on with an older registry.
            log: Of the service.
        """
        self._registry, self._plans, self._config = registry, plans, config
        self._prefix, self._accept, self._log = prefix, accept, log

    async def prove(self) -> str:
        """Why no saga may be driven; empty text when the registry is as new as what was said from it, or is now.

        Raises:
            RegistryAway: it does not answer.
        """
        try:
            fault = await self._fault()
            if self._accept and (fault or await self._registry.is_empty()):
                await self._recover()
                return ""
        except KafkaError as error:
            return f"not yet compared with what was said from it: {error.reason}"
        except Stuck as stuck:
            return str(stuck)
        return fault

    async def _fault(self) -> str:
        if await self._registry.is_half_recovered():
            return f"its recovery was begun and has not ended. {_WAY}"
        records = await asyncio.to_thread(history.last, self._config, named(OUTCOMES, self._prefix))
        newest = [outcome for record in records if (outcome := _read(Outcome, record.value)) is not None]
        heads = await self._registry.heads([outcome.key for outcome in newest])
        for outcome in newest:
            seq, _ = heads.get(outcome.key, (0, 0))
            if seq < outcome.seq:
                return f"{_BEFORE}: {outcome.key} has {seq} outcomes, and {outcome.seq} were said. {_WAY}"
        return ""

    async def _recover(self) -> None:
        self._log.warning("recovery begins")
        said, versions = await asyncio.to_thread(self._heard)
        async with self._registry.recovering() as alone:
            if not alone:
                raise Stuck("another provisioner recovers it")
            wishes = list(versions.values())
            for first in range(0, len(wishes), _BATCH):
                await self._registry.store(wishes[first : first + _BATCH])
            older = await self._older(said)
            keys = [*older, *(key for key in await self._registry.under_way() if key not in older)]
            for number, key in enumerate(keys, 1):
                await self._one(key, older.get(key))
                if number % _PROGRESS == 0:
                    self._log.info("recovering", done=number, of=len(keys))
        self._log.warning("recovered", keys=len(keys), older=len(older))

    async def _older(self, said: dict[str, Told]) -> dict[str, Told]:
        """What was said of each key whose row is older; those whose tenants are gone first, to free their names."""
        older: dict[str, Told] = {}
        unknown: list[str] = []
        every = list(said)
        for first in range(0, len(every), _BATCH):
            batch = every[first : first + _BATCH]
            heads = await self._registry.heads(batch)
            for key in batch:
                if key in heads and is_older(*heads[key], said[key]):
                    older[key] = said[key]
                elif key not in heads and said[key].generation:
                    unknown.append(key)
        if unknown:
            raise Stuck(
                f"{len(unknown)} keys had lives, and no desired version is kept of them "
                f"({', '.join(unknown[:_NAMED])} …): have every key published again (`lifecycle ledger --republish`), "
                "then start again with --accept-older-registry"
            )
        return dict(sorted(older.items(), key=lambda item: not item[1].ended))

    async def _one(self, key: str, said: Told | None) -> None:
        claim = await self._registry.claim_one(key)
        if claim is None:
            raise Stuck(f"{key}: another worker drives it: stop every other provisioner")
        plans = await self._plans_of(claim.journal)
        while True:
            if said is None:
                journal = in_doubt(claim.journal, plans, claim.now_us())
            else:
                journal = recovered(claim.journal, claim.desired, said, plans, claim.now_us())
            match await self._registry.write(claim, journal, (), due_in_s=0.0, release=True):
                case Written() | Newer(written=True):
                    return
                case Newer():
                    continue
                case Lost():
                    raise Stuck(f"{key}: another worker drives it: stop every other provisioner")
                case TenantTaken():
                    raise Stuck(
                        f"{key}: by this registry another organisation has its tenant; mend one of them by hand"
                    )

    async def _plans_of(self, journal: Journal) -> Plans:
        try:
            return await self._plans.needed_by(journal)
        except BadPlan as error:
            self._log.warning("plan of a life cannot be carried out", why=str(error))
            return await self._plans.needed_by(Journal())

    def _heard(self) -> tuple[dict[str, Told], dict[str, Desired]]:
        """What Kafka still has of every key, and the newest desired versions. Blocks."""
        outcomes: dict[str, Outcome] = {}
        tenants: dict[str, Tenant] = {}
        versions: dict[str, Desired] = {}
        topics = [self._prefix + name for name in _MODELS]
        for record in history.present(self._config, topics, timeout_s=_READ_S):
            match _read(_MODELS[record.topic.removeprefix(self._prefix)], record.value):
                case Outcome() as outcome if outcome.seq >= outcomes.get(outcome.key, outcome).seq:
                    outcomes[outcome.key] = outcome
                case Tenant() as tenant if tenant.version >= tenants.get(tenant.key, tenant).version:
                    tenants[tenant.key] = tenant
                case Desired() as desired if desired.version >= versions.get(desired.key, desired).version:
                    versions[desired.key] = desired
        keys = dict.fromkeys((*outcomes, *tenants))
        return {key: told(outcomes.get(key), tenants.get(key)) for key in keys}, versions


def _read(model: type[R], value: bytes | None) -> R | None:
    try:
        return decode(model, value)
    except Unreadable:
        return None
