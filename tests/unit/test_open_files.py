"""The limit of open files, raised in a process of its own."""

import subprocess
import sys

from services.adapters.process import open_files

_RAISE = (
    "import resource\n"
    "from services.adapters.process.open_files import raise_limit\n"
    "resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))\n"
    "print(raise_limit({wanted}))\n"
    "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
)


def raised(soft: int, hard: int, wanted: int) -> list[str]:
    script = _RAISE.format(soft=soft, hard=hard, wanted=wanted)
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split("\n")


def test_the_soft_limit_is_raised_to_the_wanted_number() -> None:
    assert raised(200, 1000, 700)[:2] == ["", "700"]


def test_a_sufficient_limit_is_unchanged() -> None:
    assert raised(900, 1000, 700)[:2] == ["", "900"]


def test_a_hard_limit_that_is_too_low_is_reported_with_the_needed_number() -> None:
    said, soft, _ = raised(200, 500, 700)
    assert said == f"700 open files may be needed, and 500 are allowed; {open_files.CURE}"
    assert soft == "500"
