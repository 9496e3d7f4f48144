"""Becomes another program that dies with its parent, even when the parent is killed -9.

Run as a script between fork and exec, because nothing but a signal mask is safe to touch in the fork of a process with
threads. The order is the rule: user first (a change of user clears the kernel's promise), promise second, then a look
whether the parent is still there (it may have died before the promise was made), exec last.
Source: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_KEEP = "-"


def _drop_to(uid: str, gid: str) -> None:
    """Become the user `uid` for good, with no group but `gid`; `-` keeps the present one."""
    if uid == _KEEP:
        return
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


def main(parent: str, death_signal: str, uid: str, gid: str, *command: str) -> None:
    """Replace this process by `command`.

    Args:
        parent: Process id that must still be the parent.
        death_signal: Number of the signal the kernel sends when the parent's thread ends.
        uid: Numeric user, or `-`.
        gid: Numeric group, or `-`.
        command: The program and its arguments.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _drop_to(uid, gid)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    # This interpreter ignores these two, and what is ignored stays ignored over exec; so does what our parent ignored.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606 - there is no shell here, and none is wanted
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
