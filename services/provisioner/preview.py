"""The calls of a tenant before any of them is made: built as the provisioner builds them, with every secret hidden.

Rule: a preview reads and changes nothing, and connects to nothing. The moves are rehearsed
(`services.core.saga.rehearsal`), secrets are hidden (`services.core.saga.masking`), and the calls are built by the
`Caller` of the provisioner from what is left.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from schemas.saga import Journal, Phase
from schemas.tenant import Desired
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.secrets.sealing import Sealer
from services.core.saga.calls import Call, Verb, resource_name
from services.core.saga.intents import log_of
from services.core.saga.masking import Masks, masks_for
from services.core.saga.next_move import Plans
from services.core.saga.plan import Plan, Step
from services.core.saga.rehearsal import RehearsedCall, rehearse
from services.provisioner.caller import Caller
from services.provisioner.kinds import KINDS, TRAITS
from services.provisioner.kinds.step_kind import PlannedRequest, ShowsRequests
from services.provisioner.plans import PLAN_SETTINGS, settings_for_plans

_EPOCH: Final = 0
_CLASSES: Final = {kind.traits.name: kind for kind in KINDS}


@dataclass(frozen=True, slots=True)
class PreviewedCall:
    """One call of a preview.

    Attributes:
        step: The step of the plan.
        verb: Verb of the call.
        call: The call with every secret hidden; None if the call cannot be built.
        requests: The requests of the call; empty for a call without any request.
        waits_for: Reason of the wait before the call; empty without a wait.
        wait_us: Microseconds of that wait.
        missing: References without a value; the tenant is refused at this step.
        why: Reason for a call that cannot be built; else empty.
    """

    step: Step
    verb: Verb
    call: Call | None
    requests: tuple[PlannedRequest, ...]
    waits_for: str
    wait_us: int
    missing: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Preview:
    """The calls of a tenant from now on.

    Attributes:
        phase: Phase of the saga, the newest version taken up.
        generation: Generation of the calls; 0 without any life.
        plan: Plan of the calls.
        calls: The calls, in order.
        missing: Name of a step to the references without a value.
        ends: Reason for an end short of rest; empty at rest.
    """

    phase: Phase
    generation: int
    plan: Plan
    calls: tuple[PreviewedCall, ...]
    missing: Mapping[str, tuple[str, ...]]
    ends: str


def preview(
    plans: Plans,
    journal: Journal,
    desired: Desired,
    settings: ProvisionerSettings,
    masks: Masks,
    now_us: int,
    log: Logger,
) -> Preview:
    """Returns the calls that the provisioner would make for a tenant from now on, if every call succeeded.

    Args:
        plans: The plan for a new life, and the plans of the lives in the journal.
        journal: The journal as last written.
        desired: The newest desired version.
        settings: Settings of the provisioner.
        masks: Rules for secrets, of `masks_of`.
        now_us: Microseconds UTC.
        log: Takes faults of a caller that nobody foresaw.
    """
    rehearsed = rehearse(plans, journal, desired, now_us)
    hidden = masks_for(masks, journal, desired.configuration, settings_for_plans(settings))
    # No value is sealed any more after the masks, so the sealer needs no key; nothing is audited either.
    caller = Caller({}, TRAITS, Sealer(()), b"", log)
    calls = tuple(_previewed(caller, desired.key, call, rehearsed.plan, hidden) for call in rehearsed.calls)
    return Preview(rehearsed.phase, rehearsed.generation, rehearsed.plan, calls, rehearsed.missing, rehearsed.ends)


def masks_of(settings: ProvisionerSettings, published: tuple[str, ...]) -> Masks:
    """Returns the rules for secrets.

    Args:
        settings: Settings of the provisioner; a field without a representation is a secret.
        published: Names of a configuration that may be shown (PUBLISHED_NAMES).
    """
    fields = type(settings).model_fields
    return Masks(published, [name for name in PLAN_SETTINGS if not fields[name].repr])


def _previewed(caller: Caller, key: str, rehearsed: RehearsedCall, plan: Plan, masks: Masks) -> PreviewedCall:
    step = rehearsed.move.step
    move = replace(rehearsed.move, step=masks.step(step))
    built = caller.prepare(key, _EPOCH, masks.journal(rehearsed.journal, plan), move)
    log = log_of(rehearsed.journal, rehearsed.move)
    call = _at_one_location(built, log.location, masks) if isinstance(built, Call) else None
    return PreviewedCall(
        step,
        rehearsed.verb,
        call,
        () if call is None else _requests(call),
        rehearsed.waits_for,
        rehearsed.wait_us,
        rehearsed.missing,
        "" if isinstance(built, Call) else getattr(built, "reason", ""),
    )


def _at_one_location(call: Call, location: str | None, masks: Masks) -> Call:
    """Returns the call with one text for its location.

    The `url` in the settings is hidden by the names of its references, a stored location by its value; two hidden names
    with an equal value would look like two locations.

    Args:
        call: The call with hidden values.
        location: The location of the step's newest create or update, which is the `url` of these settings.
        masks: The masks of the call.
    """
    url, told = call.settings.get("url"), masks.scrubbed(location)
    if not isinstance(url, str) or told is None:
        return call
    locations = tuple(url if one == told else one for one in call.locations)
    outputs = {name: url if value == told else value for name, value in call.outputs.items()}
    return replace(call, locations=locations, outputs=outputs)


def _requests(call: Call) -> tuple[PlannedRequest, ...]:
    """Returns the requests of a call, by the call's kind; of any further kind the verb, the `url` and the name."""
    kind: object = _CLASSES[call.kind]
    if isinstance(kind, ShowsRequests):
        return kind.requests_of(call)
    where = call.settings.get("url", call.kind)
    return (PlannedRequest(f"{call.verb} {resource_name(call.key, call.generation)} at {where}"),)
