"""References in a plan: `{tenant.…}`, `{configuration.…}`, `{steps.NAME.OUTPUT}`, `{settings.…}`, and their values.

Rule: substitution never raises and never guesses; a needed name without a value is returned by name. Substitution runs
once: a substituted value is never searched for references again. Otherwise a tenant could write `{settings.…}` into the
tenant's own configuration and read the operator's secrets.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REFERENCE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)(\?)?\}")
"""A dotted path in braces; a question mark marks an optional reference."""

_NOTHING: Final = object()
"""Marks a reference without a value. JSON null counts as no value."""


@dataclass(frozen=True, slots=True)
class Facts:
    """Values of the references.

    Attributes:
        tenant: Values of `{tenant.…}`, by the names of `plan.TENANT_NAMES`.
        configuration: The tenant's configuration.
        outputs: Name of a step to the outputs of the step.
        settings: The operator's settings, by name; some are secret.
    """

    tenant: Mapping[str, Any]
    configuration: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


def used_configuration(settings: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the part of a configuration that is named by a step's settings.

    Only this part is an input of the step, so a change of any other name calls no system.
    """
    # `{configuration}` without a name stands for the configuration as a whole.
    names = {path.split(".")[1] if "." in path else "*" for path, _ in references(settings) if _is_configuration(path)}
    return {name: value for name, value in configuration.items() if "*" in names or name in names}


def _is_configuration(path: str) -> bool:
    return path.partition(".")[0] == "configuration"


def references(value: Any) -> Iterator[tuple[str, bool]]:
    """Yields every reference in a setting, at any depth: the path, and True if the reference is optional."""
    if isinstance(value, str):
        for found in REFERENCE.finditer(value):
            yield found[1], found[2] is not None
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from references(part)


def substitute(settings: Mapping[str, Any], facts: Facts) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Replaces the references in a step's settings.

    A setting of exactly one reference takes the value unchanged, objects included; in longer text the value is written
    as text. An optional reference `{name?}` without a value drops the setting, or is empty in longer text.

    Returns:
        The settings, and the needed names without a value. If any name is missing, the settings must not be used.
    """
    missing: list[str] = []
    replaced = _replace(settings, facts, missing)
    return replaced, tuple(dict.fromkeys(missing))


def _replace(value: Any, facts: Facts, missing: list[str]) -> Any:
    if isinstance(value, str):
        return _replace_text(value, facts, missing)
    if isinstance(value, Mapping):
        parts = {name: _replace(part, facts, missing) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not _NOTHING}
    if isinstance(value, list | tuple):
        return [part for item in value if (part := _replace(item, facts, missing)) is not _NOTHING]
    return value


def _replace_text(text: str, facts: Facts, missing: list[str]) -> Any:
    whole = REFERENCE.fullmatch(text)
    if whole is not None:
        return _look_up(whole[1], whole[2] is not None, facts, missing)

    def written(found: re.Match[str]) -> str:
        value = _look_up(found[1], found[2] is not None, facts, missing)
        if isinstance(value, bool):
            return "true" if value else "false"  # as JSON and TOML write it; `str` would give Python's `True`
        return "" if value is _NOTHING else str(value)

    return REFERENCE.sub(written, text)


def _look_up(path: str, optional: bool, facts: Facts, missing: list[str]) -> Any:  # noqa: FBT001 - the mark `?`
    root, *names = path.split(".")
    value: Any = {
        "tenant": facts.tenant,
        "configuration": facts.configuration,
        "steps": facts.outputs,
        "settings": facts.settings,
    }[root]
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        if not optional:
            missing.append(path)
        return _NOTHING
    return value
