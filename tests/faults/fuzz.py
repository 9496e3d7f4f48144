"""Fuzzes verifier and parser: `python -m tests.faults.fuzz --seconds 600`; ends 1, with the input, on any breach.

The inputs come from atheris, which follows the branches of `services` and `schemas`; on machines for which it has no
wheel, from a loop of our own, which follows what comes out. Rule: a run that did not get deep enough has failed too.
What is fuzzed is imported late: an engine instruments what is imported after it.
"""

import argparse
import hashlib
import importlib
import os
import random
import re
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

if TYPE_CHECKING:
    from tests.faults.fuzz_inputs import Bytes

FOLLOWED: Final = ("services", "schemas")

DEEP: Final = ("wire", "body", "signature", "200 queued", "200 parked", "400", "401", "413", "parsed", "claim")
"""What changed inputs must have shown; the first inputs show more, and that is not counted."""

FAULTS_MAX: Final = 40
"""Refusals name fields and rules, so there are few texts of them; of one that quoted a body there would be many."""

HANG_S: Final = 20
_SHRINK_S: Final = 5.0
_LOG: Final = "engine.log"
_COVERED: Final = re.compile(rb"\bcov: (\d+)")


class Run:
    """One run: what it is given, what comes of it, and how it ends."""

    def __init__(self, seconds: float, seed: int, folder: Path, engine: str) -> None:
        from tests.faults.fuzz_subjects import Subjects

        self._folder = folder
        self._seed = seed
        self._seconds = seconds
        self._engine = engine
        self._subjects = Subjects()
        self._is_changing = False
        self._inputs = 0
        self._began_s = time.monotonic()

    def changer(self, blindly: "Bytes | None" = None) -> Callable[..., bytes]:
        """What makes an input of another; its first use says that the first inputs were all tried."""
        from tests.faults.fuzz_inputs import Changing

        change = Changing(self._seed, blindly).change

        def changed(data: bytes, size_max: int, _seed: int = 0) -> bytes:
            if not self._is_changing:
                self._is_changing = True
                self._subjects.seen.clear()
                self._inputs, self._began_s = 0, time.monotonic()
            try:
                return change(data, size_max)
            except Exception:  # noqa: BLE001 - an engine would say it where nobody looks
                _fail(traceback.format_exc())

        return changed

    def try_one(self, data: bytes) -> frozenset[str]:
        """Let one input happen; ends the process when the time is over, or something was found."""
        if self._is_changing and time.monotonic() - self._began_s > self._seconds:
            self._end()
        self._inputs += 1
        try:
            return self._subjects.try_one(data)
        except Exception as breach:  # noqa: BLE001 - nothing may be raised, whatever it is
            self._found(data, breach)

    def _end(self) -> NoReturn:
        took_s, seen = time.monotonic() - self._began_s, self._subjects.seen
        faults = sorted(name for name in seen if name.startswith("fault "))
        covered = _COVERED.findall((self._folder / _LOG).read_bytes())
        follows = f"{int(covered[-1]):,} branches of {' and '.join(FOLLOWED)}" if covered else "outcomes"
        say(f"{self._inputs:,} inputs in {took_s:.0f} s, {self._inputs / took_s:,.0f}/s, seed {self._seed}")
        say(f"{self._engine} followed {follows}")
        say(", ".join(f"{name} {count:,}" for name, count in sorted(seen.items()) if name not in faults))
        if shallow := [name for name in DEEP if not seen[name]]:
            _fail(f"NOT DEEP ENOUGH: never seen: {', '.join(shallow)}")
        if len(faults) > FAULTS_MAX:
            _fail(f"TOO MANY KINDS OF REFUSAL: do they quote the body? {faults[:9]}")
        say(f"{len(faults)} kinds of refusal; nothing was found")
        shutil.rmtree(self._folder)
        _leave(0)

    def _found(self, data: bytes, breach: Exception) -> NoReturn:
        from tests.faults.fuzz_subjects import NAMES, Subjects, read

        say(f"BREACH after {self._inputs:,} inputs, seed {self._seed}:")
        say("".join(traceback.format_exception(breach)))
        subjects = Subjects()
        small = shrunk(data, lambda less: _breaks_alike(subjects, less, breach))
        found = read(small)
        path = self._folder / f"found-{hashlib.sha256(small).hexdigest()[:8]}.bin"
        path.write_bytes(small)
        say(f"{NAMES[found.subject]}, used as {found.how}: {found.payload[:1_000]!r}")
        _fail(f"The input is {path}: a copy of it in tests/faults/corpus is tried by every run.")


def shrunk(data: bytes, still: Callable[[bytes], bool]) -> bytes:
    """A part of an input of which the same is `still` true, as small as a few seconds allow."""
    until_s, size = time.monotonic() + _SHRINK_S, len(data) // 2
    while size:
        start = 2  # its subject and its use stay
        while start < len(data) and time.monotonic() < until_s:
            less = data[:start] + data[start + size :]
            if still(less):
                data = less
            else:
                start += size
        size //= 2
    return data


def _breaks_alike(subjects: Any, data: bytes, breach: Exception) -> bool:
    """Whether it breaks as that one did, at the same place."""
    try:
        subjects.try_one(data)
    except Exception as other:  # noqa: BLE001 - the kind is compared
        return type(other) is type(breach) and _place(other) == _place(breach)
    return False


def _place(breach: Exception) -> tuple[str, int | None]:
    last = traceback.extract_tb(breach.__traceback__)[-1]
    return last.filename, last.lineno


def say(text: str) -> None:
    """Say it on standard output: the other is the engine's."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _fail(text: str) -> NoReturn:
    say(text)
    _leave(1)


def _leave(code: int) -> NoReturn:
    """End here and now: no engine returns."""
    sys.stdout.flush()
    os._exit(code)


def _follow_branches(atheris: Any, seconds: float, seed: int, folder: Path) -> NoReturn:
    """Let atheris make the inputs. What it says, and it says much, goes to a file."""
    os.dup2(os.open(folder / _LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND), sys.stderr.fileno())
    with atheris.instrument_imports(include=FOLLOWED):
        from tests.faults.fuzz_inputs import SIZE_MAX_BYTES, seeds

        run = Run(seconds, seed, folder, "atheris")
    corpus = folder / "seeds"
    corpus.mkdir()
    for number, one in enumerate(seeds()):
        (corpus / f"{number:04}").write_bytes(one)

    def blindly(data: bytes, size_max: int) -> bytes:
        mutated: bytes = atheris.Mutate(data, size_max)  # another function before `Fuzz` than after it
        return mutated

    options = [f"-seed={seed}", f"-max_len={SIZE_MAX_BYTES}", f"-timeout={HANG_S}", f"-artifact_prefix={folder}/found-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], run.try_one, custom_mutator=run.changer(blindly))
    atheris.Fuzz()
    raise AssertionError("it returned")


def _follow_outcomes(seconds: float, seed: int, folder: Path) -> NoReturn:
    """Make the inputs ourselves, of those that showed what no other did."""
    from tests.faults.fuzz_inputs import SIZE_MAX_BYTES, seeds

    (folder / _LOG).touch()
    run, pool, chance = Run(seconds, seed, folder, "our own loop"), seeds(), random.Random(seed)
    shown = {run.try_one(one) for one in pool}
    change = run.changer()
    while True:
        data = change(chance.choice(pool), SIZE_MAX_BYTES)
        shows = run.try_one(data)
        if shows not in shown:
            shown.add(shows)
            pool.append(data)


def main() -> NoReturn:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=None, help="another every time, unless it is given")
    asked = parser.parse_args()
    seed = 1 + secrets.randbelow(2**31) if asked.seed is None else asked.seed
    folder = Path(tempfile.mkdtemp(prefix="lifecycle-fuzz-"))
    say(f"{asked.seconds:.0f} s of fuzzing, seed {seed}; should it die, {folder} says of what")
    try:
        try:
            atheris = importlib.import_module("atheris")
        except ImportError:
            _follow_outcomes(asked.seconds, seed, folder)
        _follow_branches(atheris, asked.seconds, seed, folder)
    except Exception:  # noqa: BLE001 - standard error is the engine's
        _fail(traceback.format_exc())


if __name__ == "__main__":
    main()
