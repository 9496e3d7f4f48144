"""Executes a program under the parent-death signal: the kernel signals the program when the parent dies.

The signal comes for every cause of death, SIGKILL included.

`child_process` runs this file as a script in a new interpreter. The reason: after the fork of a process with threads
hardly any code is safe before the exec, so `preexec_fn` of `subprocess` is no alternative.

The order of the steps must not change:

1. Change the user. A change of user clears the parent-death signal, so the change cannot come later.
2. Ask the kernel for the parent-death signal.
3. Compare the parent's process id. The kernel sends no signal for a parent dead before step 2; the orphan ends here.
4. Exec the program. The parent-death signal outlives the exec.

Source: prctl(2), PR_SET_PDEATHSIG.
"""

import ctypes
import os
import signal
import sys

# No import from this package: the script runs with -I -S, without the package on its path. So `child_process` has a
# constant equal to `_KEEP_ID`.
_PR_SET_PDEATHSIG = 1
_KEEP_ID = "-"


def _drop_to(uid: str, gid: str) -> None:
    """Changes user and group of this process for good, and drops all supplementary groups; `-` changes nothing."""
    if uid == _KEEP_ID:
        return
    # The user last: without root's rights the groups cannot be changed any more.
    os.setgroups([])
    os.setgid(int(gid))
    os.setuid(int(uid))


def main(parent: str, death_signal: str, uid: str, gid: str, *command: str) -> None:
    """Replaces this process by `command`. All arguments are texts, since they come from the command line.

    Args:
        parent: Process id of the process that started this script.
        death_signal: Number of the signal that the kernel sends at the end of the thread that forked this process.
        uid: Numeric user, or `-` to keep the present user.
        gid: Numeric group, or `-` to keep the present group.
        command: The program and its arguments.

    Raises:
        OSError: The kernel refused the parent-death signal.
        SystemExit: The parent has ended, or the program cannot be executed. The text goes to standard error.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _drop_to(uid, gid)
    if libc.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != int(parent):
        sys.exit("the parent ended before its child began")
    # An ignored signal stays ignored over exec. Python ignores SIGPIPE and SIGXFSZ, and the parent may have ignored or
    # blocked the rest; the program begins with the defaults.
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    try:
        os.execvp(command[0], command)  # noqa: S606 - there is no shell here, and none is wanted
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
