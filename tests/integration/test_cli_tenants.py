"""`lifecycle tenants` and `reconcile` on a real Kafka: names, filters, refusals; on a terminal and in a pipe."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, uuid5

import pytest

from schemas import codec
from schemas.audit import Audit
from schemas.event import Event
from schemas.outcome import Outcome
from schemas.tenant import Stage, Tenant
from schemas.topics import AUDIT, EVENTS, OUTCOMES, TENANTS, Topic, named
from schemas.values import EventType, Record, Source
from services.adapters.kafka import topics
from services.adapters.process.clock import now_us
from services.cli import keyring_contents
from services.cli.exits import Exit
from tests.faults import records
from tests.support.genesys_worlds import tenant
from tests.support.terminal import COLUMNS, on_terminal
from tests.unit.test_cli_commands import lifecycle

pytestmark = pytest.mark.engines

_MIN = 60 * 1_000_000
_ESCAPE = "\x1b["


def key_of(number: int) -> str:
    """Two organisations; nothing that is alike begins alike."""
    return ":".join(str(uuid5(NAMESPACE_URL, part)) for part in (f"org{number % 2}", f"integration{number}"))


class FiveTenants:
    """An installation of five tenants, on topics of its own."""

    def __init__(self, bootstrap: str, prefix: str, folder: Path) -> None:
        self.folder, self.prefix = folder, prefix
        self.environ = {
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "TOPIC_PREFIX": prefix,
            "KEYRING_FILE": str(folder / "keyring.json"),
            "ORGS_DIR": str(folder / "orgs"),
            "STATE_DIR": str(folder),
        }
        keyring_contents.init(folder / "keyring.json")
        topics.apply({"bootstrap.servers": bootstrap}, prefix=prefix, partitions=2, replication=1)
        self._producer = records.producer(bootstrap)
        now = now_us()
        ages = {1: 1, 2: 90, 3: 30, 4: 1, 5: 1}
        changes: dict[int, dict[str, Any]] = {
            1: {"tenant_id": "acme_corp"},
            2: {"tenant_id": "globex_international_holdings_incorporated_and_sons", "enabled": False},
            3: {"tenant_id": "hooli", "stage": Stage.PENDING_INSTALL, "reason": "waiting_for:crm"},
            4: {"tenant_id": "initech", "stage": Stage.PROVISIONING_ROLLED_BACK, "reason": "crm_refused"},
            5: {"tenant_id": "umbrella", "stage": Stage.DEPROVISIONED, "installed": False},
        }
        for number, values in changes.items():
            self.write(TENANTS, tenant(number, key=key_of(number), updated_at=now - ages[number] * _MIN, **values))

    def write(self, topic: Topic, one: Tenant | Event | Outcome | Audit, ce_id: str = "", value: bytes = b"") -> None:
        record: Record = one
        message = codec.encode(record, key=one.key, ce_id=ce_id or one.key, source="/test", at_us=now_us())
        headers: list[tuple[str, str | bytes | None]] = [*message.headers]
        name = named(topic, self.prefix)
        self._producer.produce(name, value or message.value, message.key, headers=headers, partition=0)
        assert self._producer.flush(30) == 0

    def run(self, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        return lifecycle(*words, cwd=self.folder, **self.environ | environ)

    def names(self, *words: str) -> list[str]:
        done = self.run("tenants", "list", "--json", *words)
        assert done.returncode == Exit.OK, done.stderr
        return [one["tenant_id"] for one in json.loads(done.stdout)]


@pytest.fixture(scope="module")
def cluster(kafka_bootstrap: str, tmp_path_factory: pytest.TempPathFactory) -> FiveTenants:
    folder = tmp_path_factory.mktemp("cli")
    return FiveTenants(kafka_bootstrap, f"cli{folder.name[-4:]}{now_us()}-", folder)


def test_a_terminal_of_80_columns_shows_each_tenant_on_one_line_in_colour(cluster: FiveTenants) -> None:
    status, said = on_terminal("tenants", "list", cwd=cluster.folder, **cluster.environ)
    assert status == Exit.OK
    assert _ESCAPE in said
    lines = re.sub(r"\x1b\[[0-9;]*m", "", said).splitlines()
    assert max(map(len, lines)) <= COLUMNS
    assert lines[0].split() == ["tenant", "key", "stage", "changed"]
    assert [line.split()[0] for line in lines[1:-3] if not line.startswith(" ")] == [
        "acme_corp", "globex_international_h…", "hooli", "initech", "umbrella",
    ]  # fmt: skip
    assert "  disabled" in lines
    assert any(re.fullmatch(r"  waiting for crm since \d\d:\d\d UTC or before", line) for line in lines)
    assert re.fullmatch("why: lifecycle tenants timeline hooli +try again: lifecycle sagas retry hooli", lines[-1])
    assert " ".join(lines[-3:-1]) == (
        "5 tenants: 1 pending_install, 2 active, 1 deprovisioned, 1 provisioning_rolled_back, 2 unwell"
    )
    short = next(line for line in lines if line.startswith("hooli")).split()[1]
    assert json.loads(cluster.run("tenants", "show", short, "--json").stdout)["tenant_id"] == "hooli"


@pytest.mark.parametrize("words", [("tenants", "list"), ("tenants", "show", "hooli")], ids=" ".join)
def test_no_color_and_a_pipe_have_no_escape_sequence(words: tuple[str, ...], cluster: FiveTenants) -> None:
    assert _ESCAPE not in on_terminal(*words, cwd=cluster.folder, NO_COLOR="1", **cluster.environ)[1]
    piped = cluster.run(*words)
    assert _ESCAPE not in piped.stdout + piped.stderr
    assert key_of(3) in piped.stdout, "a pipe has whole keys"


def test_a_pipe_gets_one_line_a_tenant_and_the_summary_goes_to_stderr(cluster: FiveTenants) -> None:
    done = cluster.run("tenants", "list")
    assert len(done.stdout.splitlines()) == 6
    assert done.stderr.startswith("5 tenants: ")


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("--unwell",), ["hooli", "initech"]),
        (("--stage", "pending_install", "--stage", "deprovisioned", "--older-than", "0"), ["hooli", "umbrella"]),
        (("--stage", "pending_install"), ["hooli"]),
        (("--older-than", "25m"), ["globex_international_holdings_incorporated_and_sons", "hooli"]),
        (("--older-than", "1h", "--unwell"), []),
        (("--org", key_of(2)[:36]), ["globex_international_holdings_incorporated_and_sons", "initech"]),
        (("--org", key_of(1)[:8], "--org", key_of(2)[:8], "--stage", "pending_install"), ["hooli"]),
    ],
)
def test_different_filters_combine_by_and_and_repeated_filters_by_or(
    words: tuple[str, ...], names: list[str], cluster: FiveTenants
) -> None:
    assert cluster.names(*words) == names


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("tenants", "list", "--stage", "activ"), "--stage: 'activ' is no stage; the nearest: active; there are"),
        (("tenants", "list", "--org", "nope"), "--org: 'nope': no such organisation"),
        (("tenants", "list", "--older-than", "soon"), "--older-than: 'soon' is neither 0 nor a number"),
        (("reconcile", "--now", "--org", "nope"), "--org: 'nope': no such organisation"),
        (("reconcile", "--dry-run", "--approve", "x"), "--approve: a --dry-run changes nobody"),
        (
            ("reconcile", "--refuse", "x", "--by", "Ada"),
            "--refuse: 'x': this run has no removals that nobody has refused; nothing was done",
        ),
        (
            ("reconcile", "--now", "--approve", "x", "--by", "Ada"),
            "--approve: 'x': this run removes nobody and holds no new tenants; nothing was done",
        ),
        (("reconcile", "--now", "hooli", "--org", key_of(1)[:36]), "--org: KEY names the tenants already"),
        (("reconcile", "--now", ""), "KEY: ''"),
        (("tenants", "show", key_of(1)[:8]), "names 2 tenants"),
    ],
    ids=lambda given: given if isinstance(given, str) else " ".join(given),
)
def test_an_option_with_an_unknown_name_is_refused(words: tuple[str, ...], said: str, cluster: FiveTenants) -> None:
    done = cluster.run(*words)
    assert done.returncode == (Exit.NOT_FOUND if words[-1] == "" else Exit.UNUSABLE), done.stdout + done.stderr
    assert said in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_a_named_organisation_without_credentials_is_a_deviation(cluster: FiveTenants) -> None:
    assert cluster.run("reconcile", "--now").returncode == Exit.OK, "nobody gave us credentials for any"
    done = cluster.run("reconcile", "--now", "--org", key_of(1)[:36])
    assert done.returncode == Exit.DEVIATION
    assert "organisation file: missing" in done.stdout
    assert cluster.run("reconcile", "--now", "hooli").returncode == Exit.DEVIATION


def test_a_timeline_shows_step_class_and_status_and_lists_unreadable_records(
    cluster: FiveTenants,
) -> None:
    key, at = key_of(4), now_us()
    event = Event(
        key=key, uid="e:1", event=EventType.INSTALLED, occurred_at=at, revision=1, tenant_id="initech",
        source=Source.WEBHOOK, configuration={},
    )  # fmt: skip
    outcome = Outcome.model_validate(
        {
            "key": key, "seq": 1, "desired_version": 1, "generation": 1, "direction": "up", "state": "rolled_back",
            "step": "crm", "class": "refused", "reason": "crm_refused HTTP 422 unknown_plan", "at": at,
        }
    )  # fmt: skip
    why = "crm of generation 1, intent 1: HTTP 422 unknown_plan"
    cluster.write(EVENTS, event, f"{key}/e:1")
    cluster.write(
        AUDIT, Audit(id=f"{key}/step/1", key=key, what="step", verdict="create refused", why=why, at=at, mac="")
    )
    cluster.write(OUTCOMES, outcome, f"{key}/outcome/1")
    cluster.write(OUTCOMES, outcome, f"{key}/outcome/2", value=b'{"state": "of a newer release"}')
    told = json.loads(cluster.run("tenants", "timeline", "initech", "--json").stdout)
    assert [(one["what"], one["why"]) for one in told[1:3]] == [
        ("step", why),
        ("outcome", "crm: refused HTTP 422 unknown_plan"),
    ]
    assert told[0]["what"] == "event"
    assert told[3]["what"] == "unreadable"
    status, said = on_terminal("tenants", "timeline", "initech", cwd=cluster.folder, **cluster.environ)
    assert status == Exit.OK
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in said.splitlines()) <= COLUMNS


def test_an_unknown_tenant_is_not_found(cluster: FiveTenants) -> None:
    done = cluster.run("tenants", "show", "holi")
    assert done.returncode == Exit.NOT_FOUND
    assert "the nearest: hooli" in done.stderr
    unknown = "ffffffff-0000-4000-8000-000000000001:ffffffff-0000-4000-9000-000000000001"
    assert cluster.run("tenants", "timeline", unknown).returncode == Exit.NOT_FOUND


def test_unreadable_records_of_the_tenant_view_are_counted(kafka_bootstrap: str, tmp_path: Path) -> None:
    own = FiveTenants(kafka_bootstrap, f"cli-unread{now_us()}-", tmp_path)
    own.write(TENANTS, tenant(6, key=key_of(6)), value=b"{")
    done = own.run("tenants", "list", "--json")
    assert (done.returncode, len(json.loads(done.stdout))) == (Exit.OK, 5)
    assert done.stderr == "1 records of the view cannot be read by this release and are left out\n"
