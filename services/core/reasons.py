"""Reasons in words: the reason of a tenant's stage, the class of a failed step, and the notes on a tenant. Pure.

Rule: every program for operators shows these words. A reason or class unknown to this release is shown unchanged, since
a newer release may have written the record.
"""

import re
from typing import Final

from schemas.tenant import Tenant
from schemas.times import rfc3339
from services.core.unwell import UNWELL_AFTER_US, WAITING_FOR

_REASONS: Final = {
    "retrying": "the last try failed; it is tried again",
    "system_away": "its next outside system does not answer",
    "system_refuses": "its next outside system refuses the operator's credentials or set-up",
    "former_life": "waits until the teardown of its former life ends",
    "grace": "in its grace period (destroy_after of a step, or AUDIT_REMOVAL_GRACE_S)",
    "removal_braked": "held: too many removals at once; an operator approves or refuses it",
    "removal_refused": "held: an operator refused its removal",
    "genesys_says_installed": "held: Genesys says that it is installed",
    "genesys_unread": "held: Genesys does not say if it is gone",
    "compensating": "what was made is being removed again",
    "restoring": "the last good configuration is being put back",
    "update_refused": "an update was refused; the last good configuration stands",
    "tenant_conflict": "another organisation holds this tenantId",
    "tenant_changed": "another tenantId is claimed; the bound one stands",
    "tenant_unknown": "no tenantId is known",
    "released": "an operator has released it: adopt it again, or `lifecycle sagas retry` provisions it anew",
    "install_unknown": "neither an install nor an uninstall is known",
}
_FAILURES: Final = {
    "refused": "refused",
    "exhausted": "was away for longer than give_up_after",
    "unknown": "not known whether it was done",
    "retryable": "the last try failed",
    "blocked": "refuses the operator's credentials or set-up",
    "contradicted": "shows something else than was asked for",
}
_FAILURE: Final = re.compile(rf"(?P<step>\S+)_(?P<how>{'|'.join(_FAILURES)})\b(?P<more>.*)", re.DOTALL)
_FLAGS: Final = {
    "tie": "events of one instant contradict each other",
    "ambiguous": "an event may be a repeat",
    "conflict": "one event came with two contents",
    "storm": "more events than are kept",
}


def reason_text(reason: str | None, since_us: int) -> str:
    """Returns the reason of a tenant's stage in words; an unknown reason is returned unchanged.

    Args:
        reason: `reason` of the view, of an outcome, or of a change of stage.
        since_us: Time of the record with this reason, in microseconds since 1970.
    """
    if not reason:
        return ""
    if reason.startswith(WAITING_FOR):
        # The provisioner reports a wait once it has lasted UNWELL_AFTER_US, so the wait began at least so long before
        # the report.
        began = rfc3339(since_us - UNWELL_AFTER_US)[11:16]
        return f"waiting for {reason.removeprefix(WAITING_FOR)} since {began} UTC or before"
    if reason in _REASONS:
        return _REASONS[reason]
    found = _FAILURE.fullmatch(reason)
    return reason if found is None else failure_text(found["step"], found["how"]) + found["more"]


def failure_text(step: str | None, error_class: str | None) -> str:
    """Returns a step with the class of the last answer in words; empty if neither is known."""
    return ": ".join(filter(None, (step, _FAILURES.get(error_class or "", error_class))))


def note_text(tenant: Tenant) -> str:
    """Returns the notes on a tenant beside its stage; empty without any."""
    said = [f"claimed: {tenant.claimed_tenant_id}"] if tenant.claimed_tenant_id else []
    said += ["disabled"] if tenant.installed and tenant.enabled is False else []
    said += [text for text in (reason_text(tenant.reason, tenant.updated_at),) if text]
    said += [f"{_FLAGS[flag.value]}: Genesys is asked" for flag in tenant.flags]
    return "; ".join(said)
