"""Child processes that die with us, however we die.

Rule: the kernel's promise (`tether`) watches the *thread* that forked, not the process. So one thread that lives as
long as the process forks every child, and callers may start children from any thread, short-lived ones included.
Each child leads its own session: Ctrl-C in a terminal reaches us alone, and we stop the children in our order.
"""

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from services.engines.unprivileged import Account

_TETHER = Path(__file__).with_name("parent_death.py")
_BARE = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
_KEEP = "-"


@dataclass(frozen=True, slots=True)
class Child:
    """A running, or ended, child process."""

    argv: tuple[str, ...]
    log_path: Path
    _process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """Its process id: of the program itself, nothing stands between."""
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit status (negative: the signal that ended it), or None while it runs."""
        return self._process.poll()

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its end; its exit status, or None when it still runs after `timeout_s`."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def stop(self, timeout_s: float, ask_with: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, wait, and kill it when it does not.

        Args:
            timeout_s: How long it may take to end by itself.
            ask_with: The signal that asks.

        Returns:
            Its exit status.
        """
        self._process.send_signal(ask_with)
        status = self.wait(timeout_s)
        return self.kill() if status is None else status

    def kill(self) -> int:
        """End it, and what it started, without asking; returns its exit status."""
        if self._process.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


def bare(environ: Mapping[str, str]) -> dict[str, str]:
    """What a server that is not ours may see: no secrets of ours, no options that somebody set for other programs."""
    return {name: environ[name] for name in _BARE if name in environ} | {"LC_ALL": "C.UTF-8"}


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log_path: Path,
    user: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
) -> Child:
    """Start a program that is sent `death_signal` when this process ends, whatever ends it.

    Args:
        argv: The program (found on our PATH when it is not a path) and its arguments.
        env: Its whole environment.
        log_path: Its output is appended here; folders above are made.
        user: Who it runs as; None is ourselves. Only root can choose.
        death_signal: SIGKILL for a program that recovers from it anyway; SIGTERM for one that ends quickly.
        cwd: Its working directory; None is ours.

    Returns:
        The child; `stop` or `kill` it when it is no longer needed.
    """
    command = tuple(str(word) for word in argv)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    identity = (_KEEP, _KEEP) if user is None else (str(user.uid), str(user.gid))
    # -I -S: neither our environment nor site-packages may run code, or cost time, before the exec.
    wrapper = [sys.executable, "-I", "-S", "-B", str(_TETHER), str(os.getpid()), str(int(death_signal)), *identity]

    def fork() -> "subprocess.Popen[bytes]":
        with log_path.open("ab") as log:
            return subprocess.Popen(
                [*wrapper, *command],
                env=dict(env),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=cwd,
            )

    return Child(command, log_path, _in_forking_thread(os.getpid(), fork))


def last_lines(log_path: Path, count: int = 15) -> str:
    """The end of a log, for a message about the end of its writer."""
    text = log_path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-count:])


_Fork = Callable[[], "subprocess.Popen[bytes]"]


def _in_forking_thread(process_id: int, fork: _Fork) -> "subprocess.Popen[bytes]":
    future: Future[subprocess.Popen[bytes]] = Future()
    _forking_thread(process_id).put((future, fork))
    return future.result()


@functools.cache
def _forking_thread(process_id: int) -> "SimpleQueue[tuple[Future[subprocess.Popen[bytes]], _Fork]]":
    """The queue of the one thread that forks in this process; a forked copy of us gets a thread of its own."""
    queue: SimpleQueue[tuple[Future[subprocess.Popen[bytes]], _Fork]] = SimpleQueue()

    def serve() -> None:
        while True:
            future, fork = queue.get()
            try:
                future.set_result(fork())
            except Exception as error:  # noqa: BLE001 - it is raised again in the thread that asked
                future.set_exception(error)

    threading.Thread(target=serve, name=f"forks-children-of-{process_id}", daemon=True).start()
    return queue
