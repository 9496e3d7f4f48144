"""A look at the outside systems for an adoption: each resource of a tenant is read by name and by the told outputs.

Rule: a look reads and changes nothing. Steps are read in the order of the plan, since the settings of a later step may
refer to the outputs of an earlier step. Steps after a missing resource are read too, so that a single run names every
fault.
"""

from schemas.adoption import AdoptionLine
from schemas.saga import Life
from services.core.saga.adoption import (
    AdoptionBase,
    Differing,
    LookedLife,
    StepFinding,
    StepSight,
    after_look,
    looked_journal,
    told_desired,
    told_life,
    with_told_step,
    without_resource,
)
from services.core.saga.plan import Plan, Step
from services.provisioner.outside_look import OutsideLook


class AdoptionLook:
    """Reads the resources of tenants to adopt. Use from one event loop."""

    def __init__(self, outside: OutsideLook, differing: Differing) -> None:
        """Takes an open look.

        Args:
            outside: Looks single resources up; the caller closes.
            differing: What becomes of a resource that differs.
        """
        self._outside, self._differing = outside, differing

    @property
    def plan(self) -> Plan:
        """Returns the plan by which tenants are adopted."""
        return self._outside.plan

    async def look(self, line: AdoptionLine, base: AdoptionBase) -> LookedLife:
        """Returns the life of a tenant after a look at every resource."""
        desired = told_desired(line, base)
        life = told_life(self.plan, desired, base)
        findings: list[StepFinding] = []
        for step in self.plan.steps:
            told = self._outside.caller.sealed_outputs(line.key, base.generation, step, line.steps.get(step.name, {}))
            in_doubt = with_told_step(life, step, desired, told, base)
            life = in_doubt.life
            if in_doubt.missing:
                found = StepFinding(step.name, StepSight.UNREAD, f"missing: {', '.join(in_doubt.missing)}")
            elif not in_doubt.needs_look:
                life, found = without_resource(life, step)
            else:
                life, found = await self._look_at(line.key, life, step)
            findings.append(found)
        return LookedLife(life, tuple(findings))

    async def _look_at(self, key: str, life: Life, step: Step) -> tuple[Life, StepFinding]:
        answer = await self._outside.ask(key, looked_journal(life), life, step)
        return after_look(life, step, answer, self._differing)
