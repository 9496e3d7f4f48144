"""Checks how the docstrings of `services` and `schemas` read: `python -m tests.prose_rules --figures`.

A docstring is read at night by an engineer whose first language is not English. Two habits make such a reader stop:
words that name no subject ("it", "who", "there"), and a first word that asks instead of stating ("Whether", "What").
The rule counts both. A third check keeps one word for one thing: a public class name is defined in one module.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
FOLDERS: Final = ("services", "schemas")
TESTS: Final = "tests"

INDEFINITE: Final = frozenset({
    "it", "its", "one", "ones", "who", "whom", "whose", "whoever", "whatever", "what", "which", "that", "there",
    "so", "they", "them", "their", "nobody", "somebody", "anybody", "everybody", "other", "others", "another",
    "same", "such",
})  # fmt: skip
QUESTIONS: Final = frozenset({
    "what", "whether", "who", "where", "how", "when", "whose", "which", "why", "whom", "whatever", "whoever",
})  # fmt: skip

MOST_PER_THOUSAND: Final = 45
MOST_PER_THOUSAND_OF_A_FILE: Final = 70
FEWEST_WORDS: Final = 60
"""A file with fewer docstring words is not judged by itself: one word would be too much."""

MOST_QUESTIONS_PERCENT: Final = 3

DEFINED_TWICE: Final[Mapping[str, str]] = {}
"""Public class names that two modules define, each with the reason."""

_WORD: Final = re.compile(r"[A-Za-z']+")


@dataclass(slots=True)
class Prose:
    """Figures of some docstrings.

    Attributes:
        words: All words.
        indefinite: Words of `INDEFINITE`.
        docstrings: All docstrings.
        questions: Docstrings whose first word is in `QUESTIONS`.
        comments: Lines that are a comment.
        lines: All lines.
    """

    words: int = 0
    indefinite: int = 0
    docstrings: int = 0
    questions: int = 0
    comments: int = 0
    lines: int = 0

    def __add__(self, other: "Prose") -> "Prose":
        """Returns the sum of two figures."""
        return Prose(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))

    def per_thousand(self) -> float:
        """Returns indefinite words per 1,000 words."""
        return 1000 * self.indefinite / max(1, self.words)

    def percent_questions(self) -> float:
        """Returns the share of docstrings that begin with a question word."""
        return 100 * self.questions / max(1, self.docstrings)


@dataclass(slots=True)
class ProseReading:
    """Everything that was counted.

    Attributes:
        files: Figures by file.
        classes: Public class name to the files that define the class: of the product, and of the tests apart.
    """

    files: dict[str, Prose] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    def whole(self) -> Prose:
        """Returns the figures of all files together."""
        return sum(self.files.values(), Prose())


def prose_of(text: str, tree: ast.Module | None = None) -> Prose:
    """Counts the docstrings and comments of a module.

    Args:
        text: Source of the module.
        tree: The parsed source, where the caller has it.
    """
    found = Prose(lines=text.count("\n"), comments=sum(line.lstrip().startswith("#") for line in text.splitlines()))
    for docstring in _docstrings(tree or ast.parse(text)):
        words = _WORD.findall(docstring.lower())
        found.words += len(words)
        found.indefinite += sum(word in INDEFINITE for word in words)
        found.docstrings += 1
        found.questions += bool(words) and words[0] in QUESTIONS
    return found


def read(root: Path) -> ProseReading:
    """Counts every module below the folders of the product, and collects the class names of the tests too."""
    reading = ProseReading()
    for folder in (*FOLDERS, TESTS):
        for path in sorted((root / folder).rglob("*.py")):
            name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
            tree, prefix = ast.parse(text), f"{TESTS}." if folder == TESTS else ""
            if folder != TESTS:
                reading.files[name] = prose_of(text, tree)
            for node in tree.body:
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    reading.classes[prefix + node.name].append(name)
    return reading


def breaches(reading: ProseReading, excepted: Mapping[str, str]) -> list[str]:
    """Returns a sentence for each breach; an exception without a breach is a breach too."""
    found = []
    whole = reading.whole()
    if whole.per_thousand() > MOST_PER_THOUSAND:
        found.append(
            f"{whole.per_thousand():.0f} indefinite words per 1,000 docstring words; {MOST_PER_THOUSAND} at most"
        )
    if whole.percent_questions() > MOST_QUESTIONS_PERCENT:
        found.append(
            f"{whole.percent_questions():.1f} % of docstrings begin with a question word; "
            f"{MOST_QUESTIONS_PERCENT} % at most: name the subject and say what it does"
        )
    for name, prose in reading.files.items():
        if prose.words >= FEWEST_WORDS and prose.per_thousand() > MOST_PER_THOUSAND_OF_A_FILE:
            most = MOST_PER_THOUSAND_OF_A_FILE
            found.append(
                f"{name}: {prose.per_thousand():.0f} indefinite words per 1,000 docstring words; {most} at most"
            )
    twice = {name for name, files in reading.classes.items() if len(files) > 1}
    found += [
        f"class {name} is defined in {', '.join(reading.classes[name])}: one word for one thing"
        for name in sorted(twice - excepted.keys())
    ]
    found += [f"class {name} is excepted and not defined twice" for name in sorted(excepted.keys() - twice)]
    return found


def main(arguments: Sequence[str]) -> int:
    """Prints the figures with `--figures`, and every breach; returns 1 if there is a breach."""
    reading = read(ROOT)
    if "--figures" in arguments:
        whole = reading.whole()
        print(f"indefinite words per 1,000 docstring words: {whole.per_thousand():.0f}")
        print(f"docstrings that begin with a question word: {whole.percent_questions():.1f} %")
        print(f"comment lines per 1,000 lines: {1000 * whole.comments / max(1, whole.lines):.0f}")
        for name, prose in sorted(reading.files.items(), key=lambda pair: -pair[1].per_thousand())[:15]:
            print(f"{prose.per_thousand():5.0f}  {name}")
    found = breaches(reading, DEFINED_TWICE)
    for sentence in found:
        sys.stderr.write(sentence + "\n")
    return 1 if found else 0


def _too_many(name: str, prose: Prose, most: int) -> str:
    return f"{name}: {prose.per_thousand():.0f} indefinite words per 1,000 docstring words; {most} at most"


def _docstrings(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Module):
            text = ast.get_docstring(node)
            if text:
                yield text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
