"""Rules of this house beyond the linters: `python -m tests.house_rules` names every breach and ends 1 if there is one.

Rule of proofs: what proves somebody is compared in constant time. `==`, `!=`, `in` and `not in` stop at the first
difference, and their time tells how much was right; so none of them touches a digest, a MAC, a signature or a claim
(`is` does not look inside). Where such a comparison proves nobody it stands in `PROVES_NOBODY` with its reason; else it
is `hmac.compare_digest`.

Rule of state: only `services/core` makes or changes a saga's journal or a row of the ledger. Elsewhere such a record is
read, passed on and written as it is: what becomes of a tenant is a decision. A call does not tell the class of a model,
so every changed copy of a model outside of `services/core` stands in `CHANGES_NO_STATE` with its reason.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from types import ModuleType
from typing import Final

from schemas import journal, rows, saga

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("services", "schemas")

_PROOFS: Final = frozenset({"digest", "hexdigest", "mac", "hmac", "signature", "sign", "claim", "claimed"})
"""Words of a name that says: this is a proof; their plurals as well."""

_WRAPPERS: Final = frozenset({"value", "raw", "hex", "text", "content"})
"""Attributes that are what their owner is."""

_UNIT: Final = "bytes"
"""Last word of a size: `DIGEST_BYTES` is a number."""

_WORD: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_TELLING: Final = ast.Eq | ast.NotEq | ast.In | ast.NotIn

PROVES_NOBODY: Final[Mapping[tuple[str, str], str]] = {
    ("services/core/ledger/journal_compaction.py", "digest in needed"): "names a text of our own row",
    ("services/core/ledger/contradiction.py", "self._digests[last] == digest"): "both are ours, of two configurations",
    ("services/core/ledger/contradiction.py", "self._digests[last] != digest"): "both are ours, of two configurations",
    (
        "services/core/reconcile/observed_state.py",
        "look.mac != tenant.configuration_mac",
    ): "both are ours: has the configuration changed?",
    (
        "services/core/reconcile/observed_state.py",
        "tenant.configuration_mac == bare_mac",
    ): "both are ours: has the configuration changed?",
    (
        "services/core/reconcile/reconcile.py",
        "sight.doubt.claim != look.claim",
    ): "a word of ours about what Genesys claims",
    ("services/core/reconcile/reconcile.py", "sight.doubt.claim == ABSENT"): "a word of ours about what Genesys claims",
    (
        "services/adapters/registry/registry.py",
        "digest != removals_digest(keys)",
    ): "every operator sees it; it guards against a slip",
    ("services/engines/jars.py", "hashlib.file_digest(file, 'sha256').hexdigest() == self.sha256"): "both are public",
    ("services/provisioner/plans.py", "digest in self._by_digest"): "names a plan of ours",
}
"""File and comparison to the reason why its time tells nobody anything."""

DECIDES: Final = "services/core/"
"""The folder that may make and change state."""

_STATE_MODULES: Final[Mapping[str, ModuleType]] = {module.__name__: module for module in (journal, rows, saga)}
_STATE: Final = frozenset(
    name
    for module in _STATE_MODULES.values()
    for name, value in vars(module).items()
    if isinstance(value, type) and value.__module__ in _STATE_MODULES and not issubclass(value, Enum)
)
"""The classes of a saga's journal and of the ledger's rows."""

_COPIES: Final = frozenset({"model_copy", "model_construct"})
"""Methods that make a changed model, whatever its class."""

_REPLACES: Final = frozenset({"replace", "_replace", "_make", "__replace__"})
"""The same of a dataclass or a named tuple. Looked for where a module imports of the rows: others have them too."""

CHANGES_NO_STATE: Final[Mapping[tuple[str, str], str]] = {
    ("services/cli/environment.py", "found.model_copy"): "settings of a command",
}
"""File and call to the reason why it changes neither a journal nor a row."""


def comparisons(text: str) -> Iterator[tuple[int, str]]:
    """Every comparison of a module that its time would betray: line, and the comparison as `ast.unparse` writes it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare):
            left = node.left
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, _TELLING) and (_is_proof(left) or _is_proof(right)):
                    yield node.lineno, ast.unparse(ast.Compare(left, [operator], [right]))
                left = right


def state_changes(text: str) -> Iterator[tuple[int, str]]:
    """Every call of a module that makes or changes a journal or a row: line, and what is called."""
    tree = ast.parse(text)
    names = _imported(tree)
    knows_rows = any(name.startswith(("schemas.rows", "schemas.journal")) for name in names.values())
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        module, _, name = _full_name(node.func, names).rpartition(".")
        makes = module in _STATE_MODULES and name in _STATE
        copies = isinstance(node.func, ast.Attribute) and name in _COPIES
        replaces = knows_rows and name in _REPLACES and not _is_of_text(node)
        if makes or copies or replaces:
            yield node.lineno, ast.unparse(node.func)


def breaches(root: Path, excepted: Mapping[tuple[str, str], str]) -> list[str]:
    """What is wrong with proofs below `root`, a sentence each; an exception that excepts nothing is wrong as well."""
    return _breaches(root, comparisons, "compare a proof with hmac.compare_digest", excepted)


def foreign_changes(root: Path, excepted: Mapping[tuple[str, str], str]) -> list[str]:
    """What is wrong with state below `root`, as `breaches`."""
    remedy = "only services/core makes or changes a journal or a row: put the change into a function there"
    return _breaches(root, state_changes, remedy, excepted, spared=(DECIDES, "schemas/"))


def _breaches(
    root: Path,
    find: Callable[[str], Iterator[tuple[int, str]]],
    remedy: str,
    excepted: Mapping[tuple[str, str], str],
    spared: tuple[str, ...] = (),
) -> list[str]:
    found = []
    unused = set(excepted)
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if name.startswith(spared):
            continue
        for line, code in find(path.read_text(encoding="utf-8")):
            if (name, code) not in excepted:
                found.append(f"{name}:{line}: `{code}`: {remedy}")
            unused.discard((name, code))
    return found + [f"{name}: `{code}` is excepted and not there" for name, code in sorted(unused)]


def main() -> int:
    """Run the program."""
    found = breaches(ROOT, PROVES_NOBODY) + foreign_changes(ROOT, CHANGES_NO_STATE)
    for sentence in found:
        sys.stderr.write(sentence + "\n")
    return 1 if found else 0


def _imported(tree: ast.AST) -> dict[str, str]:
    """The full name of everything that a module imports, by the name that it has there."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            # `import a.b` binds `a`, and the code writes the whole: only a name given to it has to be known.
            found |= {one.asname or one.name: one.name for one in node.names}
    return found


def _full_name(function: ast.expr, names: Mapping[str, str]) -> str:
    """What is called, with the names of imports written out."""
    match function:
        case ast.Name(id=name):
            return names.get(name, name)
        case ast.Attribute(value=owner, attr=name):
            return f"{_full_name(owner, names)}.{name}"
    return ""


def _is_of_text(call: ast.Call) -> bool:
    """`text.replace(old, new)`: two or three arguments, none of them by name."""
    return len(call.args) > 1 and not call.keywords


def _is_proof(operand: ast.expr) -> bool:
    return any(_says(name) for name in _names(operand))


def _says(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    return any(word.removesuffix("s") in _PROOFS for word in words) and words[-1] != _UNIT


def _names(node: ast.AST) -> Iterator[str]:
    """What an operand is called, and what is in it; of a field it is the field's own name that counts."""
    match node:
        case ast.Call(func=ast.Name(id="len")) | ast.Compare():
            return  # a size, or judged for itself
        case ast.Attribute(attr=name, value=owner):
            yield name
            if name in _WRAPPERS:
                yield from _names(owner)
            return
        case ast.Call(func=ast.Attribute(value=owner, attr=name), args=arguments):
            yield name
            yield from _names(owner)
            yield from (word for one in arguments[:1] for word in _text(one) if name == "get")
        case ast.Subscript(slice=index):
            yield from _text(index)
        case ast.Name(id=name):
            yield name
    for child in ast.iter_child_nodes(node):
        yield from _names(child)


def _text(node: ast.expr) -> Iterator[str]:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value


if __name__ == "__main__":
    sys.exit(main())
