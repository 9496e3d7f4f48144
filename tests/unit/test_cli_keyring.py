"""`lifecycle keyring` makes, renews and lists secrets, loses no valid one, and shows none unasked."""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from pydantic import SecretStr

from schemas.keyring import Previous
from schemas.times import instant, rfc3339
from services.adapters.process.errors import Unusable
from services.adapters.process.settings import Settings
from services.adapters.secrets import keyring
from services.cli import keyring_contents, keyring_file
from services.cli.exits import CommandError, Exit
from services.cli.main import main
from services.core.delivery.signature import sign
from tests.support.ingress_process import ORG, now_us
from tests.support.terminal import on_terminal
from tests.unit.test_cli_commands import lifecycle

S = 1_000_000
HOUR = 3600 * S
INTEGRATION = "a1b2c3d4-e5f6-7890-abcd-ef1234567890"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "keyring.json"
    keyring_contents.init(path)
    return path


@dataclass(frozen=True)
class CommandOutput:
    out: str
    err: str


class KeyringCommand(Protocol):
    """Runs `lifecycle keyring` with these words and says what it wrote; it must end with `status`."""

    def __call__(self, file: Path, *words: str, status: Exit = Exit.OK) -> CommandOutput: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> KeyringCommand:
    """In this process, as there are many: the program's own `main`, from its command line to its exit status."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)

    def ran(file: Path, *words: str, status: Exit = Exit.OK) -> CommandOutput:
        monkeypatch.chdir(file.parent)
        monkeypatch.setenv("KEYRING_FILE", file.name)
        monkeypatch.setattr(sys, "argv", ["lifecycle", "keyring", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        done = CommandOutput(*capsys.readouterr())
        assert (ended.value.code or Exit.OK) == status, done.err
        return done

    return ran


def held(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def secrets_of(file: Path) -> set[str]:
    """Every secret of the file, wherever it stands."""

    def texts(value: Any) -> set[str]:
        if isinstance(value, dict):
            return set().union(*map(texts, value.values()))
        if isinstance(value, list):
            return set().union(*map(texts, value))
        return {value} if isinstance(value, str) and len(value) > 40 else set()

    return texts(held(file))


def rotate(file: Path, now: int, overlap_us: int, name: str = "default") -> None:
    def edit(whole: Any, _: Any) -> None:
        whole["endpoints"][name] = keyring_contents.rotated(whole["endpoints"][name], now, overlap_us)

    keyring_file.change(file, edit)


def test_an_endpoint_is_added_for_all_organisations_without_showing_its_secret(file: Path, run: KeyringCommand) -> None:
    before = held(file)
    done = run(file, "add", "acme")
    assert "endpoints.acme.current.secret" in done.out
    assert not any(secret in done.out + done.err for secret in secrets_of(file))
    after = held(file)
    added = after["endpoints"].pop("acme")
    assert after == before, "everything else is as it was"
    assert len(added.pop("current")["secret"].encode()) >= 32
    assert added == {"previous": None, "orgs": ["*"], "integrations": ["*"], "restamps": True}
    assert file.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in file.parent.iterdir()} == {file.name}, "nothing is left beside it"


def test_an_endpoint_is_added_for_named_organisations_and_shows_its_secret_on_request(
    file: Path, run: KeyringCommand
) -> None:
    words = ("--org", ORG, "--org", ORG.upper(), "--integration", INTEGRATION, "--no-restamps")
    done = run(file, "add", "acme.crm-1", *words, "--show-secret", "--json")
    told = json.loads(done.out)
    (made,) = [one for name, one in held(file)["endpoints"].items() if name == "acme.crm-1"]
    assert re.fullmatch("[0-9a-f]{8}", told.pop("fingerprint"))
    assert told == {
        "endpoint": "acme.crm-1",
        "takes": "webhooks",
        "orgs": [ORG, ORG.upper()],
        "integrations": [INTEGRATION],
        "restamps": False,
        "made_at": made["current"]["made_at"],
        "previous": None,
        "file": file.name,
        "secret_at": 'endpoints["acme.crm-1"].current.secret',
        "secret": made["current"]["secret"],
    }
    assert "restart the ledger" in done.err


def test_an_existing_endpoint_is_not_added_again(file: Path, run: KeyringCommand) -> None:
    before = file.read_bytes()
    assert "rotate" in run(file, "add", "default", status=Exit.REFUSED).err
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ("", "ENDPOINT"),
        ("a/b", "ENDPOINT"),
        (".hidden", "ENDPOINT"),
        ("ä", "ENDPOINT"),
        ("a" * 65, "ENDPOINT"),
        ("a\n", "ENDPOINT"),
        ("a", "--org", "nope"),
        ("a", "--integration", "{}"),
    ],
    ids=repr,
)
def test_an_invalid_endpoint_is_refused_and_the_file_unchanged(
    file: Path, words: tuple[str, ...], run: KeyringCommand
) -> None:
    before = file.read_bytes()
    name, option, *value = words
    done = run(file, "add", *([option, *value] if value else []), "--", name, status=Exit.UNUSABLE)
    assert done.err.startswith(f"lifecycle: {option}: ")
    assert file.read_bytes() == before


def test_a_rotation_keeps_the_former_secret_for_a_day_by_default(file: Path, run: KeyringCommand) -> None:
    before, asked_us = held(file), now_us()
    done = run(file, "rotate", "default")
    after = held(file)
    fresh, former = (after["endpoints"]["default"].pop(name) for name in ("current", "previous"))
    was = before["endpoints"]["default"].pop("current")
    before["endpoints"]["default"].pop("previous")
    assert after == before, "everything else is as it was"
    assert former["secret"] == was["secret"] != fresh["secret"]
    assert 24 * HOUR <= instant(former["not_after"]) - asked_us <= 24 * HOUR + 60 * S
    assert f"counts until {former['not_after']}" in done.out
    assert not any(secret in done.out + done.err for secret in secrets_of(file))


@pytest.mark.parametrize(
    ("overlap", "us"),
    [("30s", 30 * S), ("90m", 90 * 60 * S), ("24h", 24 * HOUR), ("1d", 24 * HOUR), ("0", None), ("0h", None)],
)
def test_a_rotation_keeps_the_former_secret_for_the_given_overlap(
    file: Path, overlap: str, us: int | None, run: KeyringCommand
) -> None:
    asked_us = now_us()
    told = json.loads(run(file, "rotate", "default", "--overlap", overlap, "--json").out)
    former = held(file)["endpoints"]["default"]["previous"]
    if us is None:
        assert (former, told["previous"]) == (None, None)
    else:
        assert told["previous"].pop("fingerprint") != told["fingerprint"]
        assert told["previous"] == {"not_after": former["not_after"], "counts": True}
        assert us <= instant(former["not_after"]) - asked_us <= us + 60 * S


@pytest.mark.parametrize("overlap", ["25h", "86401s", "1441m", "-1h", "2d", "1.5h", "h", "", "24", "٣h", "9999999h"])
def test_an_invalid_overlap_is_refused(file: Path, overlap: str, run: KeyringCommand) -> None:
    before = file.read_bytes()
    assert run(file, "rotate", "default", f"--overlap={overlap}", status=Exit.UNUSABLE).err.startswith(
        "lifecycle: --overlap: "
    )
    assert file.read_bytes() == before


def test_a_valid_former_secret_is_dropped_only_with_yes(file: Path, run: KeyringCommand) -> None:
    rotate(file, now_us(), HOUR)
    before = file.read_bytes()
    current = held(file)["endpoints"]["default"]["current"]["secret"]
    told = run(file, "rotate", "default", status=Exit.REFUSED).err
    assert held(file)["endpoints"]["default"]["previous"]["not_after"] in told
    assert "--yes" in told
    run(file, "rotate", "default", "--overlap", "0", status=Exit.REFUSED)
    assert file.read_bytes() == before
    run(file, "rotate", "default", "--yes")
    assert held(file)["endpoints"]["default"]["previous"]["secret"] == current


def test_an_expired_former_secret_is_replaced(file: Path, run: KeyringCommand) -> None:
    rotate(file, now_us() - 2 * HOUR, HOUR)
    current = held(file)["endpoints"]["default"]["current"]["secret"]
    run(file, "rotate", "default")
    assert held(file)["endpoints"]["default"]["previous"]["secret"] == current


@pytest.mark.parametrize(("at_us", "counts"), [(999, True), (1_000, False), (1_001, False)])
def test_a_previous_secret_is_accepted_until_its_instant(at_us: int, *, counts: bool) -> None:
    previous = Previous(secret=SecretStr("x" * 32), not_after=1_000)
    assert keyring_contents.counts(previous, at_us) is counts


def test_a_missing_endpoint_is_not_rotated(file: Path, run: KeyringCommand) -> None:
    run(file, "rotate", "acme", status=Exit.NOT_FOUND)


def test_the_list_shows_everything_but_the_secrets(file: Path, run: KeyringCommand) -> None:
    run(file, "add", "acme", "--org", ORG, "--no-restamps")
    run(file, "add", "old")
    run(file, "rotate", "default", "--overlap", "1h")
    rotate(file, now_us() - 2 * HOUR, HOUR, "old")
    until = {name: one["previous"] and one["previous"]["not_after"] for name, one in held(file)["endpoints"].items()}
    as_json, as_text = run(file, "list", "--json").out, run(file, "list").out
    anybody = {"takes": "webhooks", "orgs": ["*"], "integrations": ["*"], "restamps": True}
    told = json.loads(as_json)
    prints = [one.pop("fingerprint") for one in told]
    prints += [one["previous"].pop("fingerprint") for one in told if one["previous"]]
    assert len(set(prints)) == 5
    assert all(re.fullmatch("[0-9a-f]{8}", one) for one in prints)
    assert all(now_us() - instant(one.pop("made_at")) < 3 * HOUR for one in told)
    assert told == [
        anybody | {"endpoint": "acme", "orgs": [ORG], "restamps": False, "previous": None},
        anybody | {"endpoint": "default", "previous": {"not_after": until["default"], "counts": True}},
        anybody | {"endpoint": "old", "previous": {"not_after": until["old"], "counts": False}},
    ]
    assert f"counts until {until['default']}" in as_text
    assert f"expired {until['old']}" in as_text
    assert len(secrets_of(file)) == 10
    assert not any(secret in as_json + as_text for secret in secrets_of(file))


def test_fingerprints_differ_by_secret_and_confirm_no_guess_of_a_weak_secret(file: Path, run: KeyringCommand) -> None:
    weak = "correct horse battery staple correct"
    whole = held(file)
    whole["endpoints"]["default"]["current"] = {"secret": weak}
    whole["endpoints"]["same"] = whole["endpoints"]["default"]
    file.write_text(json.dumps(whole))
    first = json.loads(run(file, "list", "--json").out)
    assert first[0]["fingerprint"] == first[1]["fingerprint"]
    assert [one["made_at"] for one in first] == [None, None], "nobody knows how old it is"
    digests = (hashlib.new(name, weak.encode()).hexdigest() for name in ("md5", "sha1", "sha256", "sha512"))
    assert not any(first[0]["fingerprint"] in digest for digest in digests)
    file.write_text(json.dumps(whole | {"material": keyring_contents.fresh(now_us())["material"]}))
    assert json.loads(run(file, "list", "--json").out)[0]["fingerprint"] != first[0]["fingerprint"], "it is keyed"
    file.write_text(json.dumps({"endpoints": whole["endpoints"]}))
    assert json.loads(run(file, "list", "--json").out)[0]["fingerprint"] is None
    assert "no fingerprints" in run(file, "list").err


def test_an_endpoint_is_removed_with_yes_and_the_rest_is_unchanged(file: Path, run: KeyringCommand) -> None:
    run(file, "add", "acme")
    before = held(file)
    assert "say --yes" in run(file, "remove", "acme", status=Exit.UNUSABLE).err
    assert held(file) == before
    told = json.loads(run(file, "remove", "acme", "--yes", "--json").out)
    assert told == {"file": file.name, "removed": "acme", "endpoints": ["default"]}
    del before["endpoints"]["acme"]
    assert held(file) == before


@pytest.mark.parametrize(
    ("answer", "status", "left"), [("y", Exit.OK, 1), ("n", Exit.REFUSED, 2), ("", Exit.REFUSED, 2)]
)
def test_a_removal_on_a_terminal_asks_for_confirmation(
    file: Path, run: KeyringCommand, answer: str, status: Exit, left: int
) -> None:
    run(file, "add", "acme", "--org", ORG)
    ended, said = on_terminal(
        "keyring", "remove", "acme", cwd=file.parent, answers=f"{answer}\n", KEYRING_FILE=file.name
    )
    assert ended == status, said
    assert f"organisation {ORG}" in " ".join(said.split())
    assert len(held(file)["endpoints"]) == left


def test_the_last_endpoint_or_a_missing_endpoint_is_not_removed(file: Path, run: KeyringCommand) -> None:
    before = file.read_bytes()
    assert "the last endpoint" in run(file, "remove", "default", "--yes", status=Exit.REFUSED).err
    assert "the nearest: default" in run(file, "remove", "defualt", "--yes", status=Exit.NOT_FOUND).err
    assert file.read_bytes() == before


def test_removing_a_non_restamping_endpoint_warns_about_the_ledger(file: Path, run: KeyringCommand) -> None:
    run(file, "add", "acme", "--no-restamps")
    assert "restart no ledger" in run(file, "remove", "acme", "--yes").err


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not on the PATH")
def test_a_keyring_in_a_checkout_is_ignored_by_git(tmp_path: Path) -> None:
    ignored = Path(__file__).parents[2] / ".gitignore"
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    (tmp_path / ".gitignore").write_bytes(ignored.read_bytes())
    keyring_contents.init(tmp_path / "keyring.json")
    (tmp_path / ".keyring.json.half").touch()
    argv = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "?? .gitignore\n"


@pytest.mark.parametrize("name", ["audit", "seal", "outputs"])
def test_rotated_key_material_gets_a_new_first_key_and_keeps_the_others(
    file: Path, name: str, run: KeyringCommand
) -> None:
    before = held(file)
    done = run(file, "rotate-material", name, "--json")
    told, after = json.loads(done.out), held(file)
    assert ("restart the ledger" in done.err) is (name != "seal"), "the sealer reads its keys anew"
    first, *others = after["material"].pop(name)
    assert others == before["material"].pop(name) != [first]
    assert after == before
    assert told == {"file": file.name, "secret_at": f"material.{name}[0]", "keys": 2}


@pytest.mark.parametrize("name", ["identity", "configuration"])
def test_key_material_of_the_journal_is_never_rotated(file: Path, name: str, run: KeyringCommand) -> None:
    before = file.read_bytes()
    run(file, "rotate-material", name, status=Exit.UNUSABLE)
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [("add", "a"), ("rotate", "default"), ("rotate-material", "seal"), ("list",), ("remove", "default", "--yes")],
    ids=str,
)
@pytest.mark.parametrize(
    "content",
    ['{"endpoints": {"default": {"current": {"secret": "canary"}}}}', '{"endpoints": {', "{}"],
    ids=["short", "half", "empty"],
)
def test_a_broken_keyring_file_is_refused_and_unchanged(
    tmp_path: Path, content: str, words: tuple[str, ...], run: KeyringCommand
) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(content)
    told = run(path, *words, status=Exit.UNUSABLE).err
    assert told.startswith(f"lifecycle: KEYRING_FILE: {path.name}: ")
    assert "canary" not in told
    assert path.read_text() == content


def test_a_missing_keyring_file_is_not_made_by_add(tmp_path: Path, run: KeyringCommand) -> None:
    told = run(tmp_path / "keyring.json", "add", "acme", status=Exit.UNUSABLE).err
    assert "lifecycle keyring init" in told
    assert list(tmp_path.iterdir()) == []


def test_a_keyring_without_key_material_has_none_to_rotate(tmp_path: Path, run: KeyringCommand) -> None:
    path = tmp_path / "keyring.json"
    path.write_text(json.dumps({"endpoints": keyring_contents.fresh(now_us())["endpoints"]}))
    run(path, "rotate-material", "seal", status=Exit.NOT_FOUND)


def test_the_keyring_of_a_running_up_is_found_by_its_state_folder(file: Path) -> None:
    state = file.parent / ".lifecycle"
    state.mkdir()
    (state / "environment.json").write_text(json.dumps({"KEYRING_FILE": str(file)}))
    for words in (("list", "--json"), ("list", "--json", "--state-dir", ".lifecycle"), ("list", "--json", str(file))):
        done = lifecycle("keyring", *words, cwd=file.parent)
        assert [one["endpoint"] for one in json.loads(done.stdout)] == ["default"]


def test_concurrent_commands_lose_no_change(file: Path) -> None:
    argv = [sys.executable, "-m", "services.cli.main", "keyring"]
    environ = {"PATH": os.environ["PATH"], "KEYRING_FILE": str(file)}
    words = [("add", f"e{number}") for number in range(4)] + [("rotate", "default"), ("rotate-material", "seal")]
    with file.open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that all of them stand before it
        running = [subprocess.Popen([*argv, *one], env=environ, stdout=subprocess.DEVNULL) for one in words]
        assert all(one.poll() is None for one in running)
    assert [one.wait(60) for one in running] == [0] * len(words)
    after = held(file)
    assert set(after["endpoints"]) == {"default", "e0", "e1", "e2", "e3"}
    assert after["endpoints"]["default"]["previous"] is not None
    assert len(after["material"]["seal"]) == 2


def test_concurrent_changes_are_all_kept_and_a_reader_always_sees_a_whole_file(file: Path) -> None:
    def add(number: int) -> None:
        keyring_file.change(
            file, lambda held, _: held["endpoints"].update({f"e{number}": keyring_contents.endpoint(now_us())})
        )

    with ThreadPoolExecutor(8) as pool:
        adding = [pool.submit(add, number) for number in range(60)]
        seen = [len(keyring.load(file).endpoints)]
        while not all(one.done() for one in adding):
            seen.append(len(keyring.load(file).endpoints))
        assert all(one.result() is None for one in adding)
    assert seen == sorted(seen)
    assert len(keyring.load(file).endpoints) == 61


def test_a_change_behind_a_link_replaces_the_file_and_keeps_the_link(file: Path, run: KeyringCommand) -> None:
    link = file.with_name("link.json")
    link.symlink_to(file.name)
    run(link, "add", "acme")
    assert link.is_symlink()
    assert "acme" in held(file)["endpoints"]


def test_a_change_removes_the_rights_of_other_users_and_reports_it(file: Path, run: KeyringCommand) -> None:
    file.chmod(0o644)
    assert "its owner alone" in run(file, "add", "acme").err
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a file somebody else's")
def test_a_file_changed_by_root_keeps_its_owner(file: Path) -> None:
    os.chown(file, 4711, 4712)
    rotate(file, now_us(), HOUR)
    assert (file.stat().st_uid, file.stat().st_gid) == (4711, 4712)
    assert file.stat().st_mode & 0o777 == 0o600


EDITS: dict[str, Callable[[Any, Any], None]] = {
    "not a keyring": lambda held, _: held["endpoints"].update({"bad": {"current": {"secret": "short"}}}),
    "refused": lambda _, before: refuse(before),
}


def refuse(before: Any) -> None:
    raise CommandError(Exit.REFUSED, f"{len(before.endpoints)} endpoints are enough")


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_a_failed_change_leaves_the_file_and_no_temporary_file(file: Path, edit: Callable[[Any, Any], None]) -> None:
    before = file.read_bytes()
    with pytest.raises((Unusable, CommandError)):
        keyring_file.change(file, edit)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_defaults_of_a_keyring_file_are_not_written_into_it(file: Path) -> None:
    file.write_text(
        json.dumps(
            {"endpoints": {"default": {"current": {"secret": "x" * 32}}, "other": {"current": {"secret": "y" * 32}}}}
        )
    )
    rotate(file, 0, HOUR)
    found = held(file)["endpoints"]
    assert found["other"] == {"current": {"secret": "y" * 32}}
    assert found["default"]["previous"] == {"secret": "x" * 32, "not_after": rfc3339(HOUR)}
    assert set(found["default"]) == {"current", "previous"}


def test_a_new_secret_signs(file: Path, run: KeyringCommand) -> None:
    secret = run(file, "rotate", "default", "--show-secret").out.splitlines()[1]
    current = keyring.load(file).endpoints["default"].current.secret
    assert sign(secret.encode(), b"{}") == sign(keyring.raw(current), b"{}")


ACCOUNT = "490606849374"


def test_an_endpoint_of_hints_is_added_listed_rotated_and_removed(file: Path, run: KeyringCommand) -> None:
    before = held(file)
    assert "hints" not in before, "an older program reads a file without hints"
    done = run(file, "add", "audit", "--hint", "--org", ORG, "--account", ACCOUNT)
    assert "audit is proved by hints.audit.current.secret" in done.out
    assert not any(secret in done.out + done.err for secret in secrets_of(file))
    made = held(file)["hints"]["audit"]
    assert (made["orgs"], made["accounts"], made["previous"]) == ([ORG], [ACCOUNT], None)
    assert {name: value for name, value in held(file).items() if name != "hints"} == before
    (told,) = [one for one in json.loads(run(file, "list", "--json").out) if one["endpoint"] == "audit"]
    assert (told["takes"], told["orgs"], told["accounts"], told["previous"]) == ("hints", [ORG], [ACCOUNT], None)
    assert not {"integrations", "restamps"} & told.keys()
    assert f"AWS account {ACCOUNT}" in run(file, "list").out
    told = json.loads(run(file, "rotate", "audit", "--show-secret", "--json").out)
    after = held(file)["hints"]["audit"]
    assert told["secret"] == after["current"]["secret"] != made["current"]["secret"]
    assert told["secret_at"] == "hints.audit.current.secret"
    assert after["previous"]["secret"] == made["current"]["secret"]
    assert told["previous"]["counts"]
    left = json.loads(run(file, "remove", "audit", "--yes", "--json").out)
    assert left["endpoints"] == ["default"]
    assert held(file)["hints"] == {}


def test_an_endpoint_whose_audits_count_as_events_is_named_as_such(file: Path, run: KeyringCommand) -> None:
    done = run(file, "add", "told", "--hint", "--authority", "event", "--org", ORG, "--account", ACCOUNT)
    assert f"can install and remove tenants of {ORG}" in done.err
    assert held(file)["hints"]["told"]["authority"] == "event"
    run(file, "add", "asked", "--hint")
    assert "authority" not in held(file)["hints"]["asked"], "an earlier program reads an endpoint of the default"
    found = {one["endpoint"]: one for one in json.loads(run(file, "list", "--json").out)}
    assert [found[name].get("authority") for name in ("told", "asked", "default")] == ["event", "api", None]
    assert "audits count as events; organisation" in run(file, "list").out
    run(file, "rotate", "told")
    assert held(file)["hints"]["told"]["authority"] == "event"


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--authority", "event"), "needs --hint"),
        (("--hint", "--authority", "god"), "'god' is neither api nor event"),
        (("--hint", "--authority", "event", "--account", ACCOUNT), "needs orgs by name"),
        (("--hint", "--authority", "event", "--org", ORG), "needs accounts by name"),
        (("--hint", "--authority", "event", "--org", "*", "--account", ACCOUNT), "needs orgs by name"),
    ],
)
def test_events_are_believed_of_named_organisations_and_accounts_alone(
    file: Path, words: tuple[str, ...], fault: str, run: KeyringCommand
) -> None:
    before = file.read_bytes()
    error = run(file, "add", "new", *words, status=Exit.UNUSABLE).err
    assert "--authority: " in error
    assert fault in error
    assert file.read_bytes() == before


@pytest.mark.parametrize("bound", [{"orgs": []}, {"orgs": ["*"]}, {"accounts": []}, {"accounts": [ACCOUNT, "*"]}])
def test_a_file_with_events_of_anybody_is_refused(file: Path, bound: dict[str, list[str]], run: KeyringCommand) -> None:
    run(file, "add", "told", "--hint", "--authority", "event", "--org", ORG, "--account", ACCOUNT)
    whole = held(file)
    whole["hints"]["told"] |= bound
    file.write_text(json.dumps(whole))
    assert "hints.told: the authority `event` needs" in run(file, "list", status=Exit.UNUSABLE).err


def test_one_name_is_of_one_endpoint_of_either_sort(file: Path, run: KeyringCommand) -> None:
    run(file, "add", "default", "--hint", status=Exit.REFUSED)
    run(file, "add", "audit", "--hint")
    run(file, "add", "audit", status=Exit.REFUSED)
    whole = held(file)
    whole["endpoints"]["audit"] = whole["endpoints"]["default"]
    file.write_text(json.dumps(whole))
    assert "a name in `endpoints` stands in `hints` too" in run(file, "list", status=Exit.UNUSABLE).err


@pytest.mark.parametrize(
    "words",
    [
        ("--hint", "--integration", INTEGRATION), ("--hint", "--no-restamps"), ("--account", ACCOUNT),
        ("--hint", "--account", "12"), ("--hint", "--org", "acme"),
    ],
)  # fmt: skip
def test_an_option_of_the_other_sort_or_an_invalid_binding_is_refused(
    file: Path, words: tuple[str, ...], run: KeyringCommand
) -> None:
    before = file.read_bytes()
    assert words[-2 if words[-1][0] != "-" else -1] in run(file, "add", "new", *words, status=Exit.UNUSABLE).err
    assert file.read_bytes() == before


def test_the_last_endpoint_of_either_sort_is_not_removed(file: Path, run: KeyringCommand) -> None:
    run(file, "add", "audit", "--hint")
    run(file, "remove", "default", "--yes")
    assert "is the last endpoint" in run(file, "remove", "audit", "--yes", status=Exit.REFUSED).err


@pytest.mark.parametrize(
    "secret", ["with a space 0123456789-0123456789-0123", "ümläut-0123456789-0123456789-0123456789"]
)
def test_a_secret_of_hints_must_fit_a_header(file: Path, secret: str, run: KeyringCommand) -> None:
    run(file, "add", "audit", "--hint")
    whole = held(file)
    whole["hints"]["audit"]["current"]["secret"] = secret
    file.write_text(json.dumps(whole))
    error = run(file, "list", status=Exit.UNUSABLE).err
    assert "hints.audit: a secret of hints is made of printable ASCII without spaces" in error
    assert secret not in error
