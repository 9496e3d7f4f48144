"""One event's way stays readable: the five files that ARCHITECTURE.md names, in order, under 700 lines of code."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
WAY = (
    "services/ingress/receive.py",
    "services/ledger/agents.py",
    "services/core/ledger/decisions.py",
    "services/provisioner/intake.py",
    "services/provisioner/runner.py",
)


def lines_of_code(path: Path) -> int:
    """Lines that are neither blank, comment nor docstring."""
    text = path.read_text()
    strings: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            strings.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return sum(
        1
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#") and number not in strings
    )


def test_the_five_files_of_the_reading_path_stay_under_700_lines() -> None:
    assert sum(lines_of_code(ROOT / path) for path in WAY) < 700


def test_the_architecture_lists_the_reading_path_in_order() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text()
    positions = [text.index(f"`{path}`") for path in WAY]
    assert positions == sorted(positions)
