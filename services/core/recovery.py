"""A registry that is older than what was said from it: what is still known of a key, and the journal it goes on with.

Rule: what happened since is unknown, so nothing of a life counts as known: every step is looked up outside before it is
touched, and only a desired version that says so removes anything. Numbers that may have been used since (`seq`,
intents, audit lines) go on at the time in seconds, which none of them has reached by counting.
"""

from dataclasses import dataclass
from typing import Final

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Life, Phase, Presence, StepLog, Sweep
from schemas.tenant import Desired, Stage, Tenant
from schemas.values import Json, TenantId
from services.core.saga import Plans
from services.core.saga_marks import sweep_of

_ENDS: Final = frozenset({(Direction.DOWN, State.DONE), (Direction.UP, State.ROLLED_BACK)})
_ENDED: Final = frozenset({Stage.DEPROVISIONED, Stage.PROVISIONING_ROLLED_BACK})
_BEFORE_A_LIFE: Final = frozenset({"tenant_conflict", "tenant_unknown"})


@dataclass(frozen=True, slots=True)
class Told:
    """What was said of a key last.

    Attributes:
        seq: Of the newest outcome that Kafka has; 0 where it has none.
        generation: The newest known.
        ended: That generation is over.
        tenant_id: As the view has it.
        configuration: Published names, as the view has it.
    """

    seq: int
    generation: int
    ended: bool
    tenant_id: TenantId | None
    configuration: Json


def told(outcome: Outcome | None, tenant: Tenant | None) -> Told:
    """What the newest outcome and the view of a key tell together; an outcome is the newer of the two.

    Args:
        outcome: Of the greatest `seq`.
        tenant: Of the greatest `version`.
    """
    generation = tenant.generation if tenant else 0
    ended = tenant is not None and tenant.stage in _ENDED
    if outcome is not None and outcome.generation >= generation:
        generation = outcome.generation
        held = outcome.state is State.HELD and outcome.reason in _BEFORE_A_LIFE
        ended = held or (outcome.direction, outcome.state) in _ENDS
    return Told(
        seq=outcome.seq if outcome else 0,
        generation=generation,
        ended=ended,
        tenant_id=tenant.tenant_id if tenant else None,
        configuration=(tenant.configuration if tenant else None) or {},
    )


def is_older(seq: int, generation: int, said: Told) -> bool:
    """Whether a row whose journal has this `seq` and `generation` was written before what was said."""
    return seq < said.seq or generation < said.generation


def in_doubt(journal: Journal, plans: Plans, now_us: int) -> Journal:
    """The journal of a row that is not known to be older: where it stood, with nothing of it taken for known."""
    floor = now_us // 1_000_000
    life = journal.life and _doubted(journal.life, plans, {}, floor)
    return _renumbered(journal.model_copy(update={"life": life}), floor)


def recovered(journal: Journal, desired: Desired, said: Told, plans: Plans, now_us: int) -> Journal:
    """The journal that an older row goes on with; the newest desired version is taken up by it at once.

    Args:
        journal: As the row has it.
        desired: The newest known.
        said: Newer than the journal.
        plans: Of its lives, and the one for lives that began since.
        now_us: Microseconds UTC.
    """
    floor = now_us // 1_000_000
    known = _known(journal, desired, said)
    lives = _lives(journal, desired, said, plans)
    doubted = [_doubted(life, plans, known, floor, good=None, reissue=()) for life in lives]
    on = doubted.pop() if doubted and not said.ended else None
    after = journal.model_copy(
        update={
            "phase": Phase.ACTIVE if on else Phase.EMPTY,
            "generation": max(journal.generation, said.generation),
            "life": on,
            "target": None,
            "seen": -1,
            "turned_at": now_us,
            "failure": None,
            "held": None,
            "told": None,
            "sweeps": (*journal.sweeps, *(sweep_of(life, plans.of(life), now_us) for life in doubted)),
            "seq": max(journal.seq, said.seq),
        }
    )
    return _renumbered(after, floor)


def _lives(journal: Journal, desired: Desired, said: Told, plans: Plans) -> list[Life]:
    """The life that was on, and the newest where that is another one, which began since."""
    before = [journal.life] if journal.life else []
    if said.generation <= journal.generation:
        return before
    former = journal.life.tenant_id if journal.life else None
    nobodys = f"unknown.{desired.key.partition(':')[2]}"
    tenant_id = said.tenant_id or desired.tenant_id or former or nobodys
    return [*before, Life(generation=said.generation, plan=plans.current.digest, tenant_id=tenant_id)]


def _known(journal: Journal, desired: Desired, said: Told) -> Json:
    """The best that is known of what steps were given: where an endpoint was is needed to look there."""
    known: Json = {}
    for log in journal.life.steps.values() if journal.life else ():
        known |= log.inputs.get("configuration", {})
    return {"configuration": known | said.configuration | desired.configuration, "enabled": desired.enabled}


def _doubted(life: Life, plans: Plans, known: Json, floor: int, **change: object) -> Life:
    nothing = StepLog(inputs=known)
    steps = {step.name: _doubt(life.steps.get(step.name, nothing), floor) for step in plans.of(life).steps}
    return life.model_copy(update={"steps": steps, **change})


def _doubt(log: StepLog, floor: int) -> StepLog:
    return StepLog(
        n=max(log.n, floor),
        inputs=log.inputs,
        outputs=log.outputs,
        former=log.former,
        place=log.place,
        places=log.places,
        there=Presence.MAYBE,
    )


def _renumbered(journal: Journal, floor: int) -> Journal:
    sweeps = tuple(_renumbered_sweep(sweep, floor) for sweep in journal.sweeps)
    return journal.model_copy(
        update={"sweeps": sweeps, "seq": max(journal.seq, floor), "lines": max(journal.lines, floor)}
    )


def _renumbered_sweep(sweep: Sweep, floor: int) -> Sweep:
    steps = {name: log.model_copy(update={"n": max(log.n, floor)}) for name, log in sweep.life.steps.items()}
    return sweep.model_copy(update={"life": sweep.life.model_copy(update={"steps": steps})})
