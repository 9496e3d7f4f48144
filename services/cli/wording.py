"""Formats texts for terminals: short keys, relative times, reasons in words. Pure.

Rule: a short key names exactly one of the keys of its listing, so every command accepts it in place of the key.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Final

from schemas.tenant import Stage, Tenant
from schemas.times import rfc3339
from schemas.values import Key
from services.core.unwell import UNWELL_AFTER_US, WAITING_FOR

STYLES: Final[Mapping[str, str]] = {
    Stage.ACTIVE: "green",
    Stage.PENDING_INSTALL: "yellow",
    Stage.DEPROVISIONING: "yellow",
    Stage.DEPROVISIONED: "dim",
    Stage.PROVISIONING_ROLLED_BACK: "red",
    Stage.DEPROVISIONING_FAILED: "red",
}
"""Colour of a stage."""

_LENGTHS: Final = (8, 13, 18, 23, 36)
"""Characters of each id in a short key: a UUID up to one of its dashes."""

_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))

_REASONS: Final = {
    "retrying": "the last try failed; it is tried again",
    "system_away": "its next outside system does not answer",
    "system_refuses": "its next outside system refuses the operator's credentials or set-up",
    "former_life": "waits until the teardown of its former life ends",
    "grace": "in its grace period (destroy_after)",
    "compensating": "what was made is being removed again",
    "restoring": "the last good configuration is being put back",
    "update_refused": "an update was refused; the last good configuration stands",
    "tenant_conflict": "another organisation holds this tenantId",
    "tenant_changed": "another tenantId is claimed; the bound one stands",
    "tenant_unknown": "no tenantId is known",
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


def counted(count: int, one: str) -> str:
    """Returns a number with the noun: `1 saga`, `2 sagas`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {one}s"


def short_keys(keys: Collection[Key]) -> dict[Key, str]:
    """Shortens both ids of each key as far as the result still names one of `keys`."""
    found: dict[Key, str] = {}
    left = list(keys)
    for length in _LENGTHS:
        short = {key: _cut(key, length) for key in left}
        count = Counter(short.values())
        # A key that is ambiguous at this length is tried again at the next; at the full length every key is unique.
        found |= {key: text for key, text in short.items() if count[text] == 1 or length == _LENGTHS[-1]}
        left = [key for key in left if key not in found]
    return found


def span(us: int) -> str:
    """Formats a span of time in the greatest unit: `12 s`, `5 min`, `3 h`, `4 d`; never less than 0 s."""
    seconds = max(0, us) // 1_000_000
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds // unit_s} {name}"
    return f"{seconds} s"


def moment(at_us: int) -> str:
    """Formats an instant: date and time of day, UTC, whole seconds."""
    return rfc3339(at_us)[:19].replace("T", " ")


def reason(text: str | None, since_us: int) -> str:
    """Returns the reason of a tenant's stage in words; an unknown reason is returned unchanged.

    Args:
        text: `reason` of the view, of an outcome, or of a change of stage.
        since_us: Time of the record with this reason, in microseconds since 1970.
    """
    if not text:
        return ""
    if text.startswith(WAITING_FOR):
        # The provisioner reports a wait once it has lasted UNWELL_AFTER_US, so the wait began at least so long before
        # the report.
        began = moment(since_us - UNWELL_AFTER_US)[11:16]
        return f"waiting for {text.removeprefix(WAITING_FOR)} since {began} UTC or before"
    if text in _REASONS:
        return _REASONS[text]
    found = _FAILURE.fullmatch(text)
    return text if found is None else failure(found["step"], found["how"]) + found["more"]


def failure(step: str | None, error_class: str | None) -> str:
    """Formats a step and the class of its last answer; empty if neither is known."""
    return ": ".join(filter(None, (step, _FAILURES.get(error_class or "", error_class))))


def notes(tenant: Tenant) -> str:
    """Returns the notes on a tenant beside its stage; empty without any."""
    said = [f"claimed: {tenant.claimed_tenant_id}"] if tenant.claimed_tenant_id else []
    said += ["disabled"] if tenant.installed and tenant.enabled is False else []
    said += [text for text in (reason(tenant.reason, tenant.updated_at),) if text]
    said += [f"{_FLAGS[flag.value]}: Genesys is asked" for flag in tenant.flags]
    return "; ".join(said)


def summary(shown: Collection[Tenant], known: int, unwell: int) -> str:
    """Summarises a listing in one line: count, counts by stage, and count of the unwell.

    Args:
        shown: The listed tenants.
        known: Number of tenants without the filters.
        unwell: Number of unwell tenants among `shown`.
    """
    if not known:
        return "no tenants: nothing was ever installed here"
    of = f" of {known}" if len(shown) != known else ""
    count = Counter(tenant.stage for tenant in shown)
    stages = [f"{count[stage]} {stage or 'without a stage'}" for stage in (*Stage, None) if count[stage]]
    text = f"{len(shown)}{of} tenant{'' if known == 1 else 's'}"
    return ": ".join([text, ", ".join([*stages, f"{unwell} unwell"])]) if shown else text


def _cut(key: Key, length: int) -> str:
    """Cuts both ids of a key to a length."""
    org, _, integration = key.partition(":")
    return f"{org[:length]}:{integration[:length]}"
