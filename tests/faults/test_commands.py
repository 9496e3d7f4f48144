"""A run of all commands, one trouble each; `make faults` runs every command in every trouble."""

import re
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import pytest

from services.cli.exits import Exit
from tests.faults.commands import NEEDS, WHOLE, Call, calls, commands, run_all, told
from tests.support.troubles import Trouble, TroubledWorld, world


@pytest.fixture
def made(database_url: str, tmp_path: Path) -> Iterator[TroubledWorld]:
    with world(tmp_path, database_url) as made:
        yield made


def _chosen(made: TroubledWorld) -> Iterator[tuple[Call, Trouble]]:
    """Each command once; what it needs is in another trouble each time, and what it does not need is away."""
    by_need = {
        need: cycle([trouble for trouble in made.troubles.values() if trouble.of == need])
        for need in ("kafka", "postgres", "configs")
    }
    away = {**made.troubles["kafka away"].environ, **made.troubles["postgres away"].environ}
    nobody = Trouble("everything away", "nothing", away, 0)
    for call in calls():
        needed = call.needs
        turn = cycle(sorted(needed))
        yield call, next(by_need[next(turn)]) if needed else nobody
        if call.words in WHOLE:
            yield call, next(by_need["postgres"])


@pytest.mark.long
@pytest.mark.timeout(600)
def test_every_command_ends_as_documented_and_says_why_in_one_sentence(made: TroubledWorld, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    cells = run_all(made, tmp_path / "runs", list(_chosen(made)), at_once=4, limit_s=None)
    assert not [one for one in cells if one.faults], "\n" + told(cells)


def test_the_runs_cover_every_command_of_the_program() -> None:
    run = {call.words for call in calls()}
    assert run == {words for words, _ in commands()}
    assert NEEDS.keys() <= run


def test_every_exit_status_is_documented_with_one_meaning() -> None:
    from services.adapters.tables.exits import WorkerExit as TableExit

    root = Path(__file__).parents[2]
    documented = (root / "docs" / "exit-statuses.md").read_text(encoding="utf-8")
    table = {int(number) for number in re.findall(r"^\| (\d+) \|", documented, re.MULTILINE)}
    assert table == {*map(int, Exit), *map(int, TableExit)}
    readme = (root / "README.md").read_text(encoding="utf-8")
    told = readme[readme.index("Exit status, the same everywhere") :].partition("\n\n")[0]
    assert all(f"{int(status)} " in told for status in Exit)


def test_the_documents_say_for_every_service_if_it_waits() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "exit-statuses.md").read_text(encoding="utf-8")
    services = [words for words, command in commands() if str(command.rich_help_panel).startswith("Services")]
    assert services
    assert all(f"| `{' '.join(words)}` |" in documented for words in services)
