"""Documents, help texts, messages and comments, piece by piece, and the names that they may use.

Rule: a text that is a picture of something that must be absent (an example of a breach) says so in `PICTURES`.
"""

import ast
import os
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import typer

from services.cli.main import app

TOP: Final = Path(__file__).parents[2]
PICTURES: Final = frozenset(
    {"tests/unit/test_house_rules.py", "tests/contract/test_documents.py", "tests/support/document_texts.py"}
)

SPAN: Final = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
_FENCE: Final = re.compile(r"^```[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Text(NamedTuple):
    """A piece of text that people read: its file, its line, and itself."""

    file: str
    line: int
    text: str

    def says(self, what: str = "") -> str:
        return f"{self.file}:{self.line}: {what or self.text}"


@cache
def files() -> tuple[str, ...]:
    """Every file of the repository, as its folders show; what is built and cached is none of it."""
    found = list[str]()
    for top, folders, names in os.walk(TOP):
        folders[:] = sorted(name for name in folders if name == ".ci" or not name.startswith((".", "_")))
        if Path(top) == TOP:
            folders[:] = [name for name in folders if name not in {"build", "dist"}]
        found += [(Path(top) / name).relative_to(TOP).as_posix() for name in sorted(names)]
    return tuple(found)


@cache
def read(name: str) -> str:
    return (TOP / name).read_text(encoding="utf-8")


def documents() -> list[str]:
    return [name for name in files() if name.endswith(".md")]


def plain() -> list[str]:
    """Files that people read and that are neither documents nor Python."""
    return [
        name
        for name in files()
        if name.startswith(("deploy/", ".ci/", "docker-compose", "Makefile")) and not name.endswith((".py", ".md"))
    ]


def python(*folders: str) -> list[str]:
    return [name for name in files() if name.endswith(".py") and name.startswith(folders) and name not in PICTURES]


@cache
def lines(name: str) -> tuple[Text, ...]:
    return tuple(Text(name, number, line) for number, line in enumerate(read(name).splitlines(), 1))


def matches(name: str, what: re.Pattern[str]) -> Iterator[Text]:
    """Every match of an expression in a file."""
    return (text._replace(text=found[0]) for text in lines(name) for found in what.finditer(text.text))


@cache
def spans(name: str) -> tuple[Text, ...]:
    """The code of a document: spans, and the lines of fenced blocks."""
    text, found = read(name), list[Text]()
    for fence in _FENCE.finditer(text):
        first = text.count("\n", 0, fence.start(1)) + 1
        found += [Text(name, first + n, line) for n, line in enumerate(fence[1].splitlines())]
    without = _FENCE.sub(lambda fence: "\n" * fence[0].count("\n"), text)
    for number, line in enumerate(without.splitlines(), 1):
        found += [Text(name, number, span) for span in SPAN.findall(line)]
    return tuple(found)


@cache
def strings(name: str) -> tuple[Text, ...]:
    """The texts of a Python file: string constants and comments."""
    found = [
        Text(name, node.lineno, node.value)
        for node in ast.walk(_tree(name))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    with (TOP / name).open("rb") as file:
        comments = [token for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT]
    return (*found, *(Text(name, token.start[0], token.string) for token in comments))


def quoted(name: str) -> Iterator[Text]:
    """Texts between backticks in the texts of a Python file."""
    return (text._replace(text=span) for text in strings(name) for span in SPAN.findall(text.text))


def identifiers(name: str) -> Iterator[str]:
    """Names that a Python file uses, and strings that are nothing but a name."""
    for node in ast.walk(_tree(name)):
        match node:
            case ast.Name(id=word) | ast.Attribute(attr=word):
                yield word
            case ast.Constant(value=str(word)) if word.isidentifier():
                yield word


@cache
def _tree(name: str) -> ast.Module:
    return ast.parse(read(name))


@cache
def program() -> Any:
    """The program `lifecycle`, as its command line is parsed."""
    return typer.main.get_command(app)


def commands() -> dict[str, Any]:
    """Every command by the words that call it."""
    return {
        " ".join(filter(None, (name, inner))): leaf
        for name, node in program().commands.items()
        for inner, leaf in (getattr(node, "commands", None) or {"": node}).items()
    }


def options_of(node: Any) -> set[str]:
    """The long options of one command."""
    return {"--help", *(word for param in node.params for word in param.opts if word.startswith("--"))}


def wrong_in(call: str) -> str | None:
    """The part of a call that does not exist, as it is written behind the word `lifecycle`."""
    node, called = program(), "lifecycle"
    for rough in call.split():
        word = rough.rstrip(".,:'\"”)")
        if word.startswith("--"):
            if word.split("=")[0] not in options_of(node):
                return f"`{called}` has no {word}"
        elif inner := getattr(node, "commands", None):
            if word not in inner:
                return f"`{called}` has no {word!r}" if re.fullmatch(r"[a-z-]+", word) else None
            node, called = inner[word], f"{called} {word}"
    return None
