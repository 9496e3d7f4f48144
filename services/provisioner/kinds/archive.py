"""Kind `archive`: the audit trail of a key, kept in an object store when everything else of it is gone.

Settings: none. On the way up nothing is made; only the time is noted from which the trail of this life counts. Undoing
writes `audit.jsonl.gz` (gzip JSON Lines) and then `manifest.json` with its hashes, below `{org}/{integration}/g{n}`.
Rule: the manifest is written last, so what has one is whole. What this step "has" is a trail not yet archived: READ
answers `Absent` once the manifest is there, as for any other step whose undo is done.
"""

import asyncio
import gzip
import hashlib
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final

import obstore
from obstore.exceptions import (
    BaseError,
    InvalidPathError,
    NotSupportedError,
    PermissionDeniedError,
    UnauthenticatedError,
)
from obstore.store import ObjectStore

from schemas.times import instant, rfc3339
from services.adapters.kafka.producer import KafkaError
from services.core.saga.calls import Absent, Answer, Call, Done, Refused, RefusedUs, Retryable, Unknown, Verb

AuditOf = Callable[[str, int | None], Awaitable[list[bytes]]]
"""A key's audit records as JSON lines, from an instant (µs) on."""

TRAIL: Final = "audit.jsonl.gz"
MANIFEST: Final = "manifest.json"
_BEFORE_US: Final = 24 * 3_600 * 1_000_000
"""The trail of a life begins before its first step: with its deliveries, which may have waited in a spool."""
_REFUSALS: Final = (
    PermissionDeniedError,
    UnauthenticatedError,
    NotSupportedError,
    InvalidPathError,
    PermissionError,
    NotADirectoryError,
)
_JUDGED: Final = re.compile(r"status code: (?!408|423|425|429)4\d\d|redirect without LOCATION")
"""In obstore's words for an answer that no other exception stands for; its tests hold the words to the library."""
_REMEDY: Final = "make ARCHIVE_URL name a bucket or a folder that exists, with credentials that may write there"


class ArchiveKind:
    """Archives a trail."""

    def __init__(self, store: ObjectStore, audit_of: AuditOf, now_us: Callable[[], int]) -> None:
        self._store = store
        self._audit_of = audit_of
        self._now_us = now_us

    async def call(self, call: Call) -> Answer:
        """Carry one call out."""
        writing = [False]
        try:
            async with asyncio.timeout(call.timeout_s):
                if call.verb is Verb.DELETE:
                    return await self._archive(call, writing)
                if call.verb is Verb.READ:
                    return await self._read(call)
                if call.verb is Verb.UPDATE:
                    return Done(call.outputs)  # without its beginning, the trail is archived whole
                return Done({"since": rfc3339(self._now_us()), **call.outputs})
        except (TimeoutError, KafkaError, BaseError, OSError) as error:
            return _failed(error, writing=writing[0])

    async def close(self) -> None:
        """Nothing of its own is open."""

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
            if "NoSuchBucket" in str(error):
                return RefusedUs("NoSuchBucket", _REMEDY)
            return Done(call.outputs)
        return Absent()


def _failed(error: BaseException, *, writing: bool) -> Answer:
    """What an error means: the store is away, or its set-up must change."""
    reason = type(error).__name__
    missing = writing and isinstance(error, FileNotFoundError)
    if missing or isinstance(error, _REFUSALS) or _JUDGED.search(str(error)):
        return RefusedUs(reason, _REMEDY)
    return Unknown(reason) if writing else Retryable(reason)


def pack(lines: list[bytes], call: Call, now_us: int) -> tuple[bytes, bytes]:
    """The trail and its manifest; equal lines give equal trails, to the byte."""
    text = b"".join(line.strip() + b"\n" for line in lines)
    trail = gzip.compress(text, mtime=0)
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
    """Where a life's archive is; None for a key that has not the shape of one, so that no path is ever climbed."""
    org, colon, integration = call.key.partition(":")
    if not colon or not all(part.replace("-", "").isalnum() and part.isascii() for part in (org, integration)):
        return None
    return f"{org}/{integration}/g{call.generation}"
