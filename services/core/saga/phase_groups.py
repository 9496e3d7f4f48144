"""Groups of phases by which operators look for sagas. Imports no model, so a command line starts without delay."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class PhaseGroup(StrEnum):
    """Groups of phases."""

    FAILED = "failed"
    """Rolled back, or at a standstill: a system is away, refuses, or contradicts itself."""
    WORKING = "working"
    """In progress, without a standstill."""
    ACTIVE = "active"
    EMPTY = "empty"


PHASES: Final[Mapping[PhaseGroup, tuple[str, ...]]] = {
    PhaseGroup.FAILED: ("rolled_back",),
    PhaseGroup.WORKING: ("creating", "updating", "restoring", "compensating", "removing"),
    PhaseGroup.ACTIVE: ("active",),
    PhaseGroup.EMPTY: ("empty",),
}
"""The phases of each group. Sagas at a standstill, in any phase, are in the group FAILED alone."""
