"""Commands, options, files, settings, tests and sections named in documents, help texts and comments exist.

Rule: a name is looked up where it lives, a command in the program itself. A text that names what is planned names
what does not exist.
"""

import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Final

import pytest

from schemas.export import RECORDS
from schemas.topics import TOPICS
from services.adapters.process.settings import Settings
from tests.support import opentelemetry_names
from tests.support.document_texts import (
    SPAN,
    TOP,
    Text,
    commands,
    documents,
    files,
    identifiers,
    lines,
    matches,
    options_of,
    plain,
    program,
    python,
    quoted,
    read,
    spans,
    strings,
    wrong_in,
)

_CALL: Final = re.compile(r"(?:^|[\s;&(|])lifecycle (?=[a-z])([^`;&|#)\n]*)")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_LINK: Final = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FILE: Final = re.compile(r"(?<![\w/.{}-])(?:docs|services|schemas|tests|deploy)/[\w./{},*-]*[\w}]")
_ALONE: Final = re.compile(r"[\w{},-]+\.(?:py|md|toml|ya?ml|jsonl?|sql|svg|conf|lock|lua)")
_SETTING: Final = re.compile(r"(?<![:\w])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+(?!\w)")
_TEST: Final = re.compile(r"\btest_[a-z0-9_]+")
_LATER: Final = re.compile(r"\b(?:redriv(?!ePolicy)\w*|dlq|console)\b", re.IGNORECASE)
"""`RedrivePolicy` is Amazon's name of an attribute of a queue."""

_ENDPOINTS: Final = "services/cli/local/wiring.py"
"""It writes the file of endpoints, in which the place of a console is null."""

OTHERS: Final = (
    "services/cli/sender.py",
    "services/cli/topics.py",
    "services/adapters/kafka/topics.py",
    "services/engines/",
)
"""They write the command lines of other programs."""

KAFKAS: Final = frozenset({
    "--bootstrap-server", "--command-config",
    "--add", "--allow-principal", "--operation",  # kafka-acls
    "--add-config", "--alter", "--delete", "--topic",  # kafka-configs, kafka-topics
})  # fmt: skip
"""Options of Kafka's own tools, whose command lines `lifecycle topics` prints."""

KAFKAS_SETTINGS: Final = {"ADMIN_CONFIG"}
"""The variable of a shell in those command lines."""

OPENSSLS_SETTINGS: Final = {"SSL_CERT_FILE"}
"""Variables that OpenSSL reads by itself."""

NO_CALL: Final = "lifecycle sagas on "
"""The name of a worker."""


def none(wrong: Iterable[str]) -> None:
    """Fail with every one of them."""
    found = sorted(set(wrong))
    assert not found, "\n" + "\n".join(found)


def _calls() -> Iterator[Text]:
    """Every mention of the program's commands."""
    texts = [text for name in documents() for text in spans(name)]
    texts += [text for name in plain() for text in lines(name)]
    for name in python("services/", "schemas/", "tests/"):
        texts += quoted(name)
        texts += [text for text in strings(name) if name.startswith("services/") and text.text.startswith("lifecycle ")]
    for text in texts:
        yield from (text._replace(text=call) for call in _CALL.findall(text.text) if text.text != NO_CALL)


def test_every_command_named_in_a_text_exists() -> None:
    found = list(_calls())
    assert len(found) > 60, "the instrument sees what is there"
    assert {call.text.split()[0] for call in found} >= {"up", "doctor", "topics", "keyring", "tenants", "send"}
    none(call.says(wrong) for call in found if (wrong := wrong_in(call.text)))


@pytest.mark.parametrize(
    ("call", "wrong"),
    [
        ("keyring list --show-secret", "`lifecycle keyring list` has no --show-secret"),
        ("dlq list", "`lifecycle` has no 'dlq'"),
        ("topics aply", "`lifecycle topics` has no 'aply'"),
        ("tenants list --json", None),
        ("keyring add ENDPOINT --org=x", None),
        ("--version", None),
    ],
)
def test_a_made_up_command_or_option_is_reported(call: str, wrong: str | None) -> None:
    assert wrong_in(call) == wrong


def test_the_readme_table_lists_exactly_the_commands() -> None:
    table = read("README.md").split("| command | does |")[1].split("\n\n")[0]
    told = {"version"}
    for row in table.splitlines()[2:]:
        group = ""
        for span in SPAN.findall(row.split(" | ")[0]):
            words = span.split()
            if words[0] == "lifecycle":
                words = words[1:]
                group = words[0] if hasattr(program().commands[words[0]], "commands") else ""
            elif group:
                words = [group, *words]
            assert wrong_in(" ".join(words)) is None, f"{span}: {wrong_in(' '.join(words))}"
            told.add(" ".join(words[:2]) if group else words[0])
    assert told == commands().keys()


def test_every_option_named_in_a_text_exists() -> None:
    """Options of our own tools for tests count too."""
    known = {option for node in (program(), *commands().values()) for option in options_of(node)}
    known |= KAFKAS
    known |= {option for name in python("tests/") for option in re.findall(r'add_argument\("(--[a-z-]+)"', read(name))}
    texts = [text for name in documents() for text in spans(name) if text.text.startswith("--")]
    for name in python("services/"):
        if not name.startswith(OTHERS):
            texts += quoted(name)
            texts += strings(name) if name.startswith("services/cli/") else ()
    none(text.says(one) for text in texts for one in _OPTION.findall(text.text) if one not in known)


def test_every_link_has_a_target() -> None:
    wrong, count = list[str](), 0
    for text in (text for name in documents() for text in lines(name)):
        for target in _LINK.findall(SPAN.sub("", text.text)):
            if target.startswith(("http:", "https:", "mailto:")):
                continue
            path, _, anchor = target.partition("#")
            there = (TOP / text.file).parent / path if path else TOP / text.file
            if not there.exists() or (anchor and anchor not in _anchors(there)):
                wrong.append(text.says(target))
            count += 1
    assert count > 8
    none(wrong)


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def _expanded(text: str) -> Iterator[str]:
    """`a/{b,c}.py` is two paths."""
    found = re.search(r"\{([^{}]*)\}", text)
    if found is None:
        yield text
        return
    for part in found[1].split(","):
        yield from _expanded(text[: found.start()] + part + text[found.end() :])


def _exists(path: str) -> bool:
    """True of a file or folder, a module without its suffix, and the number of a decision."""
    if "*" in path:
        return any(TOP.glob(path))
    is_decision = re.fullmatch(r"docs/decisions/\d{4}", path) and any(TOP.glob(f"{path}-*.md"))
    return bool(is_decision) or (TOP / path).exists() or (TOP / f"{path}.py").exists()


def test_every_path_named_in_a_text_exists() -> None:
    texts = [text for name in (*documents(), *plain()) for text in matches(name, _FILE)]
    for name in python("services/", "schemas/", "tests/"):
        texts += [text._replace(text=path) for text in strings(name) for path in _FILE.findall(text.text)]
    assert len(texts) > 100
    none(text.says(path) for text in texts for path in _expanded(text.text) if not _exists(path))


def test_every_file_named_without_a_folder_exists_or_is_written_by_the_program() -> None:
    there = {Path(name).name for name in files()}
    there |= {text.text.rpartition("/")[2] for name in python("services/") for text in strings(name)}
    texts = [text for name in documents() for text in spans(name) if _ALONE.fullmatch(text.text)]
    assert texts
    none(text.says(one) for text in texts for one in _expanded(text.text) if one not in there)


def test_every_setting_named_in_a_text_exists() -> None:
    """Constants of the code, and variables that it or a script reads, may be named as well."""
    known = {word for name in python("services/", "schemas/", "tests/") for word in identifiers(name)}
    known |= {text.text for name in plain() for text in matches(name, _SETTING)}
    known |= {name.upper() for name in Settings.model_fields} | KAFKAS_SETTINGS | OPENSSLS_SETTINGS
    known |= opentelemetry_names.STANDARD
    texts = [text for name in documents() for text in spans(name)]
    texts += [text for name in python("services/", "schemas/") for text in quoted(name)]
    none(text.says(one) for text in texts for one in _SETTING.findall(text.text) if one not in known)


def test_every_test_named_in_a_document_exists() -> None:
    there = {word for name in python("tests/") for word in re.findall(r"def (test_\w+)", read(name))}
    there |= {Path(name).stem for name in files()}
    named = [text for name in documents() for text in matches(name, _TEST)]
    assert len(named) > 20
    none(text.says() for text in named if text.text not in there)


def test_no_text_for_people_names_an_unbuilt_feature() -> None:
    texts = [text for name in documents() for text in lines(name) if '"console": null' not in text.text]
    for name in python("services/cli/", "services/adapters/process/settings.py", "schemas/"):
        texts += [text for text in strings(name) if name != _ENDPOINTS]
    none(text.says(word) for text in texts for word in _LATER.findall(text.text))


def test_every_metric_topic_and_make_target_named_in_a_document_exists() -> None:
    metrics = {text.text for text in strings("services/adapters/process/metrics.py")}
    topics = {topic.name for topic in TOPICS} | {"lifecycle.conf", "lifecycle.call"}
    topics |= {record.ce_type.removesuffix(".v1") for record in RECORDS}
    tasks = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))
    wrong = list[str]()
    for text in (text for name in documents() for text in spans(name)):
        named = re.findall(r"\blifecycle_[a-z_]+\*?", text.text)
        wrong += [text.says(one) for one in named if not any(fnmatch(metric, one) for metric in metrics)]
        wrong += [text.says(one) for one in re.findall(r"\blifecycle\.[a-z-]+", text.text) if one not in topics]
        wrong += [text.says(one) for one in re.findall(r"^make ([a-z-]+)", text.text) if one not in tasks]
    none(wrong)
