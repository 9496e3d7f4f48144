"""Evaluates JMESPath expressions of the plan over answers of a system.

Rule: an expression is checked when the plan is read, and never raises afterwards: an expression that cannot be
evaluated over an answer (`length` of a number, say) has no value. The document of an expression is
`{"status": 200, "headers": {…}, "body": …}`; header names are in lower case.

Beside the functions of jmespath.org an expression may use `last_segment(url)`: the last segment of a path, without
query and percent-encoding. Many systems answer a create with `Location` alone.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import jmespath
from jmespath import exceptions, functions

from services.core.saga.plan_forms import nearest

_COMPILED_MOST: Final = 1_000
"""Compiled expressions kept; a plan has tens."""


class _Functions(functions.Functions):  # type: ignore[misc] # the library has no types
    @functions.signature({"types": ["string", "null"]})  # type: ignore[untyped-decorator]
    def _func_last_segment(self, url: str | None) -> str | None:
        try:
            return None if url is None else unquote(urlsplit(url).path.rstrip("/").rpartition("/")[2])
        except ValueError:
            return None


_OPTIONS: Final = jmespath.Options(custom_functions=_Functions())


def expression_fault(text: str) -> str | None:
    """Returns the fault of an expression in a few words; None for a good expression."""
    try:
        tree = _compiled(text).parsed
    except exceptions.JMESPathError as error:
        return f"no JMESPath expression: {_in_a_line(str(error))}"
    for node in _nodes(tree):
        if node["type"] == "function_expression" and node["value"] not in _Functions.FUNCTION_TABLE:
            return f"no JMESPath function {node['value']}{nearest(node['value'], _Functions.FUNCTION_TABLE)}"
    return None


def found(text: str, document: Any) -> Any:
    """Returns the value of an expression; None without a value, or if the expression cannot be evaluated."""
    try:
        return _compiled(text).search(document, _OPTIONS)
    except (exceptions.JMESPathError, TypeError, ValueError, RecursionError):
        return None


def holds(text: str, document: Any) -> bool:
    """True if the value of an expression is true by the rules of JMESPath: not empty, not null, not false."""
    value = found(text, document)
    return value is not None and value is not False and value not in ("", [], {})


@lru_cache(_COMPILED_MOST)
def _compiled(text: str) -> Any:
    return jmespath.compile(text)


def _nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for child in tree["children"]:
        if isinstance(child, Mapping):
            yield from _nodes(child)


def _in_a_line(text: str) -> str:
    """Returns the first line of the library's text, without its prefix and its drawing."""
    line = text.splitlines()[0] if text else ""
    return line.partition("expression: ")[2] or line
