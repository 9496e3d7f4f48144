"""Prints a checked plan, or the faults of a plan; as text or as JSON."""

from pathlib import Path
from typing import Any

from services.cli import show, wording
from services.core.saga.plan import BadPlan, Plan, Step
from services.core.saga.references import references


def faults_json(path: Path, bad: BadPlan) -> dict[str, Any]:
    """Returns the faults of a plan as JSON."""
    return {
        "file": str(path),
        "usable": False,
        "faults": [
            {
                "step": fault.number or None,
                "name": fault.name or None,
                "key": fault.key or None,
                "fault": fault.text,
                "sentence": f"{path}: {fault}",
            }
            for fault in bad.details
        ],
    }


def plan_json(path: Path, plan: Plan) -> dict[str, Any]:
    """Returns a plan without faults as JSON, with the names that each step uses."""
    return {
        "file": str(path),
        "usable": True,
        "faults": [],
        "digest": plan.digest,
        "steps": [
            {"name": step.name, "kind": step.kind, "undo": step.undo.value, "uses": _uses(step)} for step in plan.steps
        ],
    }


def print_faults(path: Path, bad: BadPlan) -> None:
    """Prints a sentence per fault, each with the file's name."""
    for fault in bad.faults:
        show.folded(f"{path}: {fault}")
    show.say(f"{wording.counted(len(bad.faults), 'fault')}; the provisioner would not start with this plan")


def print_plan(path: Path, plan: Plan) -> None:
    """Prints a line per step, with the names that the step uses."""
    show.listing(
        ("step", "kind", "undo"),
        [
            show.ListingRow(
                cells=(step.name, step.kind, step.undo.value),
                note=f"uses {', '.join(_uses(step))}" if _uses(step) else "",
            )
            for step in plan.steps
        ],
    )
    show.say(f"{path}: {wording.counted(len(plan.steps), 'step')}, no fault")


def _uses(step: Step) -> list[str]:
    """Returns the references of a step, an optional one with a question mark."""
    found = (f"{path}?" if optional else path for path, optional in references(step.settings))
    return list(dict.fromkeys(found))
