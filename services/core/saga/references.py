"""References in a plan: `{tenant.…}`, `{configuration.…}`, `{steps.NAME.OUTPUT}`, `{settings.…}`, and their values.

Rule: replacing is total: what is needed and missing is returned by name, never raised and never guessed. It is done
once: what replaces a reference is never read for references itself, whoever wrote it.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

REFERENCE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)(\?)?\}")
"""A dotted path; a question mark says that it may be missing."""

_NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Facts:
    """What references are replaced with.

    Attributes:
        tenant: By the names of `TENANT_NAMES`.
        configuration: The tenant's.
        outputs: Name of a step to its outputs.
        settings: The operator's, by name; some are secret.
    """

    tenant: Mapping[str, Any]
    configuration: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)


def used_configuration(settings: Mapping[str, Any], configuration: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a configuration that the step's settings name."""
    names = {path.split(".")[1] if "." in path else "*" for path, _ in references(settings) if _of_tenant(path)}
    return {name: value for name, value in configuration.items() if "*" in names or name in names}


def _of_tenant(path: str) -> bool:
    return path.partition(".")[0] == "configuration"


def references(value: Any) -> Iterator[tuple[str, bool]]:
    """Every reference in a setting, however deep, and whether it may be missing."""
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
    """Replace the references of a step's settings.

    A setting that is one reference and nothing else takes the value as it is, objects included; in longer text the
    value is written out. `{name?}` may be missing: alone it drops the setting, in text it is empty.

    Returns:
        The settings, and the names that are needed and missing (then the settings are of no use).
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
            return "true" if value else "false"
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
