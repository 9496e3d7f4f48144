"""What really exists outside: the simulator's inventory and calls, and the schemas and roles in PostgreSQL itself.

Rule: nothing here is asked of our own services; it is the evidence against which their words are held.
"""

from dataclasses import dataclass
from typing import Any, Final

import httpx2
import psycopg

from schemas.values import Key

PROVISIONED: Final = ("middleware", "crm", "schemas", "subscriptions", "tokens")
"""What an active tenant has, in order of creation."""

ARCHIVE: Final = "archive"


@dataclass(frozen=True, slots=True)
class Outside:
    """Asks the simulator and PostgreSQL.

    Attributes:
        simulator: Its base URL.
        database_url: PostgreSQL directly, not through the simulator's proxy.
        client: Shared connections.
    """

    simulator: str
    database_url: str
    client: httpx2.Client

    def inventory(self) -> dict[str, dict[str, list[dict[str, Any]]]]:
        """What exists now: system to key to resources."""
        answer = self.client.get(f"{self.simulator}/inventory")
        answer.raise_for_status()
        found: dict[str, dict[str, list[dict[str, Any]]]] = answer.json()
        return found

    def calls(self, key: Key) -> list[dict[str, Any]]:
        """Every call about a key, in order."""
        answer = self.client.get(f"{self.simulator}/calls", params={"key": key})
        answer.raise_for_status()
        found: list[dict[str, Any]] = answer.json()
        return found

    def schemas(self) -> dict[str, str]:
        """Tenants' schemas that exist in PostgreSQL, with their comment; only those whose role exists too."""
        query = r"""
            SELECT nspname, coalesce(obj_description(n.oid, 'pg_namespace'), '')
            FROM pg_namespace n JOIN pg_roles r ON r.rolname = n.nspname WHERE nspname ~ '^t_[0-9a-f]{32}$'
        """
        with psycopg.connect(self.database_url) as session:
            return dict(session.execute(query).fetchall())

    def counts(self, key: Key) -> dict[str, int]:
        """How many resources of each system a key has."""
        found = self.inventory()
        return {system: len(found.get(system, {}).get(key, [])) for system in (*PROVISIONED, ARCHIVE)}
