"""Kind `archive`: keeps the audit trail of a life in an object store after the tenant's resources are gone.

Settings: none. CREATE makes no request; the output `since` is the time at which the life began. DELETE writes
`audit.jsonl.gz` (gzip JSON Lines), then `manifest.json` with hashes, below `{org}/{integration}/g{generation}`.

Rule: the manifest is written last, so an archive with a manifest is complete. A crash before leaves no manifest, and
the repeated DELETE overwrites both objects. READ answers in terms of the undo: the resource of this step is a trail
not yet archived, so READ answers `Done` without a manifest and `Absent` with a manifest.
"""

import asyncio
import gzip
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, Final, Self

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore, from_url

from schemas.times import instant, rfc3339
from services.adapters.kafka.producer import KafkaError
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import ProvisionerSettings
from services.core.saga.calls import Absent, Answer, Call, Done, OperatorRefused, Refused, Retryable, Unknown, Verb
from services.core.saga.kind_traits import KindTraits, SystemBy
from services.provisioner.kinds.step_kind import PlannedRequest, Shared

AuditOf = Callable[[str, int | None], Awaitable[list[bytes]]]
"""Returns the audit records of a key as JSON lines, from a time on (microseconds UTC; None: all)."""

TRAIL: Final = "audit.jsonl.gz"
MANIFEST: Final = "manifest.json"
_BEFORE_US: Final = 24 * 3_600 * 1_000_000
"""The trail begins a day before the first step of the life: the life's first deliveries are older, since deliveries may
wait in a spool."""
_REFUSALS: Final = (
    PermissionDeniedError,
    UnauthenticatedError,
    NotSupportedError,
    InvalidPathError,
    PermissionError,
    NotADirectoryError,
)
_JUDGED: Final = re.compile(r"status code: (?!408|423|425|429)4\d\d|redirect without LOCATION")
"""Matches obstore's text for 4xx responses without an exception class of their own; 408, 423, 425 and 429 are passing.
An integration test holds the words to the installed obstore."""
_REMEDY: Final = "make ARCHIVE_URL name a bucket or a folder that exists, with credentials that may write there"


class ArchiveKind:
    """Archives the trail of a life."""

    traits: ClassVar = KindTraits(
        name="archive",
        meaning="Notes when a life begins, and archives its audit trail when it is undone.",
        keys=(),
        outputs=("since", "archive"),
        secret_outputs=frozenset(),
        credentials=frozenset(),
        system=SystemBy.STEP,
        silent_verbs=frozenset({Verb.CREATE, Verb.UPDATE}),
        reissued=False,
        left_behind=True,
    )

    def __init__(self, store: ObjectStore, audit_of: AuditOf, now_us: Callable[[], int]) -> None:
        self._store = store
        self._audit_of = audit_of
        self._now_us = now_us

    @classmethod
    def build(cls, settings: ProvisionerSettings, shared: Shared) -> Self:
        """Returns the kind for the object store of ARCHIVE_URL, else for a folder below STATE_DIR.

        Raises:
            Unusable: ARCHIVE_URL cannot be used.
        """
        return cls(_store(settings), shared.trail.records_of, shared.now_us)

    @staticmethod
    def requests_of(call: Call) -> tuple[PlannedRequest, ...]:
        """Returns the objects of an undo; creating makes no request."""
        if call.verb is Verb.DELETE:
            return tuple(PlannedRequest(f"write {_folder(call)}/{name}") for name in (TRAIL, MANIFEST))
        return (PlannedRequest(f"look for {_folder(call)}/{MANIFEST}"),) if call.verb is Verb.READ else ()

    async def call(self, call: Call) -> Answer:
        """Carries out one call."""
        # One flag, set by `_archive` before its first write: an error before is `Retryable`, an error after `Unknown`.
        writing = [False]
        try:
            async with asyncio.timeout(call.timeout_s):
                if call.verb is Verb.DELETE:
                    return await self._archive(call, writing)
                if call.verb is Verb.READ:
                    return await self._read(call)
                if call.verb is Verb.UPDATE:
                    # Outputs without `since` stay without: the trail is then archived from its first record on.
                    return Done(call.outputs)
                # An earlier `since` wins, so a repeated CREATE shortens no trail.
                return Done({"since": rfc3339(self._now_us()), **call.outputs})
        except (TimeoutError, KafkaError, BaseError, OSError) as error:
            return _failed(error, writing=writing[0])

    async def close(self) -> None:
        """Does nothing: this kind keeps no connection."""

    async def _archive(self, call: Call, writing: list[bool]) -> Answer:
        folder = _folder(call)
        if folder is None:
            return Refused("key: not orgId:integrationId", heard=False)
        since = call.outputs.get("since")
        lines = await self._audit_of(call.key, instant(since) - _BEFORE_US if since else None)
        trail, manifest = pack(lines, call, self._now_us())
        writing[0] = True
        await obstore.put_async(self._store, f"{folder}/{TRAIL}", trail)
        await obstore.put_async(self._store, f"{folder}/{MANIFEST}", manifest)
        return Done({"archive": folder})

    async def _read(self, call: Call) -> Answer:
        try:
            await obstore.head_async(self._store, f"{_folder(call)}/{MANIFEST}")
        except FileNotFoundError as error:
            # A missing bucket looks like a missing manifest and must not count as "not yet archived".
            if "NoSuchBucket" in str(error):
                return OperatorRefused("NoSuchBucket", _REMEDY)
            return Done(call.outputs)
        return Absent()


def _store(settings: ProvisionerSettings) -> ObjectStore:
    """Returns the object store of the archive; a missing folder of a `file:` URL is made.

    Raises:
        Unusable: ARCHIVE_URL cannot be used.
    """
    url = settings.archive_url or (settings.state_dir / "archive").absolute().as_uri()
    try:
        if url.startswith("file:"):
            return from_url(url, mkdir=True)
        # No retries in the client: the saga retries, with waits and a record in the journal. Plain http is allowed
        # for an object store on the operator's own network; the URL never comes from an event.
        return from_url(url, client_options={"allow_http": True}, retry_config={"max_retries": 0})
    except Exception as error:  # noqa: BLE001 - obstore raises several unrelated classes for a URL it cannot use
        raise Unusable(f"ARCHIVE_URL: {error}") from None


def _failed(error: BaseException, *, writing: bool) -> Answer:
    """Returns the answer for an error: the operator is refused, or the object store is away."""
    reason = type(error).__name__
    # On a write, "not found" means the bucket or folder of ARCHIVE_URL.
    missing = writing and isinstance(error, FileNotFoundError)
    if missing or isinstance(error, _REFUSALS) or _JUDGED.search(str(error)):
        return OperatorRefused(reason, _REMEDY)
    return Unknown(reason) if writing else Retryable(reason)


def pack(lines: list[bytes], call: Call, now_us: int) -> tuple[bytes, bytes]:
    """Returns the compressed trail and its manifest; equal lines give an equal trail, to the byte.

    Args:
        lines: Audit records, JSON.
        call: Call with key, generation and tenantId.
        now_us: Time for the manifest, microseconds UTC.
    """
    text = b"".join(line.strip() + b"\n" for line in lines)
    trail = gzip.compress(text, mtime=0)  # gzip would store the current time
    manifest: dict[str, Any] = {
        "key": call.key,
        "generation": call.generation,
        "tenant_id": call.tenant_id,
        "archived_at": rfc3339(now_us),
        "records": len(lines),
        "trail": {"name": TRAIL, "bytes": len(trail), "sha256": hashlib.sha256(trail).hexdigest()},
        "lines": {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()},
    }
    return trail, json.dumps(manifest, indent=2).encode() + b"\n"


def _folder(call: Call) -> str | None:
    """Returns the folder of a life's archive; None for a malformed key.

    Only ASCII letters, digits and hyphens are accepted, so a key can never climb out of the archive by `..` or `/`.
    """
    org, colon, integration = call.key.partition(":")
    if not colon or not all(part.replace("-", "").isalnum() and part.isascii() for part in (org, integration)):
        return None
    return f"{org}/{integration}/g{call.generation}"
