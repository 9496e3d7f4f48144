"""A vendor's tenant in the small outside world of the saga tests, and its adoption as the command carries it out."""

from typing import Any

from schemas.adoption import AdoptionLine
from services.core.saga.adoption import (
    AdoptionBase,
    Differing,
    LookedLife,
    adopted_journal,
    after_look,
    told_desired,
    told_life,
    with_told_step,
)
from services.core.saga.calls import Verb
from tests.support.saga_world import KEY, DesiredVersions, MemoryRunner, OutsideSystems, Resource, plan

CRM = {"crmEndpoint": "https://x.salesforce.com"}
BASE = AdoptionBase(1, 0, told_us=1_000, now_us=5_000_000)


def line(**fields: Any) -> AdoptionLine:
    """A tenant of the file."""
    return AdoptionLine.model_validate({"key": KEY, "tenantId": "acme", "configuration": CRM} | fields)


def world(**configuration: Any) -> OutsideSystems:
    """Outside systems in which a vendor has made every resource of generation 1."""
    made = OutsideSystems()
    whole = CRM | configuration
    for number, step in enumerate(plan().steps):
        told = told_desired(line(configuration=whole), BASE)
        life = told_life(plan(), told, BASE)
        log = with_told_step(life, step, told, {}, BASE).life.steps[step.name]
        made.there[step.name, 1] = Resource(log.inputs["configuration"], True, number, "the vendor's")
    return made


def looked(
    made: OutsideSystems, tenant: AdoptionLine, differing: Differing = Differing.LEAVE, base: AdoptionBase = BASE
) -> LookedLife:
    """A life after a look at every resource, as the command looks."""
    told = told_desired(tenant, base)
    life, findings = told_life(plan(), told, base), []
    for step in plan().steps:
        life = with_told_step(life, step, told, tenant.steps.get(step.name, {}), base).life
        answer = made.call(step.name, Verb.READ, base.generation, life.steps[step.name].inputs, "")
        life, finding = after_look(life, step, answer, differing)
        findings.append(finding)
    return LookedLife(life, tuple(findings))


def adopted(made: OutsideSystems, tenant: AdoptionLine | None = None, **more: Any) -> MemoryRunner:
    """A saga whose life was adopted, before the ledger is told."""
    found = looked(made, tenant or line(), **more)
    assert found.life.last_applied is not None
    runner = MemoryRunner(made, found.life.last_applied)
    runner.stored = adopted_journal(None, found.life, BASE.now_us).model_dump_json()
    runner.now_us = BASE.now_us
    made.calls.clear()
    return runner


def versions() -> DesiredVersions:
    """The ledger's versions after it was told: the first has the time of the file."""
    return DesiredVersions(at_us=BASE.told_us)
