"""The description of the disk under a spool."""

from pathlib import Path

import pytest

from services.adapters.process.settings import Settings
from services.adapters.spool.disk import aside_folders, fullness, is_volatile
from services.cli.doctor import Health
from services.cli.doctor.finding import CheckContext
from services.cli.doctor.this_machine import spool


def test_a_missing_folder_is_as_full_as_its_nearest_parent(tmp_path: Path) -> None:
    assert fullness(tmp_path / "a" / "b") == pytest.approx(fullness(tmp_path), abs=0.05)
    assert 0 <= fullness(tmp_path) <= 1


def test_a_memory_file_system_is_volatile_and_a_disk_is_not(tmp_path: Path) -> None:
    assert is_volatile(Path("/dev/shm/spool"))
    assert not is_volatile(Path("/proc/self"))
    assert is_volatile(tmp_path) == is_volatile(tmp_path / "not" / "there")


def test_the_doctor_names_the_fault_of_a_spool(tmp_path: Path) -> None:
    def looked(**settings: object) -> tuple[Health, str]:
        (found,) = spool(CheckContext(Settings.model_validate(settings), {}, "", lambda: 0))
        return found.health, found.detail

    assert looked()[0] is Health.SKIPPED
    assert looked(spool_dir=Path("/dev/shm/x"))[0] is Health.FAULT
    if is_volatile(tmp_path):  # where temporary files are in memory, no spool can be well
        assert looked(spool_dir=tmp_path)[0] is Health.FAULT
        return
    assert looked(spool_dir=tmp_path, spool_high_water=1)[0] is Health.WELL
    assert "full" in looked(spool_dir=tmp_path, spool_high_water=1e-9)[1]
    (tmp_path / "aside" / "1-corrupt").mkdir(parents=True)
    assert aside_folders(tmp_path) == ["1-corrupt"]
    assert looked(spool_dir=tmp_path, spool_high_water=1) == (
        Health.FAULT,
        f"{tmp_path}: damaged, put aside: 1-corrupt",
    )
