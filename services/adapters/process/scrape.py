"""Reads the state of a running service from its `/readyz` and `/metrics`, for `lifecycle doctor`.

Rule: the response is not trusted, since any process may listen on the port. A response of a different shape counts as
no answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import httpx2
from prometheus_client.parser import text_string_to_metric_families

_ASK_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """The state of a service, as reported by the service.

    Attributes:
        unanswered: The reason for a missing answer; empty text if the service answered.
        faults: Faults that make the service unready, by the name of the check.
        notes: Notes for an operator that do not make the service unready.
        metrics: Greatest value of each sample, by name. A sample with a label `result` or `step` is also entered as
            `name{VALUE}`, with the label's value.
    """

    unanswered: str = ""
    faults: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def scrape(url: str) -> ServiceStatus:
    """Read the state of a service. Blocks; each wait for the network is limited to 3 s.

    Args:
        url: The service's base URL.
    """
    base = url.rstrip("/")
    try:
        # Plain HTTP needs no CA certificates, and loading them takes long.
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
            labels = [sample.labels[label] for label in ("result", "step") if label in sample.labels]
            # The plain name has the maximum over all labels.
            for name in (sample.name, *(f"{sample.name}{{{label}}}" for label in labels)):
                found[name] = max(sample.value, found.get(name, sample.value))
    return found
