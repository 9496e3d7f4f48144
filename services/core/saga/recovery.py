"""A registry that is older than what was said from it: what is still known of a key, and the journal it goes on with.

Rule: what happened since is unknown, so every step of a life is in doubt, and only a desired version that says so
removes anything. A life that was once whole is never compensated. Numbers that may have been used since (`seq`,
intents, audit lines) go on at the time in seconds, which none of them has reached by counting.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Life, Phase, Presence, StepLog, Sweep
from schemas.tenant import Desired, Stage, Tenant
from schemas.values import Json, TenantId
from services.core.saga.intents import places_of, sweep_of
from services.core.saga.next_move import Plans, wish
from services.core.saga.plan import Plan
from services.core.saga.references import used_configuration

CONFIGURATIONS: Final = 2
"""How many of a key are remembered: the view's, and the newest that was wished and is not empty."""

_ENDS: Final = frozenset({(Direction.DOWN, State.DONE), (Direction.UP, State.ROLLED_BACK)})
_ENDED: Final = frozenset({Stage.DEPROVISIONED, Stage.PROVISIONING_ROLLED_BACK})
_BEFORE_A_LIFE: Final = frozenset({"tenant_conflict", "tenant_unknown"})


@dataclass(frozen=True, slots=True)
class KnownOfKey:
    """What was said of a key.

    Attributes:
        seq: Of the newest outcome that Kafka has; 0 where it has none.
        generation: The newest known; 0 before the first.
        ended: That generation is over.
        whole: Everything of that generation was there once.
        tenant_id: That its newest life is bound to, or as its newest `installed` named it.
        configurations: The view's, and the newest wished one; not those of who is uninstalled, which are empty.
    """

    seq: int = 0
    generation: int = 0
    ended: bool = False
    whole: bool = False
    tenant_id: TenantId | None = None
    configurations: tuple[Json, ...] = ()


def with_record(told: KnownOfKey, said: Outcome | Tenant | Desired) -> KnownOfKey:
    """What is known of a key after one more record of it, in any order of topics; outcomes in the order of `seq`."""
    match said:
        case Outcome():
            return _after_outcome(told, said)
        case Tenant():
            known = replace(_after_view(told, said), tenant_id=_bound(told, said))
            return _with_configuration(known, said.configuration, newest=False)
        case Desired():
            return _with_configuration(told, said.configuration, newest=True)


def _after_outcome(told: KnownOfKey, said: Outcome) -> KnownOfKey:
    if said.seq < told.seq or said.generation < told.generation:
        return replace(told, seq=max(told.seq, said.seq))
    whole = (said.direction, said.state) == (Direction.UP, State.DONE)
    held = said.state is State.HELD and said.reason in _BEFORE_A_LIFE
    return replace(
        told,
        seq=said.seq,
        generation=said.generation,
        tenant_id=said.tenant_id or told.tenant_id,
        ended=held or (said.direction, said.state) in _ENDS,
        whole=whole or (told.whole and said.generation == told.generation),
    )


def _after_view(told: KnownOfKey, said: Tenant) -> KnownOfKey:
    if said.generation < told.generation:
        return told
    same = said.generation == told.generation
    return replace(
        told,
        generation=said.generation,
        ended=told.ended if same and told.seq else said.stage in _ENDED,
        whole=said.stage is Stage.ACTIVE or (same and told.whole),
    )


def _bound(told: KnownOfKey, said: Tenant) -> TenantId | None:
    """The view follows the outcomes: one of a former generation knows nothing of the newest life's binding."""
    if said.generation < told.generation:
        return told.tenant_id or said.tenant_id
    return said.tenant_id or told.tenant_id


def _with_configuration(told: KnownOfKey, configuration: Json | None, *, newest: bool) -> KnownOfKey:
    if not configuration:
        return told
    others = tuple(one for one in told.configurations if one != configuration)
    known = (*others, configuration) if newest else (configuration, *others)
    return replace(told, configurations=known[-CONFIGURATIONS:])


def is_older(seq: int, generation: int, told: KnownOfKey) -> bool:
    """Whether a row that counts so many outcomes and lives was written before what was told."""
    return seq < told.seq or generation < told.generation


def recovered(journal: Journal, desired: Desired, told: KnownOfKey, plans: Plans, now_us: int) -> Journal:
    """The journal that a row goes on with; where it is older, the newest desired version is taken up at once.

    Args:
        journal: As the row has it.
        desired: The newest known.
        told: Of the key; not newer than the journal where the row is merely in the middle of something.
        plans: Of its lives, and the one for lives that began since.
        now_us: Microseconds UTC.
    """
    doubt = _Doubt(plans, desired, told, now_us // 1_000_000)
    if not is_older(journal.seq, journal.generation, told):
        return doubt.renumbered(journal.model_copy(update={"life": journal.life and doubt.of(journal.life)}))
    lives = [doubt.of(life) for life in _lives(journal, desired, told, plans)]
    on = lives.pop() if lives and not told.ended else None
    if on is not None and on.good is None and told.whole:
        # What it was like then is not known; that it must not be compensated is.
        on = on.model_copy(update={"good": doubt.like(doubt.newest)})
    after = journal.model_copy(
        update={
            "phase": Phase.EMPTY if on is None else Phase.ACTIVE if on.good else Phase.CREATING,
            "generation": max(journal.generation, told.generation),
            "life": on,
            "target": None,
            "turned_at": now_us,
            "failure": None,
            "standstill": None,
            "held": None,
            "told": None,
            "sweeps": (*journal.sweeps, *(doubt.sweep_of(life, now_us) for life in lives)),
            "seq": max(journal.seq, told.seq),
        }
    )
    return doubt.renumbered(after)


def nobodys(journal: Journal, key: str) -> Journal:
    """The journal under a tenantId that is nobody's, where another organisation has the one that was named."""
    life = journal.life and journal.life.model_copy(update={"tenant_id": _nobodys(key)})
    return journal.model_copy(update={"life": life})


def _nobodys(key: str) -> TenantId:
    return f"unknown.{key.partition(':')[2]}"


def _lives(journal: Journal, desired: Desired, told: KnownOfKey, plans: Plans) -> list[Life]:
    """The life that was on, and the newest where that is another one, which began since."""
    before = [journal.life] if journal.life else []
    if told.generation <= journal.generation:
        return before
    former = journal.life.tenant_id if journal.life else None
    tenant_id = told.tenant_id or desired.tenant_id or former or _nobodys(desired.key)
    return [*before, Life(generation=told.generation, plan=plans.current.digest, tenant_id=tenant_id)]


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Puts the lives of one key in doubt."""

    plans: Plans
    desired: Desired
    told: KnownOfKey
    floor: int

    @property
    def newest(self) -> Json:
        """The configuration that is the likeliest to be in force."""
        return self.desired.configuration or (self.told.configurations[-1] if self.told.configurations else {})

    def like(self, configuration: Json) -> Desired:
        """A version that wished this, older than any."""
        return self.desired.model_copy(update={"version": 0, "installed": True, "configuration": configuration})

    def of(self, life: Life) -> Life:
        """The life with every step that it may have begun in doubt, wherever it may be by now."""
        plan = self.plans.known(life)
        logs = {name: self._log(log) for name, log in life.steps.items()}
        for step in plan.steps if plan else ():
            used = used_configuration(step.settings, self.newest)
            first = StepLog(inputs={"configuration": used, "enabled": True})
            log = logs.get(step.name) or self._log(first)
            seen = (wish(life, step, self.like(configuration))[3] for configuration in self._configurations())
            logs[step.name] = log.model_copy(update={"places": _together(log, seen)})
        order = [step.name for step in plan.steps] if plan else []
        names = dict.fromkeys((*order, *logs))
        return life.model_copy(update={"steps": {name: logs[name] for name in names}, "reissue": ()})

    def sweep_of(self, life: Life, now_us: int) -> Sweep:
        """What is to be looked up again of a life that is over."""
        plan: Plan | None = self.plans.known(life)
        return sweep_of(life, plan, now_us) if plan else Sweep(due_at=now_us, life=life)

    def renumbered(self, journal: Journal) -> Journal:
        """The journal with numbers that were never used."""
        sweeps = tuple(
            sweep.model_copy(update={"life": sweep.life.model_copy(update={"steps": self._above(sweep.life)})})
            for sweep in journal.sweeps
        )
        above = {"seq": max(journal.seq, self.floor), "lines": max(journal.lines, self.floor)}
        return journal.model_copy(update={"sweeps": sweeps, **above})

    def _configurations(self) -> Iterable[Json]:
        return [one for one in (*self.told.configurations, self.desired.configuration) if one]

    def _above(self, life: Life) -> dict[str, StepLog]:
        return {name: log.model_copy(update={"n": max(log.n, self.floor)}) for name, log in life.steps.items()}

    def _log(self, log: StepLog) -> StepLog:
        return StepLog(
            n=max(log.n, self.floor),
            inputs=log.inputs,
            outputs=log.outputs,
            former=log.former,
            place=log.place,
            places=log.places,
            there=Presence.MAYBE,
            doubted=True,
        )


def _together(log: StepLog, places: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*places_of(log), *(place for place in places if place is not None))))
