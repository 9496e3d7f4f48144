"""Kind `subscription`: one event subscription, created, paused, resumed and deleted by our REST contract.

Settings: `topics`, and the settings of kind `http` except `body`. An enabled integration has an active subscription;
disabling pauses the subscription and deletes nothing.
"""

from dataclasses import replace
from typing import ClassVar, Self

from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Answer, Call
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.core.saga.plan_forms import Form, PlanKey
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound
from services.provisioner.kinds.shared_keys import CREDENTIALS, PATH, URL_FROM
from services.provisioner.kinds.step_kind import PlannedRequest, Shared


class SubscriptionKind:
    """An `http` resource with the fields `topics` and `state` (`active` or `paused`) as its body."""

    traits: ClassVar = KindTraits(
        name="subscription",
        meaning="Keeps one event subscription, paused while the integration is disabled.",
        keys=(
            PlanKey("url", Form.BASE_URL, "Base URL of the system.", required=True),
            URL_FROM,
            PATH,
            PlanKey("topics", Form.TEXTS, "What is subscribed to.", default=[]),
            CREDENTIALS,
        ),
        # The outputs are those of the resource behind: a secret that is added there must be sealed here too.
        outputs=HttpKind.traits.outputs,
        secret_outputs=HttpKind.traits.secret_outputs,
        credentials=frozenset({"credentials"}),
        system=SystemBy.URL,
        silent_verbs=frozenset(),
        reissued=False,
        left_behind=False,
    )

    def __init__(self, outbound: Outbound) -> None:
        self._resource = HttpKind(outbound)

    @classmethod
    def build(cls, _: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind; no setting of the process is used."""
        return cls(shared.outbound)

    @staticmethod
    def requests_of(call: Call) -> tuple[PlannedRequest, ...]:
        """Returns the requests of the resource behind."""
        return HttpKind.requests_of(_of_resource(call))

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        return await self._resource.call(_of_resource(call))

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._resource.close()


def _of_resource(call: Call) -> Call:
    """Returns the call of the resource behind, with the fields of a subscription as its body."""
    body = {"topics": call.settings.get("topics", []), "state": "active" if call.enabled else "paused"}
    return replace(call, settings={**call.settings, "body": body})
