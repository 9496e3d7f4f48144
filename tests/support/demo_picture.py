"""Draws docs/demo.svg: what a terminal of 80 columns shows of `lifecycle demo`. Start: `make demo-picture`.

The demo is run as it is; the lines are those that it prints. Progress that a terminal overwrites is left out.
"""

import io
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.support.terminal import COLUMNS, on_terminal

PICTURE: Final = Path(__file__).parents[2] / "docs" / "demo.svg"
STORIES: Final = ("a", "c", "e", "h")
"""A life, an uninstall before its install, a refusal that is compensated, and what the reconciler finds: one screen."""

_FOREIGN: Final = re.compile(r"\s*@font-face \{[^}]*\}|\s*<!-- Generated with Rich [^>]*-->")
_OVERWRITES: Final = re.compile(r"\x1b\[(?:\?25[lh]|[0-9]*[AKG]|2K)")


def lines(said: str) -> list[str]:
    """Returns the lines that stay on the terminal, colours kept.

    Args:
        said: Everything that the terminal was sent.
    """
    kept = [line.rpartition("\r")[2] for line in said.split("\n")]
    return [_OVERWRITES.sub("", line).rstrip() for line in kept if not _OVERWRITES.search(line)]


def draw(said: str) -> str:
    """Returns the picture, as SVG."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi("\n".join(lines(said)).strip("\n")))
    # A page that shows the picture must not fetch fonts from elsewhere: the reader's own monospace font will do.
    return _FOREIGN.sub("", console.export_svg(title="lifecycle demo", unique_id="demo")).replace(
        "Fira Code", "monospace"
    )


def main(arguments: Sequence[str]) -> int:
    """Runs the demo and writes the picture; returns the demo's exit status."""
    words = [word for story in arguments or STORIES for word in ("--story", story)]
    with tempfile.TemporaryDirectory(prefix="demo-picture-") as folder:
        caches = os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))
        status, said = on_terminal("demo", *words, cwd=Path(folder), XDG_CACHE_HOME=caches)
    if status == 0:
        PICTURE.write_text(draw(said), encoding="utf-8")
    else:
        sys.stderr.write(said)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
