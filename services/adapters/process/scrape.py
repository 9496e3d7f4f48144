"""Asks a running service how it stands: `/readyz`, and what its `/metrics` count.

Rule: what it answers is another process's word: anything that is not of the shape counts as no answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families

_ASK_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as it says itself.

    Attributes:
        unanswered: Why nothing is known; empty text where something is.
        faults: What keeps it from work, by the name of its check.
        notes: What is not as it should be, and keeps it from nothing.
        metrics: Name of a sample to its greatest value; one with a `result` or a `system` stands as `name{result}` as
            well.
    """

    unanswered: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def scrape(url: str) -> ServiceStatus:
    """Ask a service. Blocks.

    Args:
        url: Its base URL.
    """
    base = url.rstrip("/")
    try:
        # To read the certificates of the world takes long, and plain HTTP needs none.
        with httpx2.Client(timeout=_ASK_S, trust_env=False, verify=base.startswith("https:")) as client:
            ready, counted = client.get(f"{base}/readyz"), client.get(f"{base}/metrics")
            told = ready.json()
        faults = {name: text for name, text in told["checks"].items() if text != "ok"}
        notes = dict(told.get("notes", {}))
        metrics = _greatest(counted.text) if counted.status_code == httpx2.codes.OK else {}
    except httpx2.ConnectError:
        return ServiceStatus("nothing listens there, or its host has no address")
    except httpx2.TimeoutException:
        return ServiceStatus(f"no answer within {_ASK_S:g} s")
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        return ServiceStatus(f"no answer ({type(error).__name__})")
    except (ValueError, KeyError, TypeError, AttributeError):
        return ServiceStatus("what answers there is no service of ours")
    return ServiceStatus("", faults, notes, metrics)


def _greatest(text: str) -> dict[str, float]:
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [sample.labels[label] for label in ("result", "system") if label in sample.labels]
            for name in (sample.name, *(f"{sample.name}{{{label}}}" for label in labels)):
                found[name] = max(sample.value, found.get(name, sample.value))
    return found
