"""Adoption: the journal of a tenant whose resources exist already, and the release of such a tenant.

Problem: a vendor's customers have resources before this system knows of them. A tenant that became known by its
`installed` alone would be provisioned anew. Approach: the registry's row is written first, with a life that is applied
as a whole and has every known output; the ledger is told afterwards (docs/decisions/0050). Whatever the ledger
publishes then finds a life that exists: equal settings call nobody, and an uninstall removes exactly what was adopted.

Rule: a life is adopted as a whole, or not at all. A resource that is missing or was not read leaves its tenant alone:
the next take-up would create the resource.

Rule: until the ledger has been told, an uninstall from before the adoption says nothing about the adopted life
(`next_move`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from schemas.adoption import AdoptionLine
from schemas.audit import Audit, OperatorAct
from schemas.event import Observed
from schemas.saga import Journal, Life, Phase, StepLog, StepState
from schemas.tenant import Desired
from schemas.values import Json, Source
from services.core.ledger import audit
from services.core.ledger.identity import canonical
from services.core.saga.calls import Absent, Answer, Done
from services.core.saga.next_move import desired_inputs, is_released
from services.core.saga.plan import Plan, Step

FIRST_GENERATION: Final = 1
"""Generation of a life that is adopted for the first time: nothing of the key was ever made."""


class StepSight(StrEnum):
    """What a look at the resource of a step shows."""

    FOUND = "found"
    """The resource exists as the plan wants it, or the step keeps none for this tenant."""
    DIFFERS = "differs"
    MISSING = "missing"
    UNREAD = "not read"


class Differing(StrEnum):
    """What becomes of a tenant with a resource that differs."""

    LEAVE = "leave"
    """The tenant is not adopted."""
    KEEP = "keep"
    """The resource stays as it is until a change of the tenant touches the step."""
    UPDATE = "update"
    """The provisioner updates the resource to the plan at once."""


@dataclass(frozen=True, slots=True)
class StepFinding:
    """A look at the resource of one step.

    Attributes:
        step: Name of the step.
        sight: What the look showed.
        detail: The field or the output that differs, or why the resource was not read; no value.
    """

    step: str
    sight: StepSight
    detail: str = ""


@dataclass(frozen=True, slots=True)
class LookedLife:
    """A life to adopt, after all looks.

    Attributes:
        life: The life with the log of every step.
        findings: The looks, in the order of the plan.
    """

    life: Life
    findings: tuple[StepFinding, ...]

    def fits(self, differing: Differing) -> bool:
        """True if the tenant may be adopted."""
        allowed = {StepSight.FOUND} if differing is Differing.LEAVE else {StepSight.FOUND, StepSight.DIFFERS}
        return all(one.sight in allowed for one in self.findings)

    @property
    def sight(self) -> StepSight:
        """Returns the worst look of the life."""
        order = list(StepSight)
        return max((one.sight for one in self.findings), key=order.index)


@dataclass(frozen=True, slots=True)
class AdoptionBase:
    """The numbers with which a life is adopted.

    Attributes:
        generation: Generation of the life: 1, or that of the released life that is adopted again.
        version: The version of the row; 0 without a row.
        told_us: Time of the vendor's file: the state of the file is that of this time, microseconds UTC.
        now_us: The present time, microseconds UTC.
    """

    generation: int
    version: int
    told_us: int
    now_us: int


def told_desired(line: AdoptionLine, base: AdoptionBase) -> Desired:
    """Returns the desired version that a line tells: the state in which the resources were made."""
    return Desired(
        key=line.key,
        version=base.version,
        installed=True,
        enabled=line.enabled,
        configuration=_as_the_ledger_tells(line.configuration),
        tenant_id=line.tenantId,
        installed_at=base.told_us,
        uninstalled_at=None,
    )


def told_life(plan: Plan, desired: Desired, base: AdoptionBase) -> Life:
    """Returns the life to look up, without the log of any step."""
    return Life(
        generation=base.generation,
        plan=plan.digest,
        tenant_id=desired.tenant_id or "",
        last_applied=desired,
        issued_for=base.told_us,
        adopted_at=base.told_us,
    )


@dataclass(frozen=True, slots=True)
class ToldStep:
    """A step to look up.

    Attributes:
        life: The life with the log of this step, in doubt.
        needs_look: False if the step keeps no resource for this tenant: the URL of its system is not given.
        missing: Needed names of the configuration without a value; with any, nothing can be looked up.
    """

    life: Life
    needs_look: bool
    missing: tuple[str, ...]


def with_told_step(life: Life, step: Step, desired: Desired, outputs: Json, base: AdoptionBase) -> ToldStep:
    """Adds the log of a step in doubt to a life; steps before it are known by now.

    Args:
        life: The life with the logs of the earlier steps.
        step: The step.
        desired: The version told by the line.
        outputs: Outputs told by the line; values declared secret are sealed.
        base: The numbers of the adoption.
    """
    inputs, intended, missing, location = desired_inputs(life, step, desired)
    log = StepLog(
        # Above every number that a former adoption of this generation has used: a system remembers idempotency keys.
        n=base.now_us // 1_000_000,
        at=base.now_us,
        state=StepState.IN_DOUBT,
        inputs=inputs,
        intended=intended,
        outputs=outputs,
        location=location,
    )
    return ToldStep(_with_log(life, step, log), "url" not in step.settings or location is not None, missing)


def without_resource(life: Life, step: Step) -> tuple[Life, StepFinding]:
    """Returns the life after a step that keeps no resource for this tenant, as after a create without a URL."""
    log = life.steps[step.name]
    settled = log.model_copy(update={"state": StepState.PRESENT, "applied": log.intended, "outputs": {}})
    return _with_log(life, step, settled), StepFinding(step.name, StepSight.FOUND)


def after_look(life: Life, step: Step, answer: Answer | str, differing: Differing) -> tuple[Life, StepFinding]:
    """Returns the life after the look at a step, and the finding.

    Args:
        life: The life with the log of the step in doubt.
        step: The step.
        answer: The answer to the look, outputs sealed; or why the system was not asked.
        differing: What becomes of a resource that differs.
    """
    if isinstance(answer, Absent):
        return life, StepFinding(step.name, StepSight.MISSING)
    if not isinstance(answer, Done):
        return life, StepFinding(step.name, StepSight.UNREAD, answer if isinstance(answer, str) else answer.reason)
    log = life.steps[step.name]
    differs = answer.differs or _other_output(log.outputs, answer.outputs)
    # The word of the system counts: a wrong id would delete somebody else's resource.
    settled = log.model_copy(
        update={
            "state": StepState.PRESENT,
            "outputs": {**log.outputs, **answer.outputs},
            "applied": None if differs and differing is Differing.UPDATE else log.intended,
        }
    )
    sight = StepSight.DIFFERS if differs else StepSight.FOUND
    return _with_log(life, step, settled), StepFinding(step.name, sight, differs or "")


def adopted_journal(former: Journal | None, life: Life, now_us: int) -> Journal:
    """Returns the journal of an adopted key: active, applied as a whole, and due for nothing.

    Args:
        former: The journal of the key; None without a row.
        life: The life after all looks.
        now_us: Microseconds UTC.
    """
    former = former or Journal()
    return former.model_copy(
        update={
            "phase": Phase.ACTIVE,
            "generation": life.generation,
            "life": life,
            "target": life.last_applied,
            "phase_began_at": now_us,
            "told": None,
            "held": None,
            "forgotten": tuple(number for number in former.forgotten if number != life.generation),
            "forgotten_at": 0,
            "lines": former.lines + 1,
        }
    )


def looked_journal(life: Life) -> Journal:
    """Returns a journal for the calls of a look; the result is never written."""
    return Journal(generation=life.generation, life=life)


def is_adoptable_again(journal: Journal, desired: Desired) -> bool:
    """True if the newest generation of a key was released, and nobody but the release has uninstalled the key since."""
    uninstalled_us = desired.uninstalled_at or 0
    return journal.life is None and is_released(journal) and uninstalled_us <= journal.forgotten_at


def is_adopted(journal: Journal) -> bool:
    """True if the present life of a key was adopted."""
    return journal.life is not None and journal.life.adopted_at > 0


def awaits_ledger(journal: Journal) -> bool:
    """True if an adopted key has taken up no version from after its adoption: the ledger may not have been told."""
    life, target = journal.life, journal.target
    if life is None or target is None or not life.adopted_at:
        return False
    # The version that the file told was received by no ledger.
    return target.received_at is None or (target.installed_at or 0) < life.adopted_at


def adoption_observed(line: AdoptionLine, journal: Journal) -> Observed:
    """Returns the observation of an adopted key that awaits the ledger; equal in every repetition with an equal line.

    Args:
        line: The line of the vendor's file.
        journal: The journal of the key, with the adopted life.
    """
    assert journal.life is not None, "asked of an adopted life alone"
    return _observed(line.key, journal.life.adopted_at, "adoption").model_copy(
        update={
            "tenant_id": journal.life.tenant_id,
            "installed": True,
            "enabled": line.enabled,
            "configuration": line.configuration,
        }
    )


class ReleaseEnd(StrEnum):
    """The ends of a request to release a key, as far as the journal decides."""

    RELEASED = "released"
    AGAIN = "released already"
    """The ledger is told once more: a crash may have come before."""
    NOT_ADOPTED = "its life was not adopted"


@dataclass(frozen=True, slots=True)
class Release:
    """The content of a release's commit.

    Attributes:
        journal: The journal to write; unchanged where nothing is to be written.
        end: The end of the request, if the registry takes the commit.
    """

    journal: Journal
    end: ReleaseEnd


def decide_release(journal: Journal, desired: Desired, now_us: int) -> Release:
    """Decides the release of a leased key: its life is forgotten, and nothing outside is removed.

    Args:
        journal: The journal as last written.
        desired: The newest desired version.
        now_us: Microseconds UTC.
    """
    life = journal.life
    if life is None and is_released(journal):
        return Release(journal, ReleaseEnd.AGAIN)
    if life is None or not life.adopted_at:
        return Release(journal, ReleaseEnd.NOT_ADOPTED)
    after = journal.model_copy(
        update={
            "phase": Phase.EMPTY,
            "life": None,
            "phase_began_at": now_us,
            "remove_at": 0,
            "released_at": 0,
            "failure": None,
            "standstill": None,
            "told": None,
            "held": None,
            "forgotten": (*journal.forgotten, life.generation),
            # After the install that the ledger knows, or the ledger would not believe the uninstall.
            "forgotten_at": max(now_us, (desired.installed_at or 0) + 1),
            "lines": journal.lines + 1,
        }
    )
    return Release(after, ReleaseEnd.RELEASED)


def release_observed(journal: Journal, key: str) -> Observed:
    """Returns the observation of a released key; equal in every repetition."""
    return _observed(key, journal.forgotten_at, "release")


def act_line(
    journal: Journal, key: str, what: str, generation: int, act: OperatorAct, now_us: int, material: bytes
) -> Audit:
    """Returns the audit line of an adoption or a release, numbered by the journal to write.

    Args:
        journal: The journal to write.
        key: `orgId:integrationId`.
        what: `adoption` or `release`.
        generation: Generation of the life.
        act: The operator's act.
        now_us: Microseconds UTC.
        material: The newest key of `material.audit`.
    """
    verdicts = {"adoption": "adopted", "release": "released"}
    return audit.line(
        line_id=f"{key}/{what}/{journal.lines}",
        key=key,
        what=what,
        verdict=verdicts[what],
        why=f"generation {generation}; nothing was made or removed",
        at_us=now_us,
        material=material,
        act=act,
    )


def left_text(findings: Sequence[StepFinding]) -> str:
    """Returns what is wrong with the resources of a tenant, in one text; empty if nothing is."""
    words = [
        f"{one.step} {one.sight}" + (f" ({one.detail})" if one.detail else "")
        for one in findings
        if one.sight is not StepSight.FOUND
    ]
    return ", ".join(words)


def _observed(key: str, at_us: int, cause: str) -> Observed:
    org_id, _, integration_id = key.partition(":")
    return Observed(
        orgId=org_id,
        integrationId=integration_id,
        read_at=at_us,
        installed=False,
        cause=cause,
        source=Source.OPERATOR,
    )


def _other_output(told: Mapping[str, object], shown: Mapping[str, object]) -> str | None:
    """Returns the first told output that the system shows otherwise; None without one."""
    return next((name for name, value in told.items() if name in shown and shown[name] != value), None)


def _with_log(life: Life, step: Step, log: StepLog) -> Life:
    return life.model_copy(update={"steps": {**life.steps, step.name: log}})


def _as_the_ledger_tells(configuration: Json) -> Json:
    """Returns a configuration as the ledger publishes it, so that equal settings have an equal hash (1.0 is 1)."""
    found: Json = json.loads(canonical(configuration))
    return found
