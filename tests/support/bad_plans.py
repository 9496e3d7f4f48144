"""Reads the corpus of bad plans, `bad_plans.txt`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from services.core.saga.plan import TENANT_NAMES
from services.core.saga.plan_keys import STEP
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import PLAN_SETTINGS

SETTINGS: Final[Mapping[str, str]] = {
    "MIDDLEWARE_URL": "http://middleware:8080", "OAUTH_URL": "http://tokens:8080", "OAUTH_CLIENT_SECRET": "canary",
    "EGRESS_ALLOW": "*.salesforce.com",
}  # fmt: skip
"""The environment of the runs. A plan of the corpus has every secret as `canary`, which no sentence may show."""

_LISTS: Final = {
    "<kinds>": sorted(TRAITS),
    "<keys of http>": [key.name for key in (*STEP, *TRAITS["http"].keys)],
    "<names of tenant>": sorted(TENANT_NAMES),
    "<settings>": PLAN_SETTINGS,
}


@dataclass(frozen=True, slots=True)
class BadPlanCase:
    """One bad plan.

    Attributes:
        name: What is wrong.
        text: TOML.
        sentences: All sentences about it, in order, without the file.
    """

    name: str
    text: str
    sentences: tuple[str, ...]


def _cases() -> Iterator[BadPlanCase]:
    corpus = Path(__file__).with_suffix(".txt").read_text(encoding="utf-8")
    for words, listed in _LISTS.items():
        corpus = corpus.replace(words, ", ".join(listed))
    for case in corpus.split("\n### ")[1:]:
        name, *lines = case.rstrip().splitlines()
        plan = "".join(f"{line}\n" for line in lines if not line.startswith("> "))
        yield BadPlanCase(name, plan, tuple(line[2:] for line in lines if line.startswith("> ")))


CASES: Final = tuple(_cases())
