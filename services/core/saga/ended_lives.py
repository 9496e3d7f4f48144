"""Ended lives of a key, to be looked up outside by name: what a zombie or a restored system left behind.

Problem: an ended life is checked once, a minute after its end. A call that takes effect later, an outside system
restored from a backup, and a restored database of the tenants leave resources that no journal knows.

Approach: the names of all resources follow from key and generation. `ended_lives` builds, for every generation that is
over, a life whose steps are in doubt; the caller looks each step up. A resource that is found is an orphan, and
`condemned` schedules the check of the saga itself, which looks again and deletes.

Rule: nothing is removed but by the saga's own orphan check, under its lease, its epoch and its intents.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from schemas.audit import Audit, OperatorAct
from schemas.saga import Journal, Life, OrphanCheck, StepLog, StepState
from schemas.values import Json
from services.core.ledger import audit
from services.core.saga.intents import locations_of
from services.core.saga.plan import Plan, Step, UndoBy
from services.core.saga.references import used_configuration
from services.core.saga.step_transitions import NOT_MADE

GENERATIONS_MOST: Final = 20
"""Ended generations of a key that are looked up, the newest first: a key that is installed and uninstalled for years
must not cost thousands of requests."""


@dataclass(frozen=True, slots=True)
class CondemnedOrphans:
    """The content of the commit that asks for the removal of orphans of one key.

    Attributes:
        journal: The journal to write.
        line: The audit line of the operator's act.
    """

    journal: Journal
    line: Audit


def is_over(journal: Journal, generation: int) -> bool:
    """True if a generation of the key is over, and no orphan check of its own is still to come.

    The resources of a released generation are the vendor's, and nobody's orphans.
    """
    alive = journal.life.generation if journal.life else None
    others = {alive, *journal.forgotten, *(check.life.generation for check in journal.orphan_checks)}
    return 0 < generation <= journal.generation and generation not in others


def ended_lives(journal: Journal, plan: Plan, key: str) -> list[Life]:
    """Returns a life to look up for each ended generation, the newest first.

    The journal keeps no inputs of an ended life. The url of a resource is taken from the configurations that the
    journal still has; without one, a step whose url comes from the configuration cannot be looked up.

    Args:
        journal: The journal of the key.
        plan: The current plan.
        key: `orgId:integrationId`.
    """
    over = [number for number in range(journal.generation, 0, -1) if is_over(journal, number)]
    return [_ended_life(journal, plan, key, generation) for generation in over[:GENERATIONS_MOST]]


def with_life(journal: Journal, life: Life) -> Journal:
    """Returns the journal with an ended life, for a call about the life; the result is never written."""
    if life is journal.life:
        return journal
    return journal.model_copy(update={"orphan_checks": (OrphanCheck(due_at=0, life=life),)})


def lookable(plan: Plan) -> list[Step]:
    """Returns the steps of a plan whose resources can be orphans, in the order of creation."""
    return [
        step for step in plan.steps if step.undo is not UndoBy.NOTHING and not step.traits.left_behind_of(step.settings)
    ]


def present_steps(plan: Plan, life: Life) -> list[Step]:
    """Returns the lookable steps of a life that have, by the journal, a resource outside, in the order of creation.

    Left out is a step without a URL, as the CRM of a tenant without `crmEndpoint`: done, with nothing made anywhere.
    """
    return [
        step
        for step in lookable(plan)
        if (log := life.steps.get(step.name)) is not None
        and log.state not in NOT_MADE
        and ("url" not in step.settings or locations_of(log))
    ]


def condemned(
    journal: Journal,
    plan: Plan,
    key: str,
    orphans: Mapping[int, Collection[str]],
    act: OperatorAct,
    *,
    now_us: int,
    material: bytes,
) -> CondemnedOrphans | None:
    """Returns the commit that schedules an orphan check for the orphans of one key; None if a generation is not over.

    Args:
        journal: The journal as last written.
        plan: The plan of the look.
        key: `orgId:integrationId`.
        orphans: Generation to the steps whose resources were found.
        act: The operator's act.
        now_us: Microseconds UTC.
        material: The newest key of `material.audit`.
    """
    if not all(is_over(journal, generation) for generation in orphans):
        return None
    checks = tuple(
        OrphanCheck(due_at=now_us, life=_found_only(_ended_life(journal, plan, key, generation), steps, now_us))
        for generation, steps in sorted(orphans.items())
    )
    number = journal.lines + 1
    told = ", ".join(f"{step} of generation {number}" for number, steps in sorted(orphans.items()) for step in steps)
    line = audit.line(
        line_id=f"{key}/orphans_removal/{number}",
        key=key,
        what="orphans_removal",
        verdict="asked",
        why=f"an orphan check looks for {told}",
        at_us=now_us,
        material=material,
        act=act,
    )
    after = journal.model_copy(update={"orphan_checks": (*journal.orphan_checks, *checks), "lines": number})
    return CondemnedOrphans(after, line)


def _ended_life(journal: Journal, plan: Plan, key: str, generation: int) -> Life:
    configuration = _configuration(journal)
    steps = {
        step.name: StepLog(
            inputs={"configuration": used_configuration(step.settings, configuration), "enabled": True},
            locations=_locations(journal, step.name),
            state=StepState.IN_DOUBT,
        )
        for step in lookable(plan)
    }
    tenant_id = journal.life.tenant_id if journal.life else journal.target.tenant_id if journal.target else None
    name = tenant_id or f"unknown.{key.partition(':')[2]}"
    return Life(generation=generation, plan=plan.digest, tenant_id=name, steps=steps)


def _configuration(journal: Journal) -> Json:
    known = (journal.target, journal.life.last_applied if journal.life else None)
    return next((desired.configuration for desired in known if desired and desired.configuration), {})


def _locations(journal: Journal, step: str) -> tuple[str, ...]:
    """Returns the urls of the present life's resource: the resource of an earlier life was probably beside it."""
    log = journal.life.steps.get(step) if journal.life else None
    return locations_of(log) if log else ()


def _found_only(life: Life, steps: Collection[str], now_us: int) -> Life:
    """Returns the life with the found resources in doubt, and numbers that no earlier call of the life has used."""
    floor = now_us // 1_000_000
    logs = {
        name: log.model_copy(update={"n": floor} if name in steps else {"state": StepState.ABSENT})
        for name, log in life.steps.items()
    }
    return life.model_copy(update={"steps": logs})
