"""Hides the secrets of a saga's values before people see a call: a mask in angle brackets names what is hidden.

Rules:
- Values are hidden before references are replaced, so no secret reaches a longer text.
- A name of a tenant's configuration is shown only if the name may leave the restricted topics (PUBLISHED_NAMES);
  every further value counts as a secret. So does a setting with a secret in the environment, a sealed output, and a
  literal of the plan under a name for a secret.
- A hidden value found in an output or a location is hidden there too: a system may echo an input.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from schemas.saga import Journal, StepLog
from schemas.values import Json
from services.core.saga.plan import Plan, Step
from services.core.saga.plan_urls import is_secret_name
from services.core.saga.references import references

_USER: Final = re.compile(r"([a-z][a-z0-9+.-]*://)[^/?#@\s]*@", re.IGNORECASE)
_SEALED: Final = "$sealed"
_ECHO_LEAST: Final = 6
"""Characters of a hidden text from which the text is searched in outputs; a shorter one would match by chance."""


@dataclass(frozen=True, slots=True)
class Masks:
    """Decides which values are hidden.

    Attributes:
        published: Names of a configuration that may be shown.
        secret_settings: Names of `{settings.NAME}` with a secret.
        echoes: Hidden text to its mask; collected by `masks_for`.
    """

    published: Collection[str]
    secret_settings: Collection[str]
    echoes: Mapping[str, str] = field(default_factory=dict, repr=False)

    def configuration(self, configuration: Mapping[str, Any]) -> Json:
        """Returns a configuration with the hidden values replaced; names and nesting stay."""
        return {
            name: value if name in self.published else _masked(value, f"configuration.{name}")
            for name, value in configuration.items()
        }

    def settings(self, given: Mapping[str, Any]) -> Json:
        """Returns the values of `{settings.…}` with the secret ones replaced; a URL without its user and password."""
        return {
            name: _masked(value, f"settings.{name}") if name in self.secret_settings else without_user(value)
            for name, value in given.items()
        }

    def step(self, step: Step) -> Step:
        """Returns a step of the plan with its secret literals and the secret settings replaced."""
        return replace(step, settings=_without_literals(step.settings, ""), given=self.settings(step.given))

    def log(self, step: Step, log: StepLog) -> StepLog:
        """Returns the log of a step with hidden inputs, outputs and locations."""
        inputs = {**log.inputs}
        if isinstance(inputs.get("configuration"), Mapping):
            inputs["configuration"] = self.configuration(inputs["configuration"])
        secret = step.traits.secret_outputs_of(step.settings)
        change = {
            "inputs": inputs,
            "outputs": self._outputs(step.name, log.outputs, secret),
            "previous_outputs": self._outputs(step.name, log.previous_outputs, secret),
            "location": self.scrubbed(log.location),
            "locations": tuple(map(self.scrubbed, log.locations)),
        }
        return log.model_copy(update=change)

    def journal(self, journal: Journal, plan: Plan) -> Journal:
        """Returns a journal with the logs of the present life hidden.

        Args:
            journal: The journal.
            plan: The plan of the present life; a log of no step of the plan is left out.
        """
        if journal.life is None:
            return journal
        logs = {step.name: self.log(step, log) for step in plan.steps if (log := journal.life.steps.get(step.name))}
        return journal.model_copy(update={"life": journal.life.model_copy(update={"steps": logs})})

    def _outputs(self, step: str, outputs: Mapping[str, Any], secret: Collection[str]) -> Json:
        return {
            name: f"<steps.{step}.{name}: hidden>"
            if name in secret or (isinstance(value, Mapping) and _SEALED in value)
            else self.scrubbed(value)
            for name, value in outputs.items()
        }

    def scrubbed(self, value: Any) -> Any:
        """Returns an output or a location with every hidden text replaced."""
        if isinstance(value, Mapping):
            return {name: self.scrubbed(part) for name, part in value.items()}
        if isinstance(value, list | tuple):
            return [self.scrubbed(part) for part in value]
        if not isinstance(value, str):
            return value
        for text, mask in self.echoes.items():
            value = value.replace(text, mask)
        return without_user(value)


def masks_for(masks: Masks, journal: Journal, configuration: Mapping[str, Any], given: Mapping[str, Any]) -> Masks:
    """Returns the masks with every hidden text of a saga, for a search in outputs and locations.

    Args:
        masks: The rules.
        journal: The journal; the inputs of its steps may be older than the configuration.
        configuration: The newest configuration.
        given: Values of `{settings.…}`.
    """
    life = journal.life
    of_logs = [log.inputs.get("configuration", {}) for log in life.steps.values()] if life else []
    found: dict[str, str] = {}
    for one in [configuration, *of_logs]:
        for name, value in one.items() if isinstance(one, Mapping) else ():
            if name not in masks.published:
                found |= dict.fromkeys(_long_texts(value), f"<configuration.{name}: hidden>")
    for name in masks.secret_settings:
        found |= dict.fromkeys(_long_texts(given.get(name)), f"<settings.{name}: hidden>")
    # The longest first: a short hidden text may be a part of a long one.
    return replace(masks, echoes=dict(sorted(found.items(), key=lambda one: -len(one[0]))))


def without_user(value: Any) -> Any:
    """Returns a text with user and password of every URL replaced; any further value unchanged."""
    return _USER.sub(r"\1<user: hidden>@", value) if isinstance(value, str) else value


def _masked(value: Any, path: str) -> Any:
    """Returns the mask of a value; the parts of a table are masked one by one, and null stays null."""
    if isinstance(value, Mapping):
        return {name: _masked(part, f"{path}.{name}") for name, part in value.items()}
    # A value that a rehearsal has made up says itself that there is none.
    return value if value is None or value == f"<{path}: missing>" else f"<{path}: hidden>"


def _without_literals(value: Any, path: str) -> Any:
    """Returns a setting with every secret literal replaced."""
    if isinstance(value, Mapping):
        return {name: _without_literals(part, f"{path}.{name}".lstrip(".")) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_literals(part, path) for part in value]
    name = path.rpartition(".")[2]
    is_secret = is_secret_name(name) or name.lower() == "authorization"
    # Text with a reference shows the reference, and the value of the reference is hidden by its own rule.
    if is_secret and isinstance(value, str) and not any(references(value)):
        return f"<{path}: hidden>"
    return without_user(value)


def _long_texts(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for part in value.values():
            yield from _long_texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _long_texts(part)
    elif isinstance(value, str) and len(value) >= _ECHO_LEAST:
        yield value
