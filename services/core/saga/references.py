"""References in a plan, and their values.

`{tenant.…}`, `{configuration.…}`, `{steps.NAME.OUTPUT}` and `{settings.…}` are replaced before the call of a kind.
`{resource.OUTPUT}` and `{secrets.NAME}` are *late*: a kind replaces them in the moment of a request. The hash of a
step's settings must change neither with an id made by the system nor with a renewed secret, and a secret must be in no
value that lives longer than a request.

Rule: substitution never raises and never guesses; a needed name without a value is returned by name. Substitution runs
once: a substituted value is never searched for references again. Otherwise a tenant could write `{settings.…}` into the
tenant's own configuration and read the operator's secrets.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

REFERENCE: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)(\?)?\}")
"""A dotted path in braces; a question mark marks an optional reference."""

LATE: Final = frozenset({"resource", "secrets"})
"""Roots of late references."""

_NOTHING: Final = object()
"""Marks a reference without a value. JSON null counts as no value."""


class TextPart(NamedTuple):
    """A part of a text with references.

    Attributes:
        text: The text as written in the plan, or the value of a reference as text.
        filled: True for the value of a reference; such a part may come from a tenant.
        late: Path of a late reference; None for any further part.
        optional: True if a late reference may be missing.
    """

    text: str
    filled: bool = False
    late: str | None = None
    optional: bool = False


class FilledText(str):
    """A text with replaced references, and the parts of the text.

    A late reference is in the text as written in the plan. The parts distinguish a reference of the plan from equal
    characters in a tenant's value, so a tenant can name no secret.

    Attributes:
        parts: The parts in order; a single late part for a text of exactly one late reference.
    """

    __slots__ = ("parts",)
    parts: tuple[TextPart, ...]

    @classmethod
    def of(cls, parts: tuple[TextPart, ...]) -> "FilledText":
        """Returns the text of the parts."""
        text = cls("".join(part.text for part in parts))
        text.parts = parts
        return text


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


def fill_late(value: Any, known: Mapping[str, Mapping[str, Any]]) -> tuple[Any, tuple[str, ...]]:
    """Replaces the late references in a substituted setting.

    Args:
        value: The setting, at any depth.
        known: Values by root (`LATE`) and name.

    Returns:
        The value, and the needed names without a value. If any name is missing, the value must not be used.
    """
    missing: list[str] = []
    filled = _fill(value, known, missing)
    return (None if filled is _NOTHING else filled), tuple(dict.fromkeys(missing))


def late_references(value: Any) -> Iterator[str]:
    """Yields the path of every late reference in a substituted setting, at any depth."""
    if isinstance(value, FilledText):
        yield from (part.late for part in value.parts if part.late is not None)
    elif isinstance(value, Mapping | list | tuple):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from late_references(part)


def late_value(part: TextPart, known: Mapping[str, Mapping[str, Any]]) -> Any:
    """Returns the value of a late part; None without a value."""
    root, _, name = (part.late or "").partition(".")
    return known.get(root, {}).get(name)


def as_text(value: Any) -> str:
    """Returns a value as text in a longer text; booleans as JSON and TOML write them."""
    if isinstance(value, bool):
        return "true" if value else "false"  # `str` would give Python's `True`
    return str(value)


def _fill(value: Any, known: Mapping[str, Mapping[str, Any]], missing: list[str]) -> Any:
    if isinstance(value, FilledText):
        return _fill_text(value, known, missing)
    if isinstance(value, Mapping):
        parts = {name: _fill(part, known, missing) for name, part in value.items()}
        return {name: part for name, part in parts.items() if part is not _NOTHING}
    if isinstance(value, list | tuple):
        return [part for item in value if (part := _fill(item, known, missing)) is not _NOTHING]
    return value


def _fill_text(text: FilledText, known: Mapping[str, Mapping[str, Any]], missing: list[str]) -> Any:
    written = []
    for part in text.parts:
        value = late_value(part, known) if part.late is not None else part.text
        if value is None and not part.optional:
            missing.append(part.late or "")
        if len(text.parts) == 1:
            return _NOTHING if value is None else value
        written.append("" if value is None else as_text(value))
    return "".join(written)


def _replace_text(text: str, facts: Facts, missing: list[str]) -> Any:
    whole = REFERENCE.fullmatch(text)
    if whole is not None and not _is_late(whole[1]):
        return _look_up(whole[1], whole[2] is not None, facts, missing)
    parts, end = list[TextPart](), 0
    for found in REFERENCE.finditer(text):
        if found.start() > end:
            parts.append(TextPart(text[end : found.start()]))
        end = found.end()
        if _is_late(found[1]):
            parts.append(TextPart(found[0], late=found[1], optional=found[2] is not None))
            continue
        value = _look_up(found[1], found[2] is not None, facts, missing)
        parts.append(TextPart("" if value is _NOTHING else as_text(value), filled=True))
    if not parts:
        return text
    return FilledText.of((*parts, TextPart(text[end:])) if end < len(text) else tuple(parts))


def _is_late(path: str) -> bool:
    return path.partition(".")[0] in LATE


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
