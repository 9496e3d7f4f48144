"""Environments of each service from docker-compose.yml and the image, read as Compose reads them, without a daemon."""

import re
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

TOP: Final = Path(__file__).parents[2]
OBSERVERS: Final = frozenset({"prometheus", "alertmanager", "grafana"})
"""Services of the profile `observe`."""
FOREIGN: Final = frozenset({"kafka", "postgres"}) | OBSERVERS
"""Services of the compose file that run other people's images."""

_VARIABLE: Final = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>[A-Z_]+)(?::-(?P<default>[^}]*))?\})")


def file(shell: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The compose file, with the variables of a shell in it: as Compose, once, in the values of what YAML has read."""
    read: dict[str, Any] = yaml.safe_load((TOP / "docker-compose.yml").read_text())
    found: dict[str, Any] = _interpolated(read, shell or {})
    return found


def services(shell: Mapping[str, str] | None = None) -> dict[str, dict[str, Any]]:
    """The services of the compose file that run our image, by name."""
    return {name: service for name, service in file(shell)["services"].items() if name not in FOREIGN}


def image() -> dict[str, str]:
    """The environment that the image gives every container."""
    final = (TOP / "deploy" / "Dockerfile").read_text().rpartition("\nFROM ")[2].replace("\\\n", " ")
    lines = re.findall(r"^ENV (.*)$", final, flags=re.MULTILINE)
    return dict(word.split("=", 1) for line in lines for word in shlex.split(line))


def environment(service: str, shell: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of one of our services."""
    given: dict[str, str] = services(shell)[service]["environment"]
    return image() | given


def mounts(service: str) -> dict[str, tuple[str, bool]]:
    """The path of each mount of a service to its volume or folder, and true where it may be written."""
    found = {}
    for text in file()["services"][service].get("volumes", ()):
        volume, path, *how = text.split(":")
        found[path] = (volume, how != ["ro"])
    return found


def mounted(service: str, path: str) -> Path:
    """The file or folder of this repository that a container has at a path."""
    for place, (source, _) in mounts(service).items():
        if source.startswith("./") and Path(path).is_relative_to(place):
            return TOP / source / Path(path).relative_to(place)
    raise AssertionError(f"{service} has nothing of this repository at {path}")


def _interpolated(value: Any, shell: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _interpolated(part, shell) for name, part in value.items()}
    if isinstance(value, list):
        return [_interpolated(part, shell) for part in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: found["dollar"] or shell.get(found["name"]) or found["default"] or "", value)
    return value
