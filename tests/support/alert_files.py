"""The alerts of deploy/prometheus as tests read them, and what is made of them: `python -m tests.support.alert_files`.

Made are the `PrometheusRule` (the plain rule files, for the Prometheus operator), the file of the composition's
Alertmanager (the example, without an address to send to) and the tables of alerts in two documents. `make alerts`
writes them; `make check` compares only (`--check`), and fails if one differs.
"""

import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from services.adapters.process.generated import write_or_compare
from tests.support.document_texts import TOP

FOLDER: Final = TOP / "deploy" / "prometheus"
RULES: Final = (FOLDER / "rules" / "recording.yaml", FOLDER / "rules" / "alerts.yaml")
RUNBOOKS: Final = TOP / "docs" / "runbooks"
HEADINGS: Final = ("What it means", "See more", "What to do", "When to worry")

_RULE: Final = FOLDER / "prometheusrule.yaml"
_RULE_HEAD: Final = """# Written by `make alerts` from the plain rule files; `make check` refuses a file that differs.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: genesys-lifecycle
spec:
  groups:
"""
EXAMPLE: Final = FOLDER / "alertmanager.yaml"
COMPOSED: Final = FOLDER / "alertmanager-compose.yaml"
_COMPOSED_HEAD: Final = """\
# Written by `make alerts` from alertmanager.yaml; `make check` refuses a file that differs.
#
# Alertmanager of docker-compose.yml: the routes and inhibitions of the example, and receivers that send nothing. What
# fires is seen on Alertmanager's page.
"""
_TABLES: Final = ((TOP / "docs" / "observability.md", "runbooks/"), (RUNBOOKS / "README.md", ""))
_BEGIN: Final = "<!-- Written by `make alerts` from the rules and the runbooks. -->\n"
_END: Final = "<!-- The end of what `make alerts` writes. -->\n"


class Alert(NamedTuple):
    """An alerting rule; a name may have two, with different severities."""

    name: str
    severity: str
    expr: str
    wait: str
    annotations: dict[str, str]
    labels: dict[str, str]


def rules() -> Iterator[dict[str, Any]]:
    """Yields every rule of the plain files, in order."""
    for path in RULES:
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]:
            yield from group["rules"]


def alerts() -> list[Alert]:
    """Returns every alerting rule, in order."""
    return [
        Alert(
            rule["alert"],
            rule["labels"]["severity"],
            rule["expr"],
            rule.get("for", ""),
            rule["annotations"],
            rule["labels"],
        )
        for rule in rules()
        if "alert" in rule
    ]


def sections(name: str) -> dict[str, str]:
    """Returns the text of a runbook by heading, in order."""
    parts = re.split(r"^## (.*)\n", (RUNBOOKS / f"{name}.md").read_text(encoding="utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _made() -> Iterator[tuple[Path, str]]:
    """Yields each file that is made, with its text."""
    groups = (path.read_text(encoding="utf-8").partition("\ngroups:\n")[2] for path in RULES)
    indented = (f"  {line}" if line.strip() else line for text in groups for line in text.splitlines(keepends=True))
    yield _RULE, _RULE_HEAD + "".join(indented)
    yield COMPOSED, _without_addresses(EXAMPLE.read_text(encoding="utf-8"))
    for path, folder in _TABLES:
        before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
        yield path, before + _BEGIN + _table(folder) + _END + rest.partition(_END)[2]


def _without_addresses(example: str) -> str:
    """Returns the configuration of Alertmanager whose receivers have nothing but their names."""
    before, _, rest = example[example.index("\nroute:") :].partition("receivers:\n")
    receivers, _, after = rest.partition("\n\n")
    names = [line for line in receivers.splitlines(keepends=True) if line.startswith("  - name:")]
    return _COMPOSED_HEAD + before + "receivers:\n" + "".join(names) + "\n" + after


def _table(folder: str) -> str:
    severities: dict[str, list[str]] = {}
    for alert in alerts():
        severities.setdefault(alert.name, []).append(alert.severity)
    rows = [
        f"| [{name}]({folder}{name}.md) | {', '.join(found)} | {_first_sentence(name)} |"
        for name, found in severities.items()
    ]
    return "\n".join(("| alert | severity | says |", "|---|---|---|", *rows)) + "\n"


def _first_sentence(name: str) -> str:
    text = " ".join(sections(name)[HEADINGS[0]].split())
    return re.split(r"(?<=[^.\d])\.(?= |$)", text)[0]


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns 1 if a check finds a difference, else 0."""
    return write_or_compare(dict(_made()), arguments, "alerts")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
