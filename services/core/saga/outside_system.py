"""Names the outside system that a call goes to; calls to one system share a gate (docs/decisions/0019).

Rule: a system is a step of the plan. If the event names the URL, a system is the step and the URL's host: the broken
endpoint of one tenant never opens the circuit of an endpoint at a different host.
"""

from urllib.parse import urlsplit

from services.core.saga.calls import Call
from services.core.saga.kind_traits import KindTraits, SystemBy


def system_of(call: Call, traits: KindTraits) -> str | None:
    """Returns the name of the system that a call goes to; None if the call makes no request.

    Args:
        call: The call.
        traits: Traits of the call's kind.
    """
    if call.verb in traits.silent_verbs:
        return None
    url = call.settings.get("url")
    if traits.system is SystemBy.STEP or call.settings.get("url_from") == "operator":
        return call.step
    # A call may go to several locations of a moved resource; the gate of the first stands for the whole call.
    locations = [location for location in (url, *call.locations, call.outputs.get("url")) if isinstance(location, str)]
    if not locations:
        return None
    try:
        return f"{call.step} {urlsplit(locations[0]).hostname or ''}"
    except ValueError:
        return None  # unusable as a URL: the kind refuses the call before any request
