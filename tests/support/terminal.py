"""A command on a terminal of its own, as somebody sits before it."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

COLUMNS = 80


def on_terminal(*words: str, cwd: Path, answers: str = "", prompt: str = "", **environ: str) -> tuple[int, str]:
    """Run `lifecycle` on a terminal of 80 columns; its status and everything that the terminal was sent.

    Args:
        words: Of the command.
        cwd: Where.
        answers: What is typed.
        prompt: Typed once this was shown: a prompt without echo forgets what was typed before it.
        environ: Beside PATH, HOME and TERM.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    clean = {"PATH": os.environ["PATH"], "HOME": str(cwd), "TERM": "xterm-256color", **environ}
    argv = [sys.executable, "-m", "services.cli.main", *words]
    process = subprocess.Popen(argv, env=clean, cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said, typed = bytearray(), False
    try:
        if not prompt:
            os.write(ours, answers.encode())
        while piece := os.read(ours, 65_536):
            said += piece
            if prompt and not typed and prompt.encode() in said:
                os.write(ours, answers.encode())
                typed = True
    except OSError:
        pass  # the kernel's word for a terminal that everybody has left
    finally:
        os.close(ours)
    return process.wait(60), said.decode().replace("\r\n", "\n")
