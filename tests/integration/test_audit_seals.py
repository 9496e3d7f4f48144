"""The audit trail between a real reconciler and Kafka: it is sealed, and `lifecycle audit` finds what was tampered."""

import asyncio
import json
import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # re-exported without `as`
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from schemas.codec import Message
from schemas.keyring import Material
from schemas.seal import Seal
from schemas.topics import AUDIT, named
from services.adapters.kafka.producer import Producer
from services.adapters.process import logs
from services.adapters.process.environment import read
from services.adapters.process.settings import ReconcilerSettings
from services.adapters.secrets import keyring
from services.adapters.secrets.keyring import raw
from services.cli.exits import Exit
from services.core.ledger import audit
from services.core.seals import chain
from services.engines import child_process
from services.engines.ports import free_ports
from services.reconciler.sealer import TrailSealer
from tests.faults import records
from tests.support.eventually import eventually
from tests.support.ledger_process import PARTITIONS, LedgerBench, new_key, now_us

pytestmark = pytest.mark.engines

_PROGRAM = (sys.executable, "-m", "services.cli.main")
_STRANGER = b"a key that is in no keyring of the house"


@dataclass
class Trail:
    """An installation of topics, keyring and reconcilers, without any organisation."""

    bench: LedgerBench
    folder: Path
    written: int = 0
    keys: list[str] = field(default_factory=lambda: [new_key() for _ in range(12)])

    def __post_init__(self) -> None:
        self._producer = records.producer(self.bench.bootstrap)

    @property
    def material(self) -> Material:
        return keyring.material(self.bench.folder / "keyring.json")

    @property
    def topic(self) -> str:
        return named(AUDIT, self.bench.prefix)

    @property
    def environ(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": self.bench.bootstrap,
            "TOPIC_PREFIX": self.bench.prefix,
            "KEYRING_FILE": str(self.bench.folder / "keyring.json"),
            "STATE_DIR": str(self.folder),
            "ORGS_DIR": str(self.folder),
        }

    def write(self, count: int, material: bytes | None = None, partition: int | None = None) -> None:
        """Appends lines as the ledger writes them, for many tenants."""
        for _ in range(count):
            self.written += 1
            line = audit.line(
                line_id=f"t/0/{self.written}/delivery", key=self.keys[self.written % len(self.keys)], what="delivery",
                verdict="pending_install → active", why="because", at_us=now_us(),
                material=raw(self.material.audit[0]) if material is None else material,
            )  # fmt: skip
            self.send(audit.message(line, "ledger", None), partition)
        assert self._producer.flush(30) == 0

    def send(self, message: Message, partition: int | None = None) -> None:
        where: dict[str, Any] = {} if partition is None else {"partition": partition}
        headers: list[tuple[str, Any]] = list(message.headers)
        self._producer.produce(self.topic, value=message.value, key=message.key, headers=headers, **where)
        self._producer.poll(0)

    def keep_for(self, retention_ms: str) -> None:
        """Alters the retention of the topic."""
        entry = ConfigEntry("retention.ms", retention_ms, incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, self.topic, incremental_configs=[entry])
        admin = AdminClient({"bootstrap.servers": self.bench.bootstrap})
        for answer in admin.incremental_alter_configs([resource]).values():
            answer.result(30)

    def start(self, state: str = "one", **environ: str) -> tuple[child_process.Child, str]:
        """A reconciler, and the base URL of its health."""
        (port,) = free_ports(1)
        folder = self.folder / state
        folder.mkdir(exist_ok=True)
        own = {**self.environ, "METRICS_PORT": str(port), "SEAL_INTERVAL_S": "0.5", "STATE_DIR": str(folder), **environ}
        log = self.folder / f"reconciler-{state}.log"
        return child_process.start((*_PROGRAM, "reconciler"), env=own, log_path=log), f"http://127.0.0.1:{port}"

    @contextmanager
    def reconciler(self, state: str = "one", **environ: str) -> Iterator[str]:
        """A running reconciler, which SIGTERM must end cleanly."""
        worker, url = self.start(state, **environ)
        try:
            yield url
        except BaseException:
            worker.kill()
            raise
        assert worker.stop(30) == 0, child_process.last_lines(worker.log_path)

    def lifecycle(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        """Status and both outputs of a command of the program."""
        ended = subprocess.run(
            (*_PROGRAM, *arguments), env={**self.environ, **environ}, capture_output=True, text=True, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    def report(self, *arguments: str) -> dict[str, Any]:
        """The JSON of `lifecycle audit verify`."""
        status, out, err = self.lifecycle("audit", "verify", "--json", *arguments)
        assert status in {Exit.OK, Exit.DEVIATION}, err
        found: dict[str, Any] = json.loads(out)
        assert found["verified"] is (status == Exit.OK)
        return found

    def sealed(self, before: dict[str, Any] | None = None) -> dict[str, Any]:
        """The report once no record waits for a seal, and there is another one than before."""

        def look() -> dict[str, Any]:
            found = self.report()
            is_sealed = not any(one["unsealed"] for one in found["partitions"])
            return found if is_sealed and (before is None or found["partitions"] != before["partitions"]) else {}

        return eventually(look)


@pytest.fixture
def trail(kafka_bootstrap: str, tmp_path: Path) -> Trail:
    (tmp_path / "kept").mkdir()
    return Trail(LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", tmp_path / "kept"), tmp_path)


def serving(url: str) -> None:
    """Waits until a reconciler serves its metrics."""

    def answers() -> bool:
        try:
            return metric(url, "lifecycle_reconciler_unsealed_seconds") >= 0
        except httpx2.TransportError:
            return False

    eventually(answers)


def metric(url: str, name: str) -> float:
    """The value of a sample; 0 before it is first counted."""
    lines = httpx2.get(f"{url}/metrics", timeout=5).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)


def test_a_reconciler_seals_every_partition_and_the_trail_verifies(trail: Trail) -> None:
    trail.write(40)
    before = trail.report()
    assert before["verified"], "a record waits for its seal, and that is no finding"
    assert sum(one["unsealed"] for one in before["partitions"]) == 40
    with trail.reconciler() as url:
        first = trail.sealed()
        trail.write(25)
        found = trail.sealed(first)
        eventually(lambda: metric(url, "lifecycle_reconciler_unsealed_seconds") < 2)
        written = metric(url, 'lifecycle_reconciler_seals_total{result="written"}')
    assert (found["findings"], sum(one["records"] for one in found["partitions"])) == ([], 65)
    assert written == sum(one["seals"] for one in found["partitions"]) > len(first["partitions"])
    status, out, _ = trail.lifecycle("audit", "verify")
    assert (status, max(map(len, out.splitlines())) <= 80, out.splitlines()[-1]) == (
        Exit.OK, True, f"65 records, {int(written)} seals: verified",
    )  # fmt: skip


@pytest.mark.long
def test_reconcilers_killed_at_any_moment_leave_a_trail_that_verifies(trail: Trail) -> None:
    chosen = random.Random(7)
    for _ in range(6):
        worker, url = trail.start(SEAL_INTERVAL_S="0.02")
        serving(url)
        end_us = now_us() + chosen.randrange(200_000, 1_500_000)
        while now_us() < end_us:
            trail.write(5)
        os.kill(worker.pid, signal.SIGKILL)
        worker.kill()
    with trail.reconciler():
        found = trail.sealed()
    assert found["findings"] == []
    assert any(one["seals"] for one in found["partitions"]), "keys are random, and so are the partitions with records"


def test_two_reconcilers_at_once_make_one_chain(trail: Trail) -> None:
    files = [trail.folder / f"reconciler-{name}.log" for name in ("one", "two")]

    def each_has_sealed() -> bool:
        trail.write(4)
        return all(log.read_text().count('"sealed"') >= PARTITIONS for log in files)

    with trail.reconciler("one", SEAL_INTERVAL_S="0.02"), trail.reconciler("two", SEAL_INTERVAL_S="0.02"):
        eventually(lambda: all(log.exists() for log in files))
        eventually(each_has_sealed, 60)
        found = trail.sealed()
    assert found["findings"] == []
    assert sum(one["records"] for one in found["partitions"]) == trail.written
    for part in found["partitions"]:
        assert part["newest_seal"]["number"] == part["seals"]


@pytest.mark.long
async def test_two_sealers_that_read_at_one_moment_write_two_seals_and_one_chain(trail: Trail) -> None:
    settings = read({**trail.environ, "SEAL_INTERVAL_S": "0.001"}, ReconcilerSettings)
    log = logs.configure("reconciler", "error")
    producers = [Producer(settings.kafka, linger_ms=0, timeout_ms=10_000) for _ in range(2)]
    sealers = [TrailSealer(settings, producer, now_us, log) for producer in producers]
    for _ in range(3):
        await asyncio.to_thread(trail.write, 40)
        await asyncio.gather(*(sealer.look() for sealer in sealers))
    found = await asyncio.to_thread(trail.report)
    for producer in producers:
        await producer.close(5.0)
    assert found["findings"] == []
    assert sum(one["passed_over"] for one in found["partitions"]) > 0
    for part in found["partitions"]:
        assert part["newest_seal"]["number"] == part["seals"] == 3


def test_a_record_or_seal_of_a_stranger_in_the_topic_is_found(trail: Trail) -> None:
    trail.write(20)
    with trail.reconciler():
        trail.sealed()
        trail.write(1, _STRANGER)
        made = Seal(
            partition=0, number=1_000, first=0, next=1, count=1, macs="0" * 64, former=None, first_at=now_us(),
            former_at=None, at=now_us(), mac="",
        )  # fmt: skip
        trail.send(chain.message(chain.signed(made, _STRANGER)), 0)
        # A genuine one, whose offsets are far beyond the end of the partition that it is copied into.
        elsewhere = made.model_copy(update={"partition": 1, "first": 10**9, "next": 10**9 + 1})
        trail.send(chain.message(chain.signed(elsewhere, raw(trail.material.seal[0]))), 0)
        trail.write(8)
        eventually(lambda: "audit trail differs" in (trail.folder / "reconciler-one.log").read_text())
        found = trail.sealed()
    assert sorted(one["kind"] for one in found["findings"]) == ["changed", "forged_seal", "forged_seal"]
    status, out, _ = trail.lifecycle("audit", "verify")
    seals = sum(one["seals"] for one in found["partitions"])
    assert (status, out.splitlines()[-1]) == (
        Exit.DEVIATION, f"29 records, {seals} seals: NOT verified, 3 findings",
    )  # fmt: skip


@pytest.mark.long
def test_a_sealer_that_fails_holds_up_no_run_and_is_counted_and_logged(trail: Trail) -> None:
    """Into a topic that keeps records for too short a time nothing is written; mended, it is sealed."""
    trail.write(8)
    with trail.reconciler() as url:
        trail.sealed()
        trail.keep_for("86400000")
        eventually(lambda: metric(url, 'lifecycle_reconciler_seals_total{result="failed"}') > 0)
        eventually(lambda: metric(url, "lifecycle_reconciler_last_success_timestamp_seconds") > 0)
        assert httpx2.get(f"{url}/readyz", timeout=5).status_code == 200
        told = [json.loads(line) for line in (trail.folder / "reconciler-one.log").read_text().splitlines()]
        (line,) = [line for line in told if line["event"] == "audit trail not sealed"]
        assert "retention.ms is 86400000, less than" in line["why"]


@pytest.mark.long
def test_the_sealer_goes_on_after_its_keys_were_rotated(trail: Trail) -> None:
    with trail.reconciler():
        trail.write(20)
        before = trail.sealed()
        for name in ("seal", "audit"):
            assert trail.lifecycle("keyring", "rotate-material", name)[0] == Exit.OK
        trail.write(20)
        after = trail.sealed(before)
    assert after["findings"] == []


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def _remove(lines: list[dict[str, Any]]) -> None:
    lines.remove(next(one for one in lines if "audit" in one["headers"]["ce_type"]))


def _remove_seal(lines: list[dict[str, Any]]) -> None:
    lines.remove(next(one for one in lines if "seal" in one["headers"]["ce_type"]))


def _change(lines: list[dict[str, Any]]) -> None:
    lines[0]["value"] = lines[0]["value"].replace("because", "because of me")


def _swap(lines: list[dict[str, Any]]) -> None:
    one, other, *_ = (line for line in lines if line["partition"] == lines[0]["partition"])
    for name in ("key", "headers", "value"):
        one[name], other[name] = other[name], one[name]


def _insert(lines: list[dict[str, Any]]) -> None:
    lines.insert(1, lines[0] | {"offset": lines[0]["offset"]})


@pytest.mark.parametrize(
    ("tamper", "kinds"),
    [
        (_remove, {"beginning_gone"}), (_remove_seal, {"missing_seal"}), (_change, {"changed"}),
        (_swap, {"reordered"}), (_insert, {"reordered", "inserted"}),
    ],
)  # fmt: skip
def test_what_was_tampered_in_an_exported_file_is_found(
    sealed_file: tuple[Trail, Path], tmp_path: Path, tamper: Callable[[list[dict[str, Any]]], None], kinds: set[str]
) -> None:
    trail, file = sealed_file
    nowhere = {"KAFKA_BOOTSTRAP_SERVERS": ""}
    assert trail.lifecycle("audit", "verify", "--file", str(file), **nowhere)[0] == Exit.OK
    lines = _lines(file)
    tamper(lines)
    changed = tmp_path / "changed.jsonl"
    changed.write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = trail.report("--file", str(changed))
    assert {one["kind"] for one in found["findings"]} == kinds


@pytest.fixture(scope="module")
def sealed_file(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trail, Path]:
    """An export of a trail with two seals in each partition."""
    folder = tmp_path_factory.mktemp("sealed")
    (folder / "kept").mkdir()
    trail = Trail(LedgerBench(kafka_bootstrap, f"t{secrets.token_hex(5)}-", folder / "kept"), folder)
    with trail.reconciler():
        for _ in range(2):
            trail.write(40)
            trail.sealed()
    file = folder / "trail.jsonl"
    status, out, err = trail.lifecycle("audit", "export", str(file))
    assert (status, out) == (
        Exit.OK,
        f"{file}: {len(_lines(file))} records; verify it with `lifecycle audit verify --file {file}`\n",
    )
    assert "exporting" in err
    return trail, file


def test_an_export_that_lost_its_end_is_found_by_an_earlier_result(
    sealed_file: tuple[Trail, Path], tmp_path: Path
) -> None:
    trail, file = sealed_file
    earlier = tmp_path / "seals.json"
    earlier.write_text(trail.lifecycle("audit", "verify", "--json")[1])
    assert trail.report("--known", str(earlier))["verified"]
    lines = _lines(file)
    last = max(place for place, line in enumerate(lines) if line["partition"] == lines[0]["partition"])
    short = tmp_path / "short.jsonl"
    short.write_text("".join(json.dumps(line) + "\n" for place, line in enumerate(lines) if place != last))
    assert trail.report("--file", str(short))["verified"], "the records it covered may wait for a seal"
    found = trail.report("--file", str(short), "--known", str(earlier))["findings"]
    assert [(one["kind"], one["partition"]) for one in found] == [("missing_seal", lines[0]["partition"])]


def _documented_verifier(folder: Path) -> Path:
    text = Path("docs/audit-trail.md").read_text(encoding="utf-8")
    program = folder / "verify.py"
    program.write_text(text.split("```python\n")[1].split("```")[0], encoding="utf-8")
    return program


@pytest.mark.parametrize("tamper", [None, _remove, _remove_seal, _change, _swap, _insert])
def test_the_verifier_in_the_documents_verifies_an_export_and_finds_what_was_tampered(
    sealed_file: tuple[Trail, Path], tmp_path: Path, tamper: Callable[[list[dict[str, Any]]], None] | None
) -> None:
    trail, file = sealed_file
    lines = _lines(file)
    if tamper is not None:
        tamper(lines)
    copy = tmp_path / "copy.jsonl"
    copy.write_text("".join(json.dumps(line) + "\n" for line in lines))
    program = _documented_verifier(tmp_path)
    ended = subprocess.run(
        (sys.executable, "-W", "error", str(program), str(trail.bench.folder / "keyring.json"), str(copy)),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if tamper is None:
        # The keys are random: a partition may have none.
        partitions = {line["partition"] for line in lines}
        assert (ended.returncode, len(ended.stdout.splitlines()), ended.stderr) == (0, len(partitions), "")
    elif tamper is _remove:
        assert "begins inside seal 1" in ended.stdout
    else:
        assert ended.returncode == 1
        assert len(ended.stderr.splitlines()) == 1


def test_a_file_that_is_no_export_is_refused_by_line(sealed_file: tuple[Trail, Path], tmp_path: Path) -> None:
    trail, file = sealed_file
    other = tmp_path / "other.jsonl"
    other.write_text(file.read_text().splitlines()[0] + '\n{"offset": 1}\n')
    status, _, err = trail.lifecycle("audit", "verify", "--file", str(other))
    assert (status, "line 2: partition: missing" in err) == (Exit.UNUSABLE, True)
    assert trail.lifecycle("audit", "verify", "--file", str(tmp_path / "none"))[0] == Exit.UNUSABLE
