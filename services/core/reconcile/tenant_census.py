"""Counts the tenants of the public view by stage, by the sort of their reason and by flag.

Rules:
- A reason may name a step of the plan, or come from a newer release. `reason_sort` maps every text to a word of a
  closed set, so that a count by reason has a bounded number of values.
- The counts follow each change of a tenant: to count 100,000 tenants anew would take a tenth of a second.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Final

from schemas.outcome import TENANT_CONFLICT
from schemas.saga import StepVerdict
from schemas.tenant import Flag, Stage, Tenant
from schemas.values import Key
from services.core.unwell import GRACE, HELD_REMOVALS, SHORT_WAITS, WAITING_FOR

_EXACT: Final = SHORT_WAITS | {
    GRACE, *HELD_REMOVALS, TENANT_CONFLICT, "tenant_unknown", "install_unknown", "tenant_changed", "update_refused",
}  # fmt: skip
"""Reasons that are words of the closed set themselves."""
_BY_CLASS: Final = tuple(map(str, (StepVerdict.REFUSED, StepVerdict.EXHAUSTED, StepVerdict.CONTRADICTED)))
"""Ends of a reason made of a step and the class of the step's last answer."""
_WAITING: Final = WAITING_FOR.removesuffix(":")
_OTHER: Final = "other"

REASON_SORTS: Final = frozenset({"", _WAITING, *_EXACT, *_BY_CLASS, _OTHER})
"""All words that `reason_sort` returns."""
UNSETTLED: Final = tuple(stage for stage in Stage if stage not in {Stage.ACTIVE, Stage.DEPROVISIONED})
"""Stages on the way to another stage, and stages of a failure."""


def reason_sort(reason: str | None) -> str:
    """Returns the word of the closed set for a reason; empty for no reason."""
    if not reason:
        return ""
    if reason in _EXACT:
        return reason
    if reason.startswith(WAITING_FOR):
        return _WAITING
    return next((word for word in _BY_CLASS if reason.endswith(f"_{word}")), _OTHER)


class TenantCensus:
    """Running counts of the tenants. A single thread changes the counts; any thread may read."""

    def __init__(self) -> None:
        """Begins without a tenant."""
        self._by_stage: Counter[tuple[Stage | None, str]] = Counter()
        self._flagged: Counter[Flag] = Counter()
        # Of unsettled tenants alone, and these are few while all is well: a minimum cannot be taken back one by one.
        self._changed_us: dict[Stage, dict[Key, int]] = {stage: {} for stage in UNSETTLED}

    def replace(self, before: Tenant | None, after: Tenant) -> None:
        """Counts a tenant's new record in place of the former record; None for a new tenant."""
        if before is not None:
            self._by_stage[before.stage, reason_sort(before.reason)] -= 1
            if before.flags:
                self._flagged.subtract(before.flags)
            if before.stage in self._changed_us:
                self._changed_us[before.stage].pop(before.key, None)
        self._by_stage[after.stage, reason_sort(after.reason)] += 1
        if after.flags:
            self._flagged.update(after.flags)
        # A grace period is an intended wait.
        if after.stage in self._changed_us and after.reason != GRACE:
            self._changed_us[after.stage][after.key] = after.updated_at

    def by_stage(self) -> Mapping[tuple[Stage | None, str], int]:
        """Returns the number of tenants by stage and sort of reason."""
        return dict(self._by_stage)

    def flagged(self) -> Mapping[Flag, int]:
        """Returns the number of tenants by flag."""
        return {flag: self._flagged[flag] for flag in Flag}

    def oldest_s(self, now_us: int) -> Mapping[Stage, float]:
        """Returns the age in seconds of the newest change of the tenant unchanged for longest, by unsettled stage.

        A stage without a tenant has the age 0; tenants in a grace period are left out.
        """
        # A copy of the values is one step of the interpreter: a thread that changes the counts does not come between.
        oldest = ((stage, min(list(times.values()), default=now_us)) for stage, times in self._changed_us.items())
        return {stage: max(0, now_us - at_us) / 1_000_000 for stage, at_us in oldest}
