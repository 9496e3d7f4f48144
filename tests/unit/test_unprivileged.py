"""Folders of an unprivileged PostgreSQL when the folders of its starter are closed to it."""

import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.engines.unprivileged import Account, can_reach, mirror, reachable_folder, remove_folder

NOBODY = Account("nobody", 65534, 65534)
PARTS = ("bin/program", "share")


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """A folder nobody but its owner may enter."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def opened() -> Iterator[Path]:
    """A folder everybody may enter."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def tree(closed: Path) -> Iterator[Path]:
    """An installation below a closed folder."""
    for name, text in (("bin/program", "run"), ("share/deep/data", "read"), ("include/unneeded", "skip")):
        file = closed / "tree" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(0o700 if "program" in name else 0o600)
    yield closed / "tree"
    remove_folder(reachable_folder(NOBODY, closed / "tree"))


def contents(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_a_folder_below_a_closed_one_is_out_of_reach(closed: Path, opened: Path) -> None:
    (closed / "inside").mkdir()
    assert not can_reach(NOBODY, closed / "inside")
    assert can_reach(NOBODY, opened / "not-there-yet")
    assert can_reach(Account("owner", closed.stat().st_uid, NOBODY.gid), closed)


def test_a_reachable_folder_is_used_as_it_is(opened: Path) -> None:
    assert reachable_folder(NOBODY, opened / "state" / "data") == opened / "state" / "data"


def test_an_unreachable_folder_is_always_replaced_by_the_same_folder(closed: Path) -> None:
    folder = reachable_folder(NOBODY, closed / "data")
    assert folder == reachable_folder(NOBODY, closed / "data") != reachable_folder(NOBODY, closed / "other")
    assert can_reach(NOBODY, folder.parent)
    assert not folder.exists()
    for wanted in (closed / "data", closed / "other"):
        remove_folder(reachable_folder(NOBODY, wanted))


def test_the_replacement_of_a_vanished_folder_is_removed(closed: Path) -> None:
    (closed / "state").mkdir()
    left = reachable_folder(NOBODY, closed / "state" / "data")
    left.mkdir()
    kept = reachable_folder(NOBODY, closed / "kept")
    kept.mkdir()
    shutil.rmtree(closed / "state")
    reachable_folder(NOBODY, closed / "kept")
    assert (left.exists(), kept.exists()) == (False, True)
    remove_folder(kept)


def test_a_folder_name_with_a_dot_has_its_own_note_file(closed: Path) -> None:
    (closed / "state").mkdir()
    left, kept = reachable_folder(NOBODY, closed / "state" / "pg-16.4"), reachable_folder(NOBODY, closed / "pg-16.4")
    left.mkdir()
    kept.mkdir()
    shutil.rmtree(closed / "state")
    reachable_folder(NOBODY, closed / "pg-16.4")
    assert (left.exists(), kept.exists()) == (False, True)
    remove_folder(kept)


def test_the_needed_parts_of_an_unreachable_tree_are_copied(tree: Path) -> None:
    copy = mirror(NOBODY, tree, PARTS)
    assert copy != tree
    assert contents(copy) == {"bin/program": "run", "share/deep/data": "read"}
    assert all(can_reach(NOBODY, folder) for folder in copy.rglob("*") if folder.is_dir())
    assert [oct((copy / name).stat().st_mode)[-3:] for name in ("bin/program", "share/deep/data")] == ["755", "644"]


def test_a_reachable_tree_is_not_copied(opened: Path) -> None:
    (opened / "share").mkdir()
    assert mirror(NOBODY, opened, ("share",)) == opened


def test_a_damaged_copy_is_made_again(tree: Path) -> None:
    copy = mirror(NOBODY, tree, PARTS)
    (copy / "share" / "deep" / "data").unlink()
    assert contents(mirror(NOBODY, tree, PARTS)) == {"bin/program": "run", "share/deep/data": "read"}


def test_a_newer_tree_replaces_an_older_copy(tree: Path) -> None:
    mirror(NOBODY, tree, PARTS)
    (tree / "bin" / "program").write_text("run faster")
    assert contents(mirror(NOBODY, tree, PARTS))["bin/program"] == "run faster"


def test_a_changed_tree_of_equal_size_replaces_an_older_copy(tree: Path) -> None:
    mirror(NOBODY, tree, PARTS)
    (tree / "bin" / "program").write_text("RUN")
    assert contents(mirror(NOBODY, tree, PARTS))["bin/program"] == "RUN"


def test_an_equal_copy_is_kept(tree: Path) -> None:
    before = mirror(NOBODY, tree, PARTS).stat().st_ino
    assert mirror(NOBODY, tree, PARTS).stat().st_ino == before


def test_concurrent_replacements_of_an_older_copy_all_get_the_new_one(tree: Path) -> None:
    callers = 8
    for turn in range(10):
        (tree / "bin" / "program").write_text("run" * (turn + 2))
        together = threading.Barrier(callers)

        def replace(together: threading.Barrier = together) -> dict[str, str]:
            together.wait()
            return contents(mirror(NOBODY, tree, PARTS))

        with ThreadPoolExecutor(callers) as pool:
            found = [pool.submit(replace) for _ in range(callers)]
        assert [one.result()["bin/program"] for one in found] == ["run" * (turn + 2)] * callers
