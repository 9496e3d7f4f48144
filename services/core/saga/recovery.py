"""Recovery of a registry restored from a backup: the journals to continue with.

Problem: a restored registry is older than the outcomes already published from it. The calls made since the backup are
in no journal. If the saga simply went on, the provisioner would give out idempotency keys and outcome numbers a second
time, and the schema and the tokens of a life begun since the backup would be left without an owner.

Approach: Kafka still has the published outcomes, the view of the tenants and the desired versions. `with_record` folds
these records into a `KnownOfKey`, and `recovered` rewrites a journal with the knowledge.

Invariants:
- Every step of every life is put in doubt (`unverified`): a look-up by name comes before any create, update or delete.
- Only a desired version that says "uninstalled" removes anything. A life that was ever complete gets a `last_applied`
  version and continues in the phase ACTIVE: an active life is never compensated. A life in its teardown counts as once
  complete, since the brake on removals asks for such lives alone, and the outcome that told the completion may be
  older than the topic keeps.
- Numbers possibly used since the backup (`seq`, intents `n`, audit lines) continue at the time in seconds since 1970.
  Counting from 0 never reaches such a number, and no number is given out twice.

Background: docs/decisions/0021.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from schemas.outcome import Direction, Outcome, State
from schemas.saga import Journal, Life, OrphanCheck, Phase, StepLog, StepState
from schemas.tenant import Desired, Stage, Tenant
from schemas.values import Json, TenantId
from services.core.saga.intents import locations_of, orphan_check_of
from services.core.saga.next_move import RELEASED, Plans, desired_inputs
from services.core.saga.plan import Plan
from services.core.saga.references import used_configuration

CONFIGURATIONS: Final = 2
"""Configurations kept per key: the configuration of the view, and the newest desired one that is not empty."""

_ENDS: Final = frozenset({(Direction.DOWN, State.DONE), (Direction.UP, State.ROLLED_BACK)})
"""Outcomes that end a generation."""
_ENDED: Final = frozenset({Stage.DEPROVISIONED, Stage.PROVISIONING_ROLLED_BACK})
"""Stages of a key without a current life."""
_WHOLE: Final = frozenset({(Direction.UP, State.DONE), (Direction.DOWN, State.WORKING)})
"""Outcomes of a generation that counts as once complete."""
_WHOLE_STAGES: Final = frozenset({Stage.ACTIVE, Stage.DEPROVISIONING})
"""Stages of such a generation."""
_BEFORE_A_LIFE: Final = frozenset({"tenant_conflict", "tenant_unknown", RELEASED})
"""Reasons of a held version that has not begun a life."""


@dataclass(frozen=True, slots=True)
class KnownOfKey:
    """Knowledge about one key from the records in Kafka.

    Attributes:
        seq: Number of the newest outcome in Kafka; 0 if Kafka has no outcome.
        generation: Newest known generation; 0 before the first.
        ended: True if the newest known generation is over.
        whole: True if the newest known generation was ever complete, or is known only from its teardown.
        tenant_id: tenantId of the newest life; without a known binding the tenantId of the newest `installed`.
        configurations: Configuration of the view, then the newest desired one. An uninstalled key has an empty
            configuration, and an empty one is never kept.
        released: True if an operator has released the newest known generation.
    """

    seq: int = 0
    generation: int = 0
    ended: bool = False
    whole: bool = False
    tenant_id: TenantId | None = None
    configurations: tuple[Json, ...] = ()
    released: bool = False


def with_record(known: KnownOfKey, record: Outcome | Tenant | Desired) -> KnownOfKey:
    """Returns the knowledge about a key with one more record.

    Args:
        known: The knowledge before the record.
        record: A record of the key. The topics may be read in any order; outcomes come in the order of `seq`.
    """
    match record:
        case Outcome():
            return _after_outcome(known, record)
        case Tenant():
            after = replace(_after_view(known, record), tenant_id=_bound(known, record))
            return _with_configuration(after, record.configuration, newest=False)
        case Desired():
            return _with_configuration(known, record.configuration, newest=True)


def _after_outcome(known: KnownOfKey, outcome: Outcome) -> KnownOfKey:
    # Delivery is at least once, so an older outcome may come again.
    if outcome.seq < known.seq or outcome.generation < known.generation:
        return replace(known, seq=max(known.seq, outcome.seq))
    whole = (outcome.direction, outcome.state) in _WHOLE
    held = outcome.state is State.HELD and outcome.reason in _BEFORE_A_LIFE
    return replace(
        known,
        seq=outcome.seq,
        generation=outcome.generation,
        tenant_id=outcome.tenant_id or known.tenant_id,
        ended=held or (outcome.direction, outcome.state) in _ENDS,
        whole=whole or (known.whole and outcome.generation == known.generation),
        # A generation that was adopted again is `up`, and no outcome calls it released any more.
        released=outcome.reason == RELEASED,
    )


def _after_view(known: KnownOfKey, view: Tenant) -> KnownOfKey:
    if view.generation < known.generation:
        return known
    same = view.generation == known.generation
    return replace(
        known,
        generation=view.generation,
        # The view follows the outcomes with a delay, so an outcome of the same generation is the better source.
        ended=known.ended if same and known.seq else view.stage in _ENDED,
        whole=view.stage in _WHOLE_STAGES or (same and known.whole),
        released=known.released if same and known.seq else view.reason == RELEASED,
    )


def _bound(known: KnownOfKey, view: Tenant) -> TenantId | None:
    """Returns the tenantId of the newest life; a view of a former generation has no say, only a fallback."""
    if view.generation < known.generation:
        return known.tenant_id or view.tenant_id
    return view.tenant_id or known.tenant_id


def _with_configuration(known: KnownOfKey, configuration: Json | None, *, newest: bool) -> KnownOfKey:
    if not configuration:
        return known
    others = tuple(other for other in known.configurations if other != configuration)
    # The newest desired configuration stands last, and the cut below drops the first.
    kept = (*others, configuration) if newest else (configuration, *others)
    return replace(known, configurations=kept[-CONFIGURATIONS:])


def is_older(seq: int, generation: int, known: KnownOfKey) -> bool:
    """True if a registry row was written before the newest published records of the key.

    Args:
        seq: Outcomes counted by the row.
        generation: Newest generation of the row.
        known: The knowledge about the key from Kafka.
    """
    return seq < known.seq or generation < known.generation


def recovered(journal: Journal, desired: Desired, known: KnownOfKey, plans: Plans, now_us: int) -> Journal:
    """Returns the journal to continue with after a recovery.

    If the row is older than the published records, the journal has no target, so the next turn takes the newest desired
    version up.

    Args:
        journal: The journal of the row, as restored.
        desired: The newest known desired version.
        known: The knowledge about the key from Kafka. If the journal is not older, the row is only in the middle
            of a phase: the phase is kept, and the steps are put in doubt.
        plans: The plans of the lives in the journal, and the current plan for lives begun since the backup.
        now_us: Microseconds UTC.
    """
    doubt = _Doubt(plans, desired, known, now_us // 1_000_000)
    if not is_older(journal.seq, journal.generation, known):
        return doubt.renumbered(journal.model_copy(update={"life": journal.life and doubt.of(journal.life)}))
    lives = [doubt.of(life) for life in _lives(journal, desired, known, plans)]
    current = lives.pop() if lives and not known.ended else None
    if known.released:
        # The resources of a released generation are the vendor's: nobody looks for them, and nobody removes them.
        lives = [life for life in lives if life.generation != known.generation]
        forgotten_us = max(journal.forgotten_at, desired.uninstalled_at or 0, 1)
        journal = journal.model_copy(
            update={"forgotten": (*journal.forgotten, known.generation), "forgotten_at": forgotten_us}
        )
    if current is not None and current.last_applied is None and known.whole:
        # The settings of the complete life are unknown. Any version in `last_applied` keeps the life from being
        # compensated, and the newest configuration is the best guess.
        current = current.model_copy(update={"last_applied": doubt.like(doubt.newest)})
    after = journal.model_copy(
        update={
            "phase": Phase.EMPTY if current is None else Phase.ACTIVE if current.last_applied else Phase.CREATING,
            "generation": max(journal.generation, known.generation),
            "life": current,
            "target": None,
            "phase_began_at": now_us,
            "failure": None,
            "standstill": None,
            "held": None,
            "told": None,
            "orphan_checks": (*journal.orphan_checks, *(doubt.orphan_check_of(life, now_us) for life in lives)),
            "seq": max(journal.seq, known.seq),
        }
    )
    return doubt.renumbered(after)


def with_placeholder_tenant(journal: Journal, key: str) -> Journal:
    """Returns the journal bound to the placeholder tenantId `unknown.{integrationId}`.

    Used if another organisation holds the binding of the tenantId by now.
    """
    life = journal.life and journal.life.model_copy(update={"tenant_id": _placeholder(key)})
    return journal.model_copy(update={"life": life})


def _placeholder(key: str) -> TenantId:
    return f"unknown.{key.partition(':')[2]}"


def _lives(journal: Journal, desired: Desired, known: KnownOfKey, plans: Plans) -> list[Life]:
    """Returns the life of the journal and, last, a newer life begun since the backup."""
    before = [journal.life] if journal.life else []
    if known.generation <= journal.generation:
        return before
    former = journal.life.tenant_id if journal.life else None
    tenant_id = known.tenant_id or desired.tenant_id or former or _placeholder(desired.key)
    return [*before, Life(generation=known.generation, plan=plans.current.digest, tenant_id=tenant_id)]


@dataclass(frozen=True, slots=True)
class _Doubt:
    """Puts the lives of one key in doubt.

    Attributes:
        plans: The plans of the lives.
        desired: The newest known desired version.
        known: The knowledge about the key from Kafka.
        floor: The time in seconds since 1970; every number continues at least here.
    """

    plans: Plans
    desired: Desired
    known: KnownOfKey
    floor: int

    @property
    def newest(self) -> Json:
        """Returns the configuration most likely in force."""
        return self.desired.configuration or (self.known.configurations[-1] if self.known.configurations else {})

    def like(self, configuration: Json) -> Desired:
        """Returns an installed desired version 0 with a configuration: older than every published version."""
        return self.desired.model_copy(update={"version": 0, "installed": True, "configuration": configuration})

    def of(self, life: Life) -> Life:
        """Returns the life with every step in doubt, at every location where the step's resource may exist."""
        plan = self.plans.known(life)
        logs = {name: self._log(log) for name, log in life.steps.items()}
        # Steps without a log are added: the call may have been made after the backup.
        for step in plan.steps if plan else ():
            used = used_configuration(step.settings, self.newest)
            first = StepLog(inputs={"configuration": used, "enabled": True})
            log = logs.get(step.name) or self._log(first)
            # The url may have changed since the backup, so the url of every known configuration is a possible location.
            urls = (desired_inputs(life, step, self.like(configuration))[3] for configuration in self._configurations())
            logs[step.name] = log.model_copy(update={"locations": _all_locations(log, urls)})
        order = [step.name for step in plan.steps] if plan else []
        names = dict.fromkeys((*order, *logs))
        return life.model_copy(update={"steps": {name: logs[name] for name in names}, "reissue": ()})

    def orphan_check_of(self, life: Life, now_us: int) -> OrphanCheck:
        """Returns the orphan check of an ended life; due at once if the plan of the life is not known."""
        plan: Plan | None = self.plans.known(life)
        return orphan_check_of(life, plan, now_us) if plan else OrphanCheck(due_at=now_us, life=life)

    def renumbered(self, journal: Journal) -> Journal:
        """Returns the journal with numbers above all numbers possibly used since the backup."""
        checks = tuple(
            check.model_copy(update={"life": check.life.model_copy(update={"steps": self._above(check.life)})})
            for check in journal.orphan_checks
        )
        above = {"seq": max(journal.seq, self.floor), "lines": max(journal.lines, self.floor)}
        return journal.model_copy(update={"orphan_checks": checks, **above})

    def _configurations(self) -> Iterable[Json]:
        candidates = (*self.known.configurations, self.desired.configuration)
        return [configuration for configuration in candidates if configuration]

    def _above(self, life: Life) -> dict[str, StepLog]:
        return {name: log.model_copy(update={"n": max(log.n, self.floor)}) for name, log in life.steps.items()}

    def _log(self, log: StepLog) -> StepLog:
        # A new log on purpose: verdict, waits and an open intent of the restored log describe the time of the backup.
        # Inputs, outputs and locations are kept, because a delete may need them.
        return StepLog(
            n=max(log.n, self.floor),
            inputs=log.inputs,
            outputs=log.outputs,
            previous_outputs=log.previous_outputs,
            location=log.location,
            locations=log.locations,
            state=StepState.IN_DOUBT,
            unverified=True,
        )


def _all_locations(log: StepLog, urls: Iterable[str | None]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*locations_of(log), *(url for url in urls if url is not None))))
