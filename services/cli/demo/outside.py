"""Reads the state of the outside systems: the simulator's inventory and calls, and PostgreSQL's schemas and roles.

Rule: no service of the lifecycle is asked. So the result is independent evidence for checks of the services' claims.
"""

from dataclasses import dataclass
from typing import Any, Final

import httpx2
import psycopg

from schemas.values import Key

PROVISIONED: Final = ("middleware", "crm", "schemas", "subscriptions", "tokens")
"""Systems with a resource of every active tenant, in order of creation."""

ARCHIVE: Final = "archive"


@dataclass(frozen=True, slots=True)
class Outside:
    """Queries the simulator and PostgreSQL. All methods block.

    Attributes:
        simulator: Base URL of the simulator.
        database_url: URL of PostgreSQL itself, not of the simulator's proxy.
        client: HTTP client with shared connections.
    """

    simulator: str
    database_url: str
    client: httpx2.Client

    def inventory(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """Returns the present resources by system and key.

        Raises:
            httpx2.HTTPError: The simulator cannot be reached, or answers an error.
        """
        answer = self.client.get(f"{self.simulator}/inventory")
        answer.raise_for_status()
        found: dict[str, dict[str, list[dict[str, Any]]]] = answer.json()
        return found

    def calls(self, key: Key) -> list[dict[str, Any]]:
        """Returns all calls about a key, in order of effect.

        Raises:
            httpx2.HTTPError: The simulator cannot be reached, or answers an error.
        """
        answer = self.client.get(f"{self.simulator}/calls", params={"key": key})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def schemas(self) -> dict[str, str]:
        """Returns the tenants' schemas in PostgreSQL with comments; a schema without a role of its name is left out.

        Raises:
            psycopg.Error: PostgreSQL cannot be reached or refuses.
        """
        query = r"""
            SELECT nspname, coalesce(obj_description(n.oid, 'pg_namespace'), '')
            FROM pg_namespace n JOIN pg_roles r ON r.rolname = n.nspname WHERE nspname ~ '^t_[0-9a-f]{32}$'
        """
        with psycopg.connect(self.database_url) as session:
            return dict(session.execute(query).fetchall())

    def counts(self, key: Key) -> dict[str, int]:
        """Returns the number of resources of a key in each system, the archive included."""
        found = self.inventory()
        return {system: len(found.get(system, {}).get(key, [])) for system in (*PROVISIONED, ARCHIVE)}
