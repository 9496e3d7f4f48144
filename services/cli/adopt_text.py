"""Formats the results of `lifecycle adopt`: as JSON, and as texts. Pure, but for the printing."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from schemas.times import rfc3339

if TYPE_CHECKING:
    from schemas.values import Key
    from services.core.saga.adoption_file import BadLine
    from services.operations.adoption import AdoptedTenant, AdoptionOrder
    from services.operations.release import ReleasedKey

BAD_LINE: Final = "bad line"


def adoption_json(order: "AdoptionOrder", bad: "Sequence[BadLine]", ends: "Sequence[AdoptedTenant]") -> dict[str, Any]:
    """Returns the result of an adoption, in the order of the file."""
    from services.operations.adoption import IN_ORDER

    lines = [_tenant_json(one) for one in ends]
    lines += [{"line": one.number, "key": None, "end": BAD_LINE, "detail": one.why, "steps": {}} for one in bad]
    return {
        "dry_run": order.dry_run,
        "by": order.act.by,
        "reason": order.act.reason,
        "as_of": rfc3339(order.told_us),
        "digest": order.act.digest,
        "lines": sorted(lines, key=lambda line: line["line"]),
        "is_done": not bad and all(one.end in IN_ORDER for one in ends),
    }


def _tenant_json(one: "AdoptedTenant") -> dict[str, Any]:
    from services.core.saga.adoption import left_text

    steps = {found.step: {"sight": found.sight, "detail": found.detail} for found in one.findings}
    detail = ": ".join(text for text in (one.detail, left_text(one.findings)) if text)
    return {"line": one.number, "key": one.key, "end": one.end, "detail": detail, "steps": steps}


def print_adoption(found: dict[str, Any]) -> None:
    """Prints every line that was not adopted, or whose resources are not as wanted, and a summary."""
    from services.cli import show, wording
    from services.operations.adoption import IN_ORDER

    short = wording.short_keys({line["key"] for line in found["lines"] if line["key"]})
    shown = [line for line in found["lines"] if line["detail"] or line["end"] not in IN_ORDER]
    rows = [
        show.ListingRow((str(line["line"]), short.get(line["key"], ""), line["end"]), note=line["detail"])
        for line in shown
    ]
    if rows:
        show.listing(("line", "key", "end"), rows)
    counts = Counter(line["end"] for line in found["lines"])
    ends = ", ".join(f"{number:,} {end}" for end, number in counts.items())
    show.say(f"{wording.counted(len(found['lines']), 'line')}: {ends}" if ends else "no tenant in the file")


def release_json(ends: "Mapping[Key, ReleasedKey]") -> dict[str, Any]:
    """Returns the result of a release."""
    from services.operations.release import ReleasedKey

    good = {ReleasedKey.RELEASED, ReleasedKey.AGAIN}
    return {
        "released": [{"key": key, "end": end} for key, end in ends.items()],
        "unknown": [key for key, end in ends.items() if end is ReleasedKey.NO_SAGA],
        "is_done": all(end in good for end in ends.values()),
    }


def print_release(found: dict[str, Any]) -> None:
    """Prints the end of each key."""
    from services.cli import show

    for one in found["released"]:
        show.styled(f"{one['key']}: {one['end']}", "")
