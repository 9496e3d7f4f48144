"""The plan for new lives, and every plan that a life still goes by.

Rule: a life is finished with the plan it began with. So a plan's text is kept in the registry before a life may begin
with it, and a plan is changed by giving another file, at any time.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from schemas.saga import Journal
from services.adapters.process.settings import Settings, Unusable
from services.adapters.registry.registry import Registry
from services.core.saga.next_move import Plans
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan, Plan, parse
from services.core.saga.plan_check import check

PLAN_SETTINGS: Final = (
    "middleware_url",
    "subscriptions_url",
    "oauth_url",
    "oauth_client_id",
    "oauth_client_secret",
)
"""What a plan may name as `{settings.…}`."""


def settings_for_plans(settings: Settings) -> dict[str, Any]:
    """The settings that a plan may name; what is not given is None."""
    return {name: getattr(settings, name) or None for name in PLAN_SETTINGS}


def plan_text(settings: Settings, kinds: Collection[str]) -> str:
    """Returns the text of the plan for new lives, checked whole.

    Raises:
        Unusable: with every fault; it names the file, the step and the key.
    """
    plan = settings.plan_file or Path(__file__).with_name("plan.toml")
    try:
        text = plan.read_text(encoding="utf-8")
        check(text, kinds=kinds, settings=settings_for_plans(settings))
    except OSError as error:
        raise Unusable(f"PLAN_FILE: {plan}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable(f"PLAN_FILE: {plan}: not UTF-8") from None
    except BadPlan as bad:
        raise Unusable("\n".join(f"PLAN_FILE: {plan}: {fault}" for fault in bad.faults)) from None
    return text


class PlanBook:
    """Reads plans, once each."""

    def __init__(
        self, registry: Registry, *, text: str, kinds: Collection[str], settings: Mapping[str, Any], pace: Pace
    ) -> None:
        """Check the current plan.

        Raises:
            BadPlan: it cannot be carried out.
        """
        self._registry, self._text, self._kinds, self._settings = registry, text, frozenset(kinds), settings
        self._pace = pace
        self._current = parse(text, kinds=self._kinds, settings=settings)
        self._by_digest: dict[str, Plan] = {self._current.digest: self._current}

    async def keep(self) -> None:
        """Store the current plan; before the first life begins."""
        await self._registry.keep_plan(self._current.digest, self._text)

    async def needed_by(self, journal: Journal) -> Plans:
        """The plans that the lives in a journal go by; those of ended lives that cannot be carried out are named.

        Raises:
            BadPlan: that of the life that is on is not kept, or can no longer be carried out.
        """
        unusable: dict[str, str] = {}
        for digest in {sweep.life.plan for sweep in journal.sweeps}:
            try:
                await self._learn(digest)
            except BadPlan as error:
                unusable[digest] = str(error)
        if journal.life is not None:
            await self._learn(journal.life.plan)
        return Plans(self._current, self._by_digest, unusable, self._pace)

    async def _learn(self, digest: str) -> None:
        if digest in self._by_digest:
            return
        text = await self._registry.plan_text(digest)
        if text is None:
            raise BadPlan((f"plan {digest[:12]} is not kept",))
        self._by_digest[digest] = parse(text, kinds=self._kinds, settings=self._settings)
