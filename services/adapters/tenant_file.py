"""TENANTS_FILE: tenantIds and configurations by integration, for what no event and no API tells.

Rules:
- The newest good file is in force. A changed file is read at the next question, in a thread; the questions of meanwhile
  take the file in force.
- A file that cannot be used changes the log alone, once a fault. Unchanged, it is read again every 2.5 s at most.
- An error text quotes names of lines and fields, and no value.

Form: `{"ORG:INTEGRATION": {"tenant_id": "acme", "configuration": {…}}, "ORG:*": {"tenant_id": "other"}}`. The line of
an integration counts before the line of the whole organisation. A tenantId belongs to one organisation: the registry
would hold the second organisation for ever.
"""

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from schemas import webhook
from schemas.tenant_file import ToldTenant
from schemas.values import UUID_PATTERN, Key, TenantId
from services.adapters.process.errors import Unusable
from services.adapters.process.file_identity import SETTLED_S, file_identity
from services.adapters.process.logs import Logger

_NAME: Final = re.compile(rf"{UUID_PATTERN}:(?:{UUID_PATTERN}|\*)", re.IGNORECASE | re.ASCII)


class TenantFile:
    """The lines of a file that may change. Use from one event loop."""

    def __init__(self, path: Path | None, log: Logger) -> None:
        """Reads the file for the first time.

        Args:
            path: TENANTS_FILE; None: no line.
            log: Logger for changes, and for each fault once.

        Raises:
            Unusable: the file cannot be used.
        """
        self._path, self._log = path, log
        # Before the content: a change during the read shows at the next question.
        self._identity = None if path is None else file_identity(path)
        self._changed_s = self._read_s = 0.0
        self._is_reading = False
        self._found: Mapping[str, ToldTenant] = {} if path is None else load(path)
        self._fault = ""

    async def of(self, key: Key, now_s: float) -> ToldTenant | None:
        """Returns the line of a key; None without one.

        Args:
            key: `orgId:integrationId`.
            now_s: Monotonic time, seconds.
        """
        await self._look(now_s)
        return self._found.get(key) or self._found.get(f"{key.partition(':')[0]}:*")

    async def _look(self, now_s: float) -> None:
        """Reads the file if it has changed, may have changed unnoticed, or could not be used before."""
        if self._path is None or self._is_reading or not self._is_due(file_identity(self._path), now_s):
            return
        self._is_reading, self._read_s = True, now_s
        try:
            found = await asyncio.to_thread(load, self._path)
        except Unusable as unusable:
            if str(unusable) != self._fault:
                self._log.error("tenants file broken", why="; ".join(str(unusable).splitlines()))
            self._fault = str(unusable)
            return
        finally:
            self._is_reading = False
        if found != self._found or self._fault:
            self._log.info("tenants file taken", count=len(found))
        self._found, self._fault = found, ""

    def _is_due(self, identity: tuple[int, ...] | None, now_s: float) -> bool:
        if identity != self._identity:
            self._identity, self._changed_s = identity, now_s
            return True
        if self._fault:
            return now_s - self._read_s >= SETTLED_S
        return now_s - self._changed_s <= SETTLED_S


def load(path: Path) -> Mapping[str, ToldTenant]:
    """Returns the lines of a file, by `orgId:integrationId` or `orgId:*`, in lower case.

    Raises:
        Unusable: the file cannot be read, or has faults; the text names every fault.
    """
    try:
        whole = webhook.read_json(path.read_bytes())
    except OSError as error:
        raise Unusable(f"TENANTS_FILE: {path}: {error.strerror}") from None
    except webhook.Malformed as fault:
        raise Unusable(f"TENANTS_FILE: {path}: the file {fault.rule}") from None
    if not isinstance(whole, dict):
        raise Unusable(f"TENANTS_FILE: {path}: the file must be a JSON object")
    found: dict[str, ToldTenant] = {}
    owners: dict[TenantId, str] = {}
    faults: list[str] = []
    for name, value in whole.items():
        line, org_id = _line(value), name.lower().partition(":")[0]
        if _NAME.fullmatch(name) is None:
            faults.append(f"{name}: must be ORG:INTEGRATION, two UUIDs, or ORG:*")
        elif isinstance(line, str):
            faults.append(f"{name}: {line}")
        elif owners.setdefault(line.tenant_id, org_id) != org_id:
            faults.append(f"{name}: {line.tenant_id} is the tenantId of another organisation")
        elif name.lower() in found:
            faults.append(f"{name}: stands there twice")
        else:
            found[name.lower()] = line
    if faults:
        raise Unusable("\n".join(f"TENANTS_FILE: {path}: {fault}" for fault in faults))
    return found


def _line(value: object) -> ToldTenant | str:
    """Returns a line, or the first fault of the line in words."""
    try:
        return ToldTenant.model_validate(value, strict=True)
    except ValidationError as error:
        fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
        where = ".".join(map(str, fault["loc"][:1]))
        if where == "tenant_id" and fault["type"] != "missing":
            return "tenant_id: must be 1 to 128 letters, digits, dots, dashes and underscores"
        return f"{where}: {fault['msg'].lower()}" if where else "must be an object with tenant_id"
