"""Kind `subscription`: one event subscription, created, paused, resumed and deleted by our REST contract.

Settings: `topics`, and the settings of kind `http` except `body`. An enabled integration has an active subscription;
disabling pauses the subscription and deletes nothing.
"""

from dataclasses import replace

from services.core.saga.calls import Answer, Call
from services.provisioner.kinds.http import HttpKind
from services.provisioner.kinds.outbound import Outbound


class SubscriptionKind:
    """An `http` resource with the fields `topics` and `state` (`active` or `paused`) as its body."""

    def __init__(self, outbound: Outbound) -> None:
        self._resource = HttpKind(outbound)

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        body = {"topics": call.settings.get("topics", []), "state": "active" if call.enabled else "paused"}
        return await self._resource.call(replace(call, settings={**call.settings, "body": body}))

    async def close(self) -> None:
        """Closes the HTTP client shared by the kinds; a repeated close is harmless."""
        await self._resource.close()
