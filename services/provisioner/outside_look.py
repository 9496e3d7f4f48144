"""A look at the outside systems for operators: missing resources of a life, and resources of ended lives.

Rule: a look reads and changes nothing. The resources are asked for by name, through the read verb of their kinds, as
the saga does before a repeated call.

A step whose system was in trouble `TROUBLES_MAX` times in a row is not asked any more: a system that is away would
otherwise cost the timeout of every tenant.
"""

import asyncio
from collections import Counter
from collections.abc import Collection
from typing import Final, Protocol, runtime_checkable

from schemas.saga import Journal, Life, Phase
from schemas.saga_row import SagaRow
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import Registry
from services.adapters.secrets import keyring
from services.adapters.secrets.sealing import Sealer
from services.core.reconcile.three_views import Orphan, OutsideSight
from services.core.saga.calls import Absent, Answer, Call, Done
from services.core.saga.ended_lives import ended_lives, is_over, lookable, present_steps, with_life
from services.core.saga.moves import LookUp
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan, Plan, Step
from services.provisioner import kinds
from services.provisioner.caller import Caller
from services.provisioner.kinds.step_kind import StepKind
from services.provisioner.plans import PlanBook, plan_text, settings_for_plans

CALLS_AT_ONCE: Final = 16
"""Requests at once: few enough to be no load for the systems, many enough for 1,000 tenants a minute."""
TROUBLES_MAX: Final = 3
_EPOCH: Final = 0
"""Epoch of a look: no system and no fence takes it for a call of the present worker."""


@runtime_checkable
class _ListsLives(Protocol):
    """A kind that can list the lives of all its resources."""

    async def lives(self) -> list[tuple[str, int]]:
        """Returns key and generation of every resource."""


class OutsideLook:
    """Looks up resources by name. Use from one event loop; the caller closes."""

    def __init__(self, settings: ProvisionerSettings, registry: Registry, log: Logger) -> None:
        """Builds the kinds; nothing connects yet.

        Args:
            settings: Settings of the provisioner: plan, systems, credentials, keyring.
            registry: An open registry, for the plans of the lives.
            log: Takes errors that no kind foresaw.

        Raises:
            Unusable: a setting, the keyring or the plan cannot be used.
        """
        text = plan_text(settings, kinds.TRAITS)
        material = keyring.material(settings.keyring_file)
        self._plans = PlanBook(
            registry, text=text, kinds=kinds.TRAITS, settings=settings_for_plans(settings), pace=Pace()
        )
        self._kinds: dict[str, StepKind] = kinds.build(settings, log)
        self._caller = Caller(self._kinds, kinds.TRAITS, Sealer(material.outputs), keyring.raw(material.audit[0]), log)
        self._gate = asyncio.Semaphore(CALLS_AT_ONCE)
        self._troubles = Counter[str]()
        self._listed: dict[str, set[tuple[int, str]]] = {}

    @property
    def plan(self) -> Plan:
        """Returns the plan by which ended lives are looked up."""
        return self._plans.known().current

    @property
    def caller(self) -> Caller:
        """Returns the caller of the look."""
        return self._caller

    async def close(self) -> None:
        """Closes the connections of the kinds."""
        for kind in self._kinds.values():
            await kind.close()

    async def list_lives(self) -> None:
        """Asks the kinds that can list all their lives; call before the registry is read.

        A life that begins later is then in no list. A kind in trouble lists nothing.
        """
        for step in lookable(self.plan):
            kind = self._kinds[step.kind]
            if isinstance(kind, _ListsLives):
                for key, generation in await kind.lives():
                    self._listed.setdefault(key, set()).add((generation, step.name))

    async def look(self, row: SagaRow) -> OutsideSight:
        """Looks up the resources of a key: those of the present life, and of its ended lives."""
        journal = row.journal
        try:
            plans = await self._plans.needed_by(journal)
        except BadPlan as error:
            return OutsideSight(unread={"plan": error.faults[0]})
        life = journal.life
        # While a life is made or removed, the journal is ahead of the systems or behind them: only rest is compared.
        steps = present_steps(plans.of(life), life) if life is not None and journal.phase is Phase.ACTIVE else []
        here = await self._each(row.key, journal, [(life, step) for step in steps] if life else [])
        ended = [(over, step) for over in ended_lives(journal, self.plan, row.key) for step in lookable(self.plan)]
        left = await self._each(row.key, journal, ended)
        found = {(over.generation, step.name) for (over, step), answer in left if isinstance(answer, Done)}
        listed = self._listed.get(row.key, set())
        over = found | {one for one in listed if is_over(journal, one[0])}
        # The registry is older than what was done from it: nothing may be removed by its word.
        newer = [one for one in sorted(listed) if one[0] > journal.generation]
        return OutsideSight(
            missing=tuple(step.name for (_, step), answer in here if isinstance(answer, Absent)),
            unread={
                **{step.name: fault for (_, step), answer in here if (fault := _fault(answer))},
                **{
                    f"{step.name} of generation {over.generation}": fault
                    for (over, step), answer in left
                    if (fault := _fault(answer))
                },
            },
            orphans=(
                *(Orphan(row.key, generation, step) for generation, step in sorted(over)),
                *(Orphan(row.key, generation, step, removable=False) for generation, step in newer),
            ),
        )

    def strangers(self, known: Collection[str]) -> tuple[Orphan, ...]:
        """Returns the listed resources of keys that the registry does not have; nobody can remove these by a saga.

        Args:
            known: All keys of the registry.
        """
        return tuple(
            Orphan(key, generation, step, removable=False)
            for key, lives in sorted(self._listed.items())
            for generation, step in sorted(lives)
            if key not in known
        )

    async def _each(
        self, key: str, journal: Journal, wanted: list[tuple[Life, Step]]
    ) -> list[tuple[tuple[Life, Step], Answer | str]]:
        answers = await asyncio.gather(*(self.ask(key, journal, life, step) for life, step in wanted))
        return list(zip(wanted, answers, strict=True))

    async def ask(self, key: str, journal: Journal, life: Life, step: Step) -> Answer | str:
        """Looks one resource up; returns the answer, or why the system is not asked any more.

        Args:
            key: `orgId:integrationId`.
            journal: A journal of the key, for the call alone.
            life: The life of the resource, with the log of the step.
            step: The step.
        """
        move = LookUp(life.generation, step, life.steps[step.name].n)
        call = self._caller.prepare(key, _EPOCH, with_life(journal, life), move)
        if not isinstance(call, Call):
            return call
        async with self._gate:
            if self._troubles[step.name] >= TROUBLES_MAX:
                return f"not asked, after trouble {TROUBLES_MAX} times"
            answer = await self._caller.call(call)
        self._troubles[step.name] = 0 if isinstance(answer, Done | Absent) else self._troubles[step.name] + 1
        return answer


def _fault(answer: Answer | str) -> str:
    """Returns why an answer shows nothing; empty for an answer that does."""
    if isinstance(answer, Done | Absent):
        return ""
    return answer if isinstance(answer, str) else answer.reason
