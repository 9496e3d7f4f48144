"""A disk that fails: strace answers the ingress' own fsync calls in the kernel's place, and a tmpfs really is full."""

import contextlib
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.support.ingress_process import Ingress

_SYNCS = "fsync,fdatasync"

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a tmpfs")


@dataclass(frozen=True)
class Traced:
    """The output of strace: one line a call."""

    log: Path

    def syncs(self, folder: Path) -> list[str]:
        """Calls that sync something below a folder, in their order; of one in two lines the beginning."""
        pattern = re.compile(rf"\b(?:fsync|fdatasync)\(\d+<{re.escape(str(folder))}[/>]")
        return [line for line in self.log.read_text().splitlines() if pattern.search(line)]


@contextlib.contextmanager
def injected(running: Ingress, fault: str, log: Path) -> Iterator[Traced]:
    """Every fsync of a running process goes wrong.

    Args:
        running: Whose.
        fault: As `strace -e inject` has it: `error=EIO:when=3+` (counted in each thread), `delay_enter=2s`.
        log: Where the calls are written.
    """
    pid = running.process.pid
    what = ("-e", f"trace={_SYNCS}", "-e", f"inject={_SYNCS}:{fault}")
    strace = subprocess.Popen(
        ["strace", "-f", "-y", "-qq", "-o", str(log), *what, "-p", str(pid)], stderr=subprocess.DEVNULL
    )
    try:
        tasks = Path(f"/proc/{pid}/task")
        eventually(lambda: strace.poll() is not None or all(_is_traced(task) for task in tasks.iterdir()))
        if strace.poll() is not None:
            pytest.skip("strace may not attach to a process here")
        yield Traced(log)
    finally:
        # Not asked to end: it would wait for the end of a delay. The kernel lets go of those whose tracer is gone.
        strace.kill()
        strace.wait()


def _is_traced(task: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return "TracerPid:\t0\n" not in (task / "status").read_text()
    return True


@contextlib.contextmanager
def small_disk(mount_point: Path, size: str) -> Iterator[None]:
    """A file system of its own on a folder, as large as `size` says in mount's words."""
    mount_point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(mount_point)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("a tmpfs may not be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(mount_point)], check=True)
