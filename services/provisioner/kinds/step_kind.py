"""Declares the parts of a step kind's class: the traits, `build`, the calls and `close`.

Rule: a kind is built from the settings of the process and from `Shared` alone, so the loop over the list of kinds
(`services.provisioner.kinds`) builds all kinds alike.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol, Self, runtime_checkable

from services.adapters.kafka.audit_trail import AuditTrail
from services.adapters.process.logs import Logger
from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Call
from services.core.saga.kind_traits import KindTraits
from services.provisioner.caller import StepHandler
from services.provisioner.kinds.outbound import Outbound


@dataclass(frozen=True, slots=True)
class Shared:
    """Parts shared by the kinds of a process.

    Attributes:
        outbound: Sends HTTP requests under the egress rules; the only way to the shared HTTP client.
        trail: Reads audit records by key.
        now_us: Clock, microseconds UTC.
        log: Logger of the service.
    """

    outbound: Outbound
    trail: AuditTrail
    now_us: Callable[[], int]
    log: Logger


class StepKind(StepHandler, Protocol):
    """Step handler of one kind, shared by all sagas of a process."""

    traits: ClassVar[KindTraits]

    @classmethod
    def build(cls, settings: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind, not connected yet.

        Raises:
            Unusable: a setting needed by the kind is missing or cannot be used.
        """

    async def close(self) -> None:
        """Closes the connections; safe to call for kinds that share a client."""


class PlannedRequest(NamedTuple):
    """A request as shown to people before any call.

    Attributes:
        target: Verb and target of the system, as `PUT https://…`.
        body: JSON value or form of the request; None without a body.
    """

    target: str
    body: Any = None


@runtime_checkable
class ShowsRequests(Protocol):
    """A kind that tells the requests of a call beforehand. Optional; without it the `url` of the call is shown."""

    @staticmethod
    def requests_of(call: Call) -> tuple[PlannedRequest, ...]:
        """Returns the requests of a call whose every request succeeds; empty for a call without any request.

        Args:
            call: The call. Secrets in the settings and outputs are replaced by texts in angle brackets.
        """


def traits_of(kinds: Iterable[type[StepKind]]) -> dict[str, KindTraits]:
    """Returns the traits of the kinds by name, in the given order.

    Raises:
        TypeError: a class declares no traits, or only inherits traits.
        ValueError: two classes declare equal names.
    """
    found: dict[str, KindTraits] = {}
    owners: dict[str, str] = {}
    for kind in kinds:
        # Not `kind.traits`: a class derived from a kind would pass under the traits of its base.
        traits = vars(kind).get("traits")
        if not isinstance(traits, KindTraits):
            raise TypeError(f"kind {kind.__name__}: declares no traits")
        if traits.name in found:
            raise ValueError(f"kind {traits.name}: declared by {owners[traits.name]} and by {kind.__name__}")
        found[traits.name], owners[traits.name] = traits, kind.__name__
    return found
