"""Prepared deliveries, signed as the sender signs them: every one is another event, so that no server sees a repeat."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

from schemas.times import rfc3339
from services.core.delivery.signature import sign

SECRET = "bench-secret-0123456789-0123456789-abcdef"
_MARK = "00000000-0000-4000-8000-000000000000"


def prepare(count: int, now_us: int) -> Iterator[tuple[str, bytes]]:
    """Signature and body of that many; the guide's payload with an `eventId`, about 440 bytes."""
    template = json.dumps(
        {
            "event": "installed",
            "integrationId": _MARK,
            "orgId": "98765432-1234-5678-9abc-def012345678",
            "tenantId": "tenant_acme_corp",
            "configuration": {
                "crmEndpoint": "https://acme.salesforce.com",
                "syncInterval": "PT5M",
                "featureFlags": ["voice_routing", "omnichannel_queue"],
            },
            "eventTimestamp": rfc3339(now_us),
            "metadata": {"installedBy": "admin@acme.com", "source": "marketplace", "eventId": _MARK},
        },
        separators=(",", ":"),
    )
    for number in range(count):
        raw = template.replace(_MARK, str(uuid.UUID(int=(now_us << 24) + number))).encode()
        yield sign(SECRET.encode(), raw), raw


def write(path: Path, count: int, now_us: int) -> None:
    """The same as a file for `post.lua`."""
    with path.open("wb") as file:
        for signature, raw in prepare(count, now_us):
            file.write(signature.encode() + b"\t" + raw + b"\n")
