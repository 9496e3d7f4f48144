"""Programs of the machine that a few tests want besides: a test is skipped where one is absent or does not run."""

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from typing import Final

import pytest

_PACKAGES: Final[Mapping[str, str]] = {"promtool": "prometheus", "amtool": "prometheus-alertmanager"}
"""Debian's package of each program with another name."""

_VERSION: Final[Mapping[str, str]] = {"openssl": "version"}
"""The argument by which a program tells its version, where `--version` does not."""


def need(*programs: str) -> None:
    """Skips the test if a program is absent or cannot tell its version."""
    for program in programs:
        if not _runs(program):
            pytest.skip(f"no {program} (Debian: apt install {_PACKAGES.get(program, program)})")


@cache
def _runs(program: str) -> bool:
    found = shutil.which(program)
    # Present is not enough: where a machine's programs are hidden, their names may stay.
    argv = (found or "", _VERSION.get(program, "--version"))
    return found is not None and subprocess.run(argv, capture_output=True, check=False).returncode == 0
