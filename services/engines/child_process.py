"""Child processes that end with this process, whatever ends this process.

Problem: a process killed by SIGKILL cannot stop its children. The approach is Linux's parent-death signal
(`parent_death`): the kernel itself signals the child.

Trap: the kernel watches the *thread* that forked the child, not the process (prctl(2)). A child forked by a short-lived
thread would be signalled at the end of the thread. So one thread, as long-lived as the process, forks every child, and
callers may start children from any thread. Never start `parent_death` from any other thread.

Each child leads a new session. So Ctrl-C in a terminal reaches this process alone, and this process stops the children
in the right order.

Rule: an ended child stays a zombie until `kill` has killed the child's own children. The kernel gives the id of a
zombie to no process and to no group, so a signal to the group never reaches a stranger.
"""

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from services.engines.readiness import until
from services.engines.unprivileged import Account

_PARENT_DEATH_SCRIPT = Path(__file__).with_name("parent_death.py")
_BASIC_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "HOME", "TMPDIR")
_KEEP_ID = "-"


class _Program(subprocess.Popen[bytes]):
    """A program whose zombie ends with the last reference, if the program ended by itself and was replaced."""

    def __del__(self) -> None:
        # Before Popen's own finalizer: it warns of an unread exit status, also of one that `Child.poll` has seen.
        if self._child_created:  # type: ignore[attr-defined]  # set by Popen once the program exists
            self.poll()
        super().__del__()


@dataclass(frozen=True, slots=True)
class Child:
    """A child process, running or ended."""

    argv: tuple[str, ...]
    log_path: Path
    _process: "subprocess.Popen[bytes]"

    @property
    def pid(self) -> int:
        """The process id of the program itself: `parent_death` replaces its own process by exec."""
        return self._process.pid

    def poll(self) -> int | None:
        """Returns the exit status, or None while the program runs. A negative status is the number of a signal."""
        return self._exit_status(os.WNOHANG)

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Waits for the end of the program; returns the exit status, or None if `timeout_s` seconds were too short."""
        if timeout_s is None:
            return self._exit_status(0)
        until(lambda: self.poll() is not None, timeout_s)
        return self.poll()

    def _exit_status(self, options: int) -> int | None:
        """Returns the exit status without ending the zombie; `options` are those of waitid(2)."""
        if self._process.returncode is None:
            try:
                ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT | options)
            except ChildProcessError:  # as in `stop`
                return self._process.wait()
            if ended is None:
                return None
            return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status
        return self._process.returncode

    def stop(self, timeout_s: float, ask_with: signal.Signals = signal.SIGTERM) -> int:
        """Sends a signal, waits for the end of the program, and kills the program after `timeout_s` seconds.

        Children of the program that are left are killed in any case.

        Args:
            timeout_s: Seconds that the program may take to end by itself.
            ask_with: The signal that requests the end.

        Returns:
            The exit status.
        """
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # another thread has just ended the zombie
                os.kill(self.pid, ask_with)
            self.wait(timeout_s)
        return self.kill()

    def kill(self) -> int:
        """Kills the program and its own children with SIGKILL, also after its end; returns the exit status."""
        # The child leads its session, so its process id is also the id of its process group. With the zombie the right
        # to the id ends: a group that has the id later is a stranger's.
        if self._process.returncode is None:
            with suppress(ProcessLookupError):  # as above
                os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


def bare(environ: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a foreign server: a few basic variables, no secrets, no options for our programs."""
    return {name: environ[name] for name in _BASIC_VARIABLES if name in environ} | {"LC_ALL": "C.UTF-8"}


def start(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log_path: Path,
    user: Account | None = None,
    death_signal: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
) -> Child:
    """Starts a program to which the kernel sends `death_signal` as soon as this process has ended.

    Blocks until the fork. A missing program is no error here: the child ends with a non-zero status, and the reason is
    in the log.

    Args:
        argv: The program and its arguments. A program without a slash is looked up on the PATH of `env`.
        env: The whole environment of the program.
        log_path: File to which standard output and standard error are appended; missing folders are created.
        user: User and group of the program; None keeps the present ones. Only root can change them.
        death_signal: SIGKILL for a program with a recovery after crashes; SIGTERM for a program with a quick shutdown.
        cwd: Working directory of the program; None keeps the present one.

    Returns:
        The child. The caller ends the child by `stop` or `kill`.
    """
    command = tuple(str(word) for word in argv)
    log_path.parent.mkdir(parents=True, exist_ok=True)
    identity = (_KEEP_ID, _KEEP_ID) if user is None else (str(user.uid), str(user.gid))
    # -I -S: neither PYTHON… variables nor site-packages may run code, or cost time, before the exec.
    wrapper = [
        sys.executable,
        "-I",
        "-S",
        "-B",
        str(_PARENT_DEATH_SCRIPT),
        str(os.getpid()),
        str(int(death_signal)),
        *identity,
    ]

    def fork() -> "subprocess.Popen[bytes]":
        # Append mode: a restarted program must not erase the log of its predecessor.
        with log_path.open("ab") as log:
            return _Program(
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
    """Returns the last `count` lines of a log, for the error message about the process that wrote the log."""
    text = log_path.read_text(encoding="utf-8", errors="replace")
    return "\n".join(text.splitlines()[-count:])


_Fork = Callable[[], "subprocess.Popen[bytes]"]


def _in_forking_thread(process_id: int, fork: _Fork) -> "subprocess.Popen[bytes]":
    """Runs `fork` in the forking thread; returns the result, or raises the error, in the calling thread."""
    future: Future[subprocess.Popen[bytes]] = Future()
    _forking_thread(process_id).put((future, fork))
    return future.result()


@functools.cache
def _forking_thread(process_id: int) -> "SimpleQueue[tuple[Future[subprocess.Popen[bytes]], _Fork]]":
    """Returns the queue of the forking thread of this process; the first call starts the thread.

    Args:
        process_id: Key of the cache. A copy made by `os.fork` inherits the cache but not the thread; with a new process
            id the copy starts a new thread.
    """
    queue: SimpleQueue[tuple[Future[subprocess.Popen[bytes]], _Fork]] = SimpleQueue()

    def serve() -> None:
        while True:
            future, fork = queue.get()
            try:
                future.set_result(fork())
            except Exception as error:  # noqa: BLE001 - `Future.result` raises the error in the thread that asked
                future.set_exception(error)
            # No reference may stay here until the next child: it would keep the zombie of an ended one.
            del future, fork

    threading.Thread(target=serve, name=f"forks-children-of-{process_id}", daemon=True).start()
    return queue
