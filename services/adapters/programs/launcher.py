"""Launches a program, ends it with every descendant, and removes its working folder: `-I -S -B launcher.py FD`.

Problem: a service killed by SIGKILL cannot stop its programs, and a service stopped by SIGSTOP cannot either. So this
process stands between both and depends on neither:

- Its standard input is a pipe from the service. The first line is the order (JSON), each later byte a sign of life. The
  end of the pipe is the death of the service; a silence of `silence_s` seconds is a service that stands still. In both
  cases the program is ended.
- It is a subreaper (prctl(2), PR_SET_CHILD_SUBREAPER): a descendant that lost its parent becomes a child of this
  process, a daemon in a session of its own included. So "no child is left" proves that no descendant is left.
- The program asks for PR_SET_PDEATHSIG: it dies with this process, should somebody kill this process.

To end a program is: SIGTERM to the process group, then SIGKILL to every descendant after the grace period. The program
shares the process group with this process, which survives SIGTERM by a handler. The service holds the zombie of this
process until it has killed the group, so the group's number never belongs to strangers.

All times are seconds of CLOCK_BOOTTIME, which the service reads too and which goes on while a machine sleeps. The time
limit begins with the call and not with the program: a service that stood still between both starts nothing any more.

The result is one JSON line to the descriptor FD: `end` (`exited`, `signalled`, `timed_out`, `late`, `not_started`,
`abandoned`), `status`, `why`.
"""

import ctypes
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

# No import from this package: the script runs with -I -S, without the package on its path.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_KILL_S = 2.0
"""Seconds for the death of all descendants after SIGKILL; a process inside the kernel may need longer."""
_POLL_S = 0.005


def _now_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _survive(_: int, __: object) -> None:
    """Handles a signal by doing nothing. A handler, unlike SIG_IGN, is not inherited by the program."""


def _order() -> dict[str, Any] | None:
    """Reads the order; None if the service died before its end."""
    text = b""
    while b"\n" not in text:
        part = os.read(0, 65_536)
        if not part:
            return None
        text += part
    order: dict[str, Any] = json.loads(text.partition(b"\n")[0])
    return order


def _become(order: dict[str, Any], launcher: int, faults: int) -> None:
    """Turns a fork of this process into the program; the reason of a failure goes to the descriptor `faults`."""
    try:
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:
            os._exit(127)
        # Ignored and blocked signals outlive the exec; the program begins with the defaults.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        # A file in memory: a program that reads slowly or never blocks nobody, and no disk sees the input.
        given = os.memfd_create("input")
        with os.fdopen(os.dup(given), "wb") as file:
            file.write(order["input"].encode())
        os.lseek(given, 0, os.SEEK_SET)
        os.dup2(given, 0)
        os.chdir(order["folder"])
        os.execvpe(order["argv"][0], order["argv"], order["environment"])  # noqa: S606 - no shell is wanted
    except BaseException as error:  # noqa: BLE001 - whatever it is, this process must not return
        words = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        os.write(faults, words.encode())
    finally:
        os._exit(127)


def _started(order: dict[str, Any]) -> tuple[int, str]:
    """Forks the program; returns its process id, and the reason if it could not be executed."""
    reading, faults = os.pipe2(os.O_CLOEXEC)
    launcher = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(order, launcher, faults)
    os.close(faults)
    with os.fdopen(reading, "rb") as told:  # ends with the exec, or with the failure of it
        why = told.read().decode(errors="replace")
    # The pipes of the program's output must end with the program.
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    return pid, why


class _Watch:
    """The wait for the end of the program, with the limits of the order."""

    def __init__(self, pid: int, order: dict[str, Any], wakeup: int) -> None:
        self._pid, self._order = pid, order
        self._heard_s = _now_s()
        self._ending, self._kill_s = "", float("inf")
        self._poll = select.poll()
        self._poll.register(0, select.POLLIN | select.POLLHUP)
        self._poll.register(wakeup, select.POLLIN)

    def result(self) -> dict[str, Any]:
        """Waits for the end of the program, or ends it; returns the result."""
        while True:
            found, status = _reaped(self._pid)
            if found:
                return {"end": self._ending} if self._ending else _exit_of(status)
            now_s = _now_s()
            if now_s >= self._kill_s:
                return {"end": self._ending}
            silent_s = self._heard_s + self._order["silence_s"]
            if now_s >= self._order["end_s"]:
                self._end("timed_out")
            elif now_s >= silent_s:
                self._end("abandoned")
            self._wait((self._kill_s if self._ending else min(self._order["end_s"], silent_s)) - now_s)

    def _wait(self, most_s: float) -> None:
        """Waits for a sign of life, the end of the pipe or a signal."""
        for descriptor, _ in self._poll.poll(max(1.0, most_s * 1_000)):
            if not os.read(descriptor, 4_096):
                self._poll.unregister(descriptor)
                self._end("abandoned")
            elif descriptor == 0:
                self._heard_s = _now_s()

    def _end(self, ending: str) -> None:
        """Sends SIGTERM to the process group once, and sets the time for SIGKILL."""
        if self._ending:
            return
        self._ending, self._kill_s = ending, _now_s() + self._order["grace_s"]
        os.killpg(0, signal.SIGTERM)
        with suppress(OSError):
            # A program that left the group hears the signal on its own; no program hears it twice.
            if os.getpgid(self._pid) != os.getpgid(0):
                os.kill(self._pid, signal.SIGTERM)


def _reaped(pid: int) -> tuple[bool, int]:
    """Ends the zombies among the children; returns True and the wait status if the program is one of them."""
    with suppress(ChildProcessError):
        while True:
            ended, status = os.waitpid(-1, os.WNOHANG)
            if ended == pid:
                return True, status
            if ended == 0:
                return False, 0
    return True, 0  # not reached: the program is reaped by this function alone


def _exit_of(status: int) -> dict[str, Any]:
    if os.WIFSIGNALED(status):
        return {"end": "signalled", "status": os.WTERMSIG(status)}
    return {"end": "exited", "status": os.WEXITSTATUS(status)}


def _kill_descendants() -> bool:
    """Kills every descendant; returns False if one is left after `_KILL_S` seconds.

    Children are killed again and again: with each death the children of the dead become children of this process.
    """
    until_s = _now_s() + _KILL_S
    while True:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return True
        if _now_s() > until_s:
            return False
        for pid in _children():
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _children() -> list[int]:
    """Returns the process ids of the children. `/proc/…/children` is missing in some kernels."""
    found, own = [], os.getpid()
    for name in os.listdir("/proc"):  # noqa: PTH208 - pathlib would cost its objects for every process
        if name.isdigit():
            with suppress(OSError):
                # The name of the program, in parentheses, may contain spaces and parentheses.
                fields = Path(f"/proc/{name}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()
                if int(fields[1]) == own:
                    found.append(int(name))
    return found


def _remove(folder: str) -> None:
    """Removes the working folder, also where the program took rights away."""
    import shutil  # noqa: PLC0415 - its import would delay the start of every program

    shutil.rmtree(folder, ignore_errors=True)
    if os.path.isdir(folder):  # noqa: PTH112 - as above
        for path, _, __ in os.walk(folder):
            with suppress(OSError):
                os.chmod(path, 0o700)  # noqa: PTH101 - as above
        shutil.rmtree(folder, ignore_errors=True)


def main(result: int) -> None:
    """Carries out the order on standard input and writes the result.

    Args:
        result: File descriptor for the result.
    """
    os.set_inheritable(result, False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(number, _survive)
    waking, wakeup = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wakeup, warn_on_full_buffer=False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    order = _order()
    if order is None:
        return
    if _now_s() > order["begun_s"] + order["silence_s"]:
        told: dict[str, Any] = {"end": "late"}
    else:
        pid, why = _started(order)
        told = {"end": "not_started", "why": why} if why else _Watch(pid, order, waking).result()
        told["left"] = not _kill_descendants()
    _remove(order["folder"])
    with suppress(OSError):  # nobody listens any more
        os.write(result, json.dumps(told).encode() + b"\n")


if __name__ == "__main__":
    main(int(sys.argv[1]))
