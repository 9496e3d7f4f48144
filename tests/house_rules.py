"""What no linter knows of this house: `python -m tests.house_rules` names every breach and ends 1 when there is one.

Rule: what proves somebody is compared in constant time. `==`, `!=`, `in` and `not in` stop at the first difference, and
their time tells how much was right; so none of them touches a digest, a MAC, a signature or a claim (`is` does not look
inside). Where such a comparison proves nobody it stands in `PROVES_NOBODY` with its reason; else it is
`hmac.compare_digest`.
"""

import ast
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

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
    ("services/engines/jars.py", "hashlib.file_digest(file, 'sha256').hexdigest() == self.sha256"): "both are public",
    ("services/provisioner/plans.py", "digest in self._by_digest"): "names a plan of ours",
}
"""File and comparison to the reason why its time tells nobody anything."""


def comparisons(text: str) -> Iterator[tuple[int, str]]:
    """Every comparison of a module that its time would betray: line, and the comparison as `ast.unparse` writes it."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Compare):
            left = node.left
            for operator, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(operator, _TELLING) and (_is_proof(left) or _is_proof(right)):
                    yield node.lineno, ast.unparse(ast.Compare(left, [operator], [right]))
                left = right


def breaches(root: Path, excepted: Mapping[tuple[str, str], str]) -> list[str]:
    """What is wrong below `root`, a sentence each; an exception that excepts nothing is wrong as well."""
    found = []
    unused = set(excepted)
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        name = path.relative_to(root).as_posix()
        for line, comparison in comparisons(path.read_text(encoding="utf-8")):
            if (name, comparison) not in excepted:
                found.append(f"{name}:{line}: `{comparison}`: compare a proof with hmac.compare_digest")
            unused.discard((name, comparison))
    return found + [f"{name}: `{comparison}` is excepted and not there" for name, comparison in sorted(unused)]


def main() -> int:
    """Run the program."""
    found = breaches(ROOT, PROVES_NOBODY)
    for sentence in found:
        sys.stderr.write(sentence + "\n")
    return 1 if found else 0


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
