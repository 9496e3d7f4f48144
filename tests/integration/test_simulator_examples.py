"""Every example of docs/simulator.md and of `lifecycle simulator --help` is played against a real simulator."""

import subprocess
import sys
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from services.adapters.process.clock import now_us
from services.simulator.fault_examples import EXAMPLES, SETUP, page
from services.simulator.faults import FaultKind
from tests.support.programs import need
from tests.support.simulator_process import Outside, outside

DOCUMENT = Path(__file__).parents[2] / "docs" / "simulator.md"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outside]:
    with outside(tmp_path_factory.mktemp("outside")) as running:
        yield running


def test_every_fault_has_an_example_in_the_order_of_the_kinds() -> None:
    assert list(EXAMPLES) == [str(kind) for kind in FaultKind]


def test_the_document_shows_every_example() -> None:
    assert page() in DOCUMENT.read_text(encoding="utf-8")


def test_the_help_of_the_simulator_names_every_fault_and_its_command() -> None:
    argv = (sys.executable, "-m", "services.cli.main", "simulator", "--help")
    shown = subprocess.run(argv, check=True, capture_output=True, text=True, env={"COLUMNS": "1000"}).stdout
    for kind, example in EXAMPLES.items():
        assert f"{kind}: {example.does}" in shown
        assert example.command() in shown


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_shows_what_it_says(world: Outside, kind: str) -> None:
    need("curl")
    example = EXAMPLES[kind]
    world.heal()
    setup = SETUP.replace("http://127.0.0.1:8080", world.url)
    set_up, shown = _played(world, setup, example.command(), example.asks)
    assert f'"fault":"{kind}"' in set_up
    assert example.shows in shown
    if kind == "clock_skew":
        told = parsedate_to_datetime(shown.partition(": ")[2].splitlines()[0])
        assert told.timestamp() - now_us() / 1_000_000 > 8_000_000
    # The fault struck once: the same request is answered truly now.
    if kind not in {"lost_answer", "clock_skew", "ignore_idempotency"}:
        assert example.shows not in _played(world, setup, example.asks)[0]


def _played(world: Outside, *lines: str) -> list[str]:
    """The output of each line but the first, in one shell."""
    script = "\necho; echo ---\n".join(lines)
    argv = ("sh", "-c", script)
    ran = subprocess.run(argv, check=False, capture_output=True, text=True, cwd=world.folder, timeout=30)
    return ran.stdout.split("---\n")[1:]
