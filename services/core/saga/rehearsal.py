"""Rehearses a saga: the calls that the saga would make from now on, if every call succeeded. Calls nothing.

Rule: the moves are those of `decide` and `settle`, on a copy of the journal; only the answers are made up. So a
rehearsal shows the calls of a real saga, in the order of the saga: creates, updates, look-ups and deletes.

Made-up answers: a create shows an output for every name that its kind declares; the value says when the real one is
known. An update keeps the outputs. A look-up finds the resource as asked. A wait ends in time.

A name without a value would end the rehearsal at its step with a rollback. The rehearsal gives a made-up value to a
missing name of the configuration, so every later call is shown too, and names the missing ones with the step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from schemas.saga import Journal, Phase
from schemas.tenant import Desired
from schemas.values import Json, Key
from services.core.saga.calls import Done, Verb
from services.core.saga.intents import decide, life_of, log_of
from services.core.saga.moves import Called, LookUp, Run, Undo, Wait
from services.core.saga.next_move import Plans
from services.core.saga.plan import Plan, Step
from services.core.saga.references import references
from services.core.saga.results import settle

SAMPLE_TENANT: Final = "sample"
"""The tenantId of a tenant that does not exist."""
_TURNS_MOST: Final = 1_000
"""More turns than the steps of a plan need; ends a rehearsal that would never come to rest."""
_WAITS_MOST: Final = 5
"""Waits in a row before one call; a held version waits for ever."""


@dataclass(frozen=True, slots=True)
class RehearsedCall:
    """One call of a rehearsal.

    Attributes:
        move: The move.
        verb: Verb of the call.
        journal: The journal with the intent of the move, from which the call is built.
        waits_for: Reason of the wait before the call; empty without a wait.
        wait_us: Microseconds of that wait.
        missing: References of the step without a value.
    """

    move: Called
    verb: Verb
    journal: Journal
    waits_for: str
    wait_us: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """The calls of a saga from now on.

    Attributes:
        phase: Phase of the saga before the first call, a newer version taken up.
        generation: Generation of the life of the calls; 0 without any life.
        plan: Plan of the calls.
        calls: The calls in order.
        missing: Name of a step to the references without a value.
        ends: Reason of the wait, or the failure, at which the rehearsal ends short of rest; empty at rest.
        journal: The journal after the last call.
    """

    phase: Phase
    generation: int
    plan: Plan
    calls: tuple[RehearsedCall, ...]
    missing: Mapping[str, tuple[str, ...]]
    ends: str
    journal: Journal


def rehearse(plans: Plans, journal: Journal, desired: Desired, now_us: int) -> Rehearsal:
    """Returns the calls of a saga from now on.

    Args:
        plans: The plans of the lives in the journal, and the plan for a new life.
        journal: The journal as last written.
        desired: The newest desired version.
        now_us: Microseconds UTC.
    """
    life = journal.life
    plan = plans.of(life) if life is not None else plans.current
    missing = _missing(plan, desired) if desired.installed else {}
    desired = _with_made_up(desired, missing)
    calls: list[RehearsedCall] = []
    first: Journal | None = None
    ends, waits_for, wait_us, waits = "", "", 0, 0
    if journal.phase is Phase.ROLLED_BACK and desired.installed:
        # The next try of a tenant that was rolled back.
        waits_for, wait_us = Phase.ROLLED_BACK.value, max(0, journal.again_at - now_us)
        now_us = max(now_us, journal.again_at)
    for _ in range(_TURNS_MOST):
        turn = decide(plans, journal, desired, now_us)
        journal, move = turn.journal, turn.move
        first = first or journal
        if first.life is not None and journal.generation != first.generation:
            ends = "then the next life begins"
            break
        if _failed_since(first, journal):
            ends = f"{journal.failure.step}: {journal.failure.reason}" if journal.failure else ""
            break
        if isinstance(move, Wait):
            waits += 1
            if not move.reason or move.until_us is None or waits > _WAITS_MOST:
                ends = move.reason
                break
            waits_for, wait_us = move.reason, wait_us + max(0, move.until_us - now_us)
            now_us = max(now_us, move.until_us)
            continue
        if life_of(journal, move) is not journal.life:
            break  # an orphan check of an ended life; the saga itself is at rest
        verb = Verb.READ if isinstance(move, LookUp) else Verb.DELETE if isinstance(move, Undo) else move.verb
        step_missing = missing.get(move.step.name, ()) if isinstance(move, Run) else ()
        calls.append(RehearsedCall(move, verb, journal, waits_for, wait_us, step_missing))
        waits_for, wait_us, waits = "", 0, 0
        journal = settle(journal, move, Done(_made_up_outputs(journal, move)), now_us, plans.pace)
    begun = first or journal
    return Rehearsal(begun.phase, begun.generation if begun.life else 0, plan, tuple(calls), missing, ends, journal)


def known_later(step: Step, name: str) -> str:
    """Returns the made-up value of an output that is not known yet."""
    return f"<steps.{step.name}.{name}: known after step {step.name}>"


def _failed_since(first: Journal, journal: Journal) -> bool:
    """True if the rehearsal itself ran into a compensation or a restoration."""
    failing = {Phase.COMPENSATING, Phase.RESTORING}
    return journal.phase in failing and first.phase not in failing


def _missing(plan: Plan, desired: Desired) -> dict[str, tuple[str, ...]]:
    """Returns the needed names of the configuration without a value, by step."""
    found: dict[str, tuple[str, ...]] = {}
    for step in plan.steps:
        needed = (path for path, optional in references(step.settings) if not optional)
        names = [path for path in needed if path.startswith("configuration.") and not _has(desired.configuration, path)]
        if names:
            found[step.name] = tuple(dict.fromkeys(names))
    return found


def _has(configuration: Mapping[str, Any], path: str) -> bool:
    value: Any = configuration
    for name in path.split(".")[1:]:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value is not None


def _with_made_up(desired: Desired, missing: Mapping[str, tuple[str, ...]]) -> Desired:
    """Returns the desired version with a made-up value for every missing name."""
    configuration: dict[str, Any] = dict(desired.configuration)
    for path in {path for paths in missing.values() for path in paths}:
        _put(configuration, path.split(".")[1:], f"<{path}: missing>")
    return desired.model_copy(update={"configuration": configuration})


def _put(table: dict[str, Any], names: list[str], value: str) -> None:
    if len(names) == 1:
        table[names[0]] = value
        return
    inner = table.get(names[0])
    table[names[0]] = dict(inner) if isinstance(inner, Mapping) else {}
    _put(table[names[0]], names[1:], value)


def _made_up_outputs(journal: Journal, move: Called) -> dict[str, Any]:
    """Returns the outputs of a successful call."""
    if isinstance(move, Undo):
        return {}
    later = {name: known_later(move.step, name) for name in move.step.traits.outputs_of(move.step.settings)}
    # Later steps and the undo use the `url` of a resource, which is the `url` of the call.
    made_at = {"url": move.location} if isinstance(move, Run) and move.location and "url" in later else {}
    return later | log_of(journal, move).outputs | made_at


def new_life(journal: Journal) -> Journal:
    """Returns a journal without the present life, so that a rehearsal begins the next generation."""
    return Journal(generation=journal.generation)


def sample_of(key: Key, configuration: Json, now_us: int) -> tuple[Journal, Desired]:
    """Returns journal and desired version of an installed tenant that does not exist yet."""
    desired = Desired(
        key=key,
        version=1,
        installed=True,
        enabled=True,
        configuration=configuration,
        tenant_id=SAMPLE_TENANT,
        installed_at=now_us,
        uninstalled_at=None,
    )
    return Journal(), desired


def uninstalled(plans: Plans, journal: Journal, desired: Desired, now_us: int) -> tuple[Journal, Desired]:
    """Returns journal and desired version right after an uninstall.

    A tenant without a life is taken as the plan would make the tenant: everything of the plan is there.
    """
    if journal.life is None:
        journal = rehearse(plans, journal, desired, now_us).journal
    gone = {"installed": False, "uninstalled_at": now_us, "version": desired.version + 1}
    return journal, desired.model_copy(update=gone)
