"""The package as the image has it: the ingress' way compiled (docs/decisions/0017), built once for the same sources."""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from services.adapters.process.clock import now_us

ROOT: Final = Path(__file__).parents[2]
_BUILD: Final = ROOT / "build"
_BUILD_MAX_S: Final = 600.0
_KEPT_S: Final = 86_400.0


class CannotBuild(Exception):
    """It cannot be built on this machine; the text says what to do."""


def folder() -> Path:
    """The folder of the compiled packages; to be put before the sources on a path.

    Raises:
        NotHere: there is no C compiler, or no headers of this Python.
    """
    _look()
    built = _BUILD / f"compiled-{_digest()}"
    if not built.is_dir():
        _BUILD.mkdir(exist_ok=True)
        _forget_old()
        with tempfile.TemporaryDirectory(dir=_BUILD) as scratch:
            fresh = Path(scratch) / "fresh"
            with zipfile.ZipFile(_wheel(Path(scratch))) as wheel:
                wheel.extractall(fresh)
            if built.name != f"compiled-{_digest()}":
                raise RuntimeError("the sources were changed while they were compiled: try again")
            try:
                fresh.rename(built)
            except OSError:  # another process was quicker
                assert built.is_dir()
    return built


def _forget_old() -> None:
    """Removes folders unused for a day; another run may still be using a younger one."""
    for old in _BUILD.glob("compiled-*"):
        if now_us() / 1e6 - old.stat().st_mtime > _KEPT_S:
            shutil.rmtree(old, ignore_errors=True)


def _look() -> None:
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if not shutil.which(os.environ.get("CC", compiler)):
        raise CannotBuild("no C compiler (Debian: apt install gcc libc6-dev)")
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        raise CannotBuild("no headers of this Python (Debian: apt install python3-dev)")


def _digest() -> str:
    """Of everything that goes into the wheel, and of the interpreter that it is for."""
    found = hashlib.sha256(sys.version.encode())
    packages = (path for name in ("schemas", "services") for path in (ROOT / name).rglob("*") if path.is_file())
    sources = sorted(path for path in packages if "__pycache__" not in path.parts)
    for path in (ROOT / "pyproject.toml", ROOT / "uv.lock", *sources):
        found.update(b"%s\0%d\0" % (str(path.relative_to(ROOT)).encode(), path.stat().st_size))
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _wheel(out: Path) -> Path:
    """From the source distribution, so that nothing is written into the tree; with the compiler of our own lock."""
    argv = ("uv", "build", "--quiet", "--no-build-isolation", "--python", sys.executable, "--out-dir", str(out))
    environ = os.environ | {
        "HATCH_BUILD_HOOK_ENABLE_MYPYC": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    }
    ran = subprocess.run(
        (*argv, str(ROOT)), check=False, capture_output=True, text=True, timeout=_BUILD_MAX_S, env=environ
    )
    if ran.returncode:
        raise RuntimeError(f"the wheel cannot be built:\n{ran.stdout}{ran.stderr}")
    (wheel,) = out.glob("*.whl")
    return wheel
