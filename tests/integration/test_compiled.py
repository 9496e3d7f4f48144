"""The compiled ingress, as the image has it, behaves as its source does, in one process and over sockets."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support import compiled

pytestmark = [pytest.mark.engines, pytest.mark.long]

_JUDGES = (
    *(f"unit/test_{name}.py" for name in (
        "binding", "kafka_breaker", "timestamp_rule", "ingress_connection", "ingress_hints", "expiring_set",
        "ingress_writer", "instant", "keyring_watch", "signature", "spooled", "webhook",
    )),
    "contract/test_ingress_edge.py",
    "integration/test_cli_topics.py",
    "integration/test_partition_ends.py",
    "integration/test_ingress_answers.py",
    "integration/test_ingress_hints.py",
    "integration/test_ingress_lifecycle.py",
    "integration/test_ingress_spool.py",
    "integration/test_tenant_view.py",
    *(f"integration/test_ledger.py::test_{name}" for name in (  # who reads what the ingress wrote, by the same modules
        "a_delivery_becomes_event_desired_tenant_and_audit_and_its_outcome_a_stage",
        "an_unreadable_record_becomes_one_dead_letter_and_the_partition_moves_on",
        "offsets_set_back_repeat_identical_records",
    )),
    "property/test_ingress_fuzz.py",
)  # fmt: skip


@pytest.fixture(scope="module")
def environ() -> dict[str, str]:
    """Compiled packages before the sources, for every child too."""
    try:
        folder = compiled.folder()
    except compiled.CannotBuild as not_here:
        pytest.skip(f"the compiled ingress: {not_here}")
    return dict(os.environ) | {"PYTHONSAFEPATH": "1", "PYTHONPATH": f"{folder}:{compiled.ROOT}"}


def _modules() -> list[str]:
    told = tomllib.loads((compiled.ROOT / "pyproject.toml").read_text())
    files = told["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]["include"]
    return [name.removesuffix(".py").replace("/", ".") for name in files]


@pytest.mark.timeout(700)
def test_every_module_of_the_mypyc_list_is_compiled(environ: dict[str, str]) -> None:
    program = "import importlib, sys; [print(importlib.import_module(name).__file__) for name in sys.argv[1:]]"
    argv = (sys.executable, "-c", program, *_modules())
    found = subprocess.run(argv, env=environ, check=True, capture_output=True, text=True, timeout=60).stdout.split()
    assert [Path(file).name.split(".")[0] for file in found] == [name.rpartition(".")[2] for name in _modules()]
    assert {Path(file).suffix for file in found} == {".so"}


_DERIVED = """
import importlib, pkgutil, sys
import schemas, services

for package in (schemas, services):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)

def derived(of):
    for one in type.__subclasses__(of):
        yield one
        yield from derived(one)

modules = {name: module for name, module in sys.modules.items() if name.startswith(("schemas", "services"))}
compiled = {name for name, module in modules.items() if (module.__file__ or "").endswith(".so")}
assert compiled
for name in compiled:
    for found in vars(modules[name]).values():
        if isinstance(found, type) and found.__module__ == name:
            for one in derived(found):
                if one.__module__ not in compiled:
                    print(f"{one.__module__}.{one.__qualname__} derives from {name}.{found.__qualname__}")
"""


def test_no_uncompiled_class_derives_from_a_compiled_class(environ: dict[str, str], tmp_path: Path) -> None:
    ran = subprocess.run(
        (sys.executable, "-c", _DERIVED),
        env=environ,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stdout, ran.stderr[-2000:]) == (0, "", ""), "mypyc cannot make such an object"


@pytest.mark.timeout(900)
def test_the_tests_of_the_sources_pass_on_the_compiled_ingress(environ: dict[str, str], tmp_path: Path) -> None:
    tests = [str(compiled.ROOT / "tests" / name) for name in _JUDGES]
    options = (
        "-q",
        "-p",
        "no:cacheprovider",
        "-c",
        str(compiled.ROOT / "pyproject.toml"),
        f"--rootdir={compiled.ROOT}",
    )
    without = {name: value for name, value in environ.items() if not name.startswith("PYTEST_")}

    def judged(*names: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            (sys.executable, "-m", "pytest", *options, *names),
            env=without, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=800,
        )  # fmt: skip

    ran = judged(*tests)
    if failed := [line.split()[1] for line in ran.stdout.splitlines() if line.startswith("FAILED ")]:
        # A compiled module that answers otherwise does so each time; a busy machine fails one test of 700 now and then.
        ran = judged(*(f"{compiled.ROOT}/tests/{name.partition('/tests/')[2]}" for name in failed[:3]))
    assert ran.returncode == 0, ran.stdout[-6000:]
    assert "skipped" not in ran.stdout.splitlines()[-1], ran.stdout[-2000:]
