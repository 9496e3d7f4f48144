"""Rules of Prometheus and routes of Alertmanager with shorter times: at a scale of 60 an hour lasts a minute. Pure.

Rule: every time is divided, and no other number: windows, offsets, `for`, and the limits that a metric of seconds is
compared with. A limit on a number of events or on a ratio stays, and so does the bucket of a histogram.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

_UNITS_MS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_PART: Final = re.compile(r"(\d+)(ms|[smhd])")
_WINDOW: Final = re.compile(r"\[(\w+)\]")
_OFFSET: Final = re.compile(r"\boffset (\w+)")
_OF_SECONDS: Final = re.compile(r"_seconds(?!\w)")
"""The end of a metric of seconds; `_seconds_bucket`, `_seconds_count` and `_seconds_sum` count events."""
_CLAUSES: Final = re.compile(r"(\b(?:and|or|unless)\b)")
_LIMIT: Final = re.compile(r"[<>]=? \d+(?: \* \d+)?")
_TIMINGS: Final = frozenset({"group_wait", "group_interval", "repeat_interval"})


def duration(text: str, scale: int) -> str:
    """Returns a duration of Prometheus, such as `2m` or `1h30m`, divided by the scale."""
    return _written(_milliseconds(text) // scale)


def windows(expr: str, scale: int, least_s: float) -> str:
    """Returns a PromQL expression with every window divided by the scale, and none shorter than `least_s`."""
    least_ms = int(least_s * 1_000)
    return _WINDOW.sub(lambda found: f"[{_written(max(_milliseconds(found[1]) // scale, least_ms))}]", expr)


def _milliseconds(text: str) -> int:
    return sum(int(number) * _UNITS_MS[unit] for number, unit in _PART.findall(text))


def _written(whole_ms: int) -> str:
    return f"{whole_ms}ms" if whole_ms % 1_000 else f"{whole_ms // 1_000}s"


def expression(expr: str, scale: int) -> str:
    """Returns a PromQL expression with every time in it divided by the scale."""
    expr = _windows(expr, scale)
    expr = _OFFSET.sub(lambda found: f"offset {duration(found[1], scale)}", expr)
    # A division binds closer than a comparison: the limit alone is divided, and only in a clause of seconds.
    clauses = (
        _LIMIT.sub(rf"\g<0> / {scale}", clause) if _OF_SECONDS.search(clause) else clause
        for clause in _CLAUSES.split(expr)
    )
    return "".join(clauses)


def rules(file: Mapping[str, Any], scale: int) -> dict[str, Any]:
    """Returns the content of a rule file with every time divided by the scale."""
    return {"groups": [{**group, "rules": [_rule(each, scale) for each in group["rules"]]} for group in file["groups"]]}


def routes(file: Mapping[str, Any], scale: int, receiver: str) -> dict[str, Any]:
    """Returns the content of Alertmanager's file with shorter timings, and another address for every receiver.

    Args:
        file: The content.
        scale: The divisor of every timing.
        receiver: Base URL of the receiver; the last part of each path stays.
    """
    receivers = [
        {
            **each,
            "webhook_configs": [
                {**one, "url": f"{receiver}/{one['url'].rpartition('/')[2]}"} for one in each["webhook_configs"]
            ],
        }
        for each in file["receivers"]
    ]
    return {**file, "route": _route(file["route"], scale), "receivers": receivers}


def _windows(text: str, scale: int) -> str:
    return _WINDOW.sub(lambda found: f"[{duration(found[1], scale)}]", text)


def _rule(rule: Mapping[str, Any], scale: int) -> dict[str, Any]:
    shorter = {**rule, "expr": expression(rule["expr"], scale)}
    if "annotations" in rule:
        # An annotation may ask Prometheus as well.
        texts = rule["annotations"].items()
        shorter["annotations"] = {name: _windows(text, scale) for name, text in texts}
    if "for" in rule:
        shorter["for"] = duration(rule["for"], scale)
    return shorter


def _route(route: Mapping[str, Any], scale: int) -> dict[str, Any]:
    shorter = {name: duration(value, scale) if name in _TIMINGS else value for name, value in route.items()}
    if "routes" in route:
        shorter["routes"] = [_route(each, scale) for each in route["routes"]]
    return shorter
