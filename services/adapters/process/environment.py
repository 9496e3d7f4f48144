"""Reads a section of the settings from an environment. A bad environment reports all of the section's faults at once.

Rule: a variable is judged with a section that has its field, and ignored with every further section. So a fault in a
variable of one service stops no neighbour.
"""

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from services.adapters.process import database_url
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ProcessSettings

Section = TypeVar("Section", bound=ProcessSettings)

_PASSWORDS: Final = {
    "DATABASE_URL": "DATABASE_PASSWORD",
    "TENANT_DATABASE_URL": "TENANT_DATABASE_PASSWORD",
}
"""The password's variable by the URL's variable, for each database."""


def read(environment: Mapping[str, str], section: type[Section]) -> Section:
    """Return a section of the settings; empty variables count as absent.

    Args:
        environment: The environment; names of variables are taken in any case of letters.
        section: The section of a service, or `Settings` for all fields.

    Raises:
        Unusable: a variable of the section is invalid; the text has a line for each fault.
    """
    faults = []
    given = {name: text for name, text in environment.items() if text and name.lower() in section.model_fields}
    try:
        given = complete(given)
    except Unusable as unusable:
        faults.append(str(unusable))
    try:
        found = section.model_validate({name.lower(): text for name, text in given.items()})
    except ValidationError as error:
        faults += [line for fault in error.errors(include_url=False) for line in _fault_lines(fault)]
    if faults:
        raise Unusable("\n".join(faults))
    return found


def _fault_lines(fault: Any) -> list[str]:
    """Return a validation error as text, a line for each fault of the variable."""
    name, *inside = fault["loc"]
    where = ": ".join((str(name).upper(), *map(str, inside)))
    return [f"{where}: {line}" for line in str(fault["msg"]).removeprefix("Value error, ").splitlines()]


def complete(environment: Mapping[str, str]) -> dict[str, str]:
    """Insert the separate password of each database into the database's URL.

    Raises:
        Unusable: a URL cannot be parsed; the text has a line for each fault.
    """
    completed, faults = dict(environment), []
    for name, password in _PASSWORDS.items():
        try:
            if url := environment.get(name):
                completed[name] = database_url.complete(url, environment.get(password) or None)
        except ValueError as error:
            faults.append(f"{name}: {error}, or give the password as it is in {password}")
    if faults:
        raise Unusable("\n".join(faults))
    return completed
