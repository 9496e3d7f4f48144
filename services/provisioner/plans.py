"""Loads plans: the current plan for new lives, and by digest every plan of a life still under way.

Rule: a life is finished with the plan it began with. The plan's text is stored in the registry before the first life
begins with the plan, so PLAN_FILE may change at any time. A plan is known by the SHA-256 of its text: a changed comment
makes a new plan.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from schemas.saga import Journal
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ProvisionerSettings
from services.adapters.registry.registry import Registry
from services.adapters.secrets.named_secrets import NamedSecrets
from services.core.saga.kind_traits import KindTraits
from services.core.saga.next_move import Plans
from services.core.saga.pace import Pace
from services.core.saga.plan import BadPlan, Plan, parse
from services.core.saga.plan_check import check
from services.core.saga.plan_faults import PlanFault, of_file, of_step
from services.core.saga.references import references

PLAN_SETTINGS: Final = (
    "middleware_url",
    "subscriptions_url",
    "oauth_url",
    "oauth_client_id",
    "oauth_client_secret",
)
"""Settings of the process to which a plan may refer as `{settings.NAME}`; every further setting stays hidden."""


def settings_for_plans(settings: ProvisionerSettings) -> dict[str, Any]:
    """Returns the settings for `{settings.NAME}`; a setting without a value is None."""
    return {name: getattr(settings, name) or None for name in PLAN_SETTINGS}


def plan_path(settings: ProvisionerSettings) -> Path:
    """Returns the file of the plan for new lives: PLAN_FILE, else the shipped plan."""
    return settings.plan_file or Path(__file__).with_name("plan.toml")


def checked(text: str, settings: ProvisionerSettings, kinds: Mapping[str, KindTraits]) -> Plan:
    """Returns a plan for new lives after a complete check.

    Args:
        text: Text of the plan, TOML.
        settings: Settings of the process.
        kinds: Name to traits of the kinds in this release.

    Raises:
        BadPlan: the plan has faults; carries every fault.
    """
    found = check(text, kinds=kinds, settings=settings_for_plans(settings), allow=settings.egress_allow)
    if missing := missing_secrets(found, NamedSecrets(settings.secrets_dir, settings.plan_secrets)):
        raise BadPlan(missing)
    return found


def plan_text(settings: ProvisionerSettings, kinds: Mapping[str, KindTraits]) -> str:
    """Returns the text of the plan for new lives, after a complete check; see `text_and_plan`."""
    return text_and_plan(settings, kinds)[0]


def text_and_plan(settings: ProvisionerSettings, kinds: Mapping[str, KindTraits]) -> tuple[str, Plan]:
    """Returns the plan for new lives as text and parsed, after a complete check.

    Args:
        settings: Settings of the process.
        kinds: Name to traits of the kinds in this release.

    Raises:
        Unusable: the file cannot be read or the plan has faults; each fault names file, step and key.
    """
    plan = plan_path(settings)
    text = read_plan_file(plan, "PLAN_FILE")
    try:
        return text, checked(text, settings, kinds)
    except BadPlan as bad:
        raise Unusable("\n".join(f"PLAN_FILE: {plan}: {fault}" for fault in bad.faults)) from None


def read_plan_file(plan: Path, named: str) -> str:
    """Returns the text of a plan's file.

    Args:
        plan: The file.
        named: Setting or argument that names the file, for the error.

    Raises:
        Unusable: the file cannot be read, or is not UTF-8.
    """
    try:
        return plan.read_text(encoding="utf-8")
    except OSError as error:
        raise Unusable(f"{named}: {plan}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise Unusable(f"{named}: {plan}: not UTF-8") from None


def missing_secrets(plan: Plan, secrets: Mapping[str, str]) -> list[PlanFault]:
    """Returns one fault per secret that a checked plan names and nobody has given."""
    found = []
    for number, step in enumerate(plan.steps, 1):
        for path in sorted({path for path, _ in references(step.settings) if path.startswith("secrets.")}):
            name = path.removeprefix("secrets.")
            if name not in secrets:
                told = f"no such secret; put a file {name} into SECRETS_DIR, or name it in PLAN_SECRETS"
                found.append(of_step(number, {"name": step.name}, f"{{{path}}}: {told}"))
    return found


class PlanBook:
    """Parsed plans by digest; a usable plan is read from the registry once per process."""

    def __init__(
        self, registry: Registry, *, text: str, kinds: Mapping[str, KindTraits], settings: Mapping[str, Any], pace: Pace
    ) -> None:
        """Parses the current plan.

        Args:
            registry: Started registry.
            text: Text of the current plan.
            kinds: Name to traits of the kinds in this release.
            settings: Values for `{settings.NAME}`.
            pace: Waits between retries.

        Raises:
            BadPlan: the plan cannot be carried out.
        """
        self._registry, self._text, self._kinds, self._settings = registry, text, kinds, settings
        self._pace = pace
        self._current = parse(text, kinds=self._kinds, settings=settings)
        self._by_digest: dict[str, Plan] = {self._current.digest: self._current}

    @property
    def steps(self) -> list[str]:
        """Names of the steps of the current plan."""
        return [step.name for step in self._current.steps]

    async def keep(self) -> None:
        """Stores the current plan in the registry; required before the first life begins with the plan."""
        await self._registry.keep_plan(self._current.digest, self._text)

    async def needed_by(self, journal: Journal) -> Plans:
        """Returns the plans of all lives in a journal; `Plans.unusable` names bad plans of ended lives.

        Raises:
            BadPlan: the plan of the current life is not stored, or can no longer be carried out.
            RegistryAway: a stored plan could not be read.
        """
        unusable: dict[str, str] = {}
        # An ended life under a bad plan must not stop the current life: collected, not raised.
        for digest in {ended.life.plan for ended in journal.orphan_checks}:
            try:
                await self._learn(digest)
            except BadPlan as error:
                unusable[digest] = str(error)
        if journal.life is not None:
            await self._learn(journal.life.plan)
        return Plans(self._current, self._by_digest, unusable, self._pace)

    def known(self) -> Plans:
        """Returns the plans read so far, without the plan of any further life."""
        return Plans(self._current, self._by_digest, pace=self._pace)

    async def _learn(self, digest: str) -> None:
        if digest in self._by_digest:
            return
        text = await self._registry.plan_text(digest)
        if text is None:
            raise BadPlan((of_file(f"plan {digest[:12]} is not kept"),))
        # Parsed with the settings and kinds of today: a plan that was good when stored may be bad now.
        self._by_digest[digest] = parse(text, kinds=self._kinds, settings=self._settings)
