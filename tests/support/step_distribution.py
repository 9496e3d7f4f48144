"""Installs distributions with classes of steps into folders, as a package installer leaves them."""

import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def built(source: Path, site: Path) -> Path:
    """Builds a distribution and installs it into a folder for `sys.path`."""
    uv = Path(sys.executable).with_name("uv")
    options = ("--offline", "--no-deps", "--no-build-isolation", "--python", sys.executable, "--target", str(site))
    subprocess.run([uv, "pip", "install", "--quiet", *options, str(source)], check=True)
    return site


def written(site: Path, name: str, code: str, **classes: str) -> Path:
    """Writes a module and the metadata of its distribution; `classes` are entry points to classes of the module."""
    site.mkdir(exist_ok=True)
    module = f"{name}_module"
    (site / f"{module}.py").write_text(code)
    info = site / f"{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    points = "".join(f"{point} = {module}:{found}\n" for point, found in classes.items())
    (info / "entry_points.txt").write_text(f"[genesys_lifecycle.steps]\n{points}")
    return site
