"""Checks the description of a foreign API in a plan: one sentence for each fault, with key and remedy.

Rule: a description without faults can be carried out without a person, or asks for a person explicitly. So the check
refuses a step without a way to see, after a lost answer, if the resource was made.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from services.core.rest.expressions import expression_fault
from services.core.saga.references import references

VERBS: Final = ("create", "read", "find", "update", "delete", "job")
_UNIQUE: Final = frozenset({"tenant.name", "tenant.schema", "tenant.generation"})
"""References with a different value in each life; only these distinguish the lives of a key."""
_METHODS: Final = ("GET", "POST", "PUT", "PATCH", "DELETE")
_AUTH: Final[Mapping[str, tuple[str, ...]]] = {
    "bearer": ("token",),
    "basic": ("user", "password"),
    "header": ("name", "value"),
    "client_credentials": ("token_url", "client_id", "client_secret"),
}
"""Needed keys of each type of authentication."""
_EXPRESSIONS: Final = ("items", "next", "cursor_from")


def rest_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields one sentence per fault of a step of kind `rest`; the values may have any type."""
    yield from _expression_faults(row)
    yield from _reference_faults(row)
    yield from _recovery_faults(row)
    yield from _verb_faults(row)
    yield from _listing_faults(row)
    yield from _work_faults(row)
    yield from _auth_faults(row)


def _table(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = row.get(name)
    return value if isinstance(value, Mapping) else {}


def _expression_faults(row: Mapping[str, Any]) -> Iterator[str]:
    find = _table(row, "find")
    given = {
        **{name: row.get(name) for name in ("ready", "failed")},
        **{f"outputs.{name}": value for name, value in _table(row, "outputs").items()},
        **{f"job.outputs.{name}": value for name, value in _table(_table(row, "job"), "outputs").items()},
        **{f"find.{name}": find.get(name) for name in _EXPRESSIONS},
        **{f"find.match.{name}": name for name in _table(find, "match")},
    }
    for key, text in given.items():
        if text is None:
            continue
        if not isinstance(text, str):
            yield f"{key}: must be a JMESPath expression in quotes"
        elif any(references(text)):
            yield f"{key}: a JMESPath expression takes no references; name the value in find.match"
        elif fault := expression_fault(text):
            yield f"{key}: {fault}; see jmespath.org"


def _reference_faults(row: Mapping[str, Any]) -> Iterator[str]:
    outputs = _table(row, "outputs")
    for path, _ in references(row):
        root, _, name = path.partition(".")
        if root == "resource" and name not in outputs and name != "url":
            has = ", ".join(outputs) or "none yet"
            yield f"{{{path}}}: no such output of this step; add {name} to outputs (it has {has})"
    yield from _output_faults(row, outputs)
    if isinstance(row.get("url"), str) and any(mark in row["url"].replace("?}", "}") for mark in "?#"):
        yield "url: is a base URL without a query; put parameters into the query of each request"
    for name in _secret_in_urls(row):
        yield f"{name}: a secret does not belong into a URL, which proxies write down; put it into headers or auth"
    for name in ("url", "create.path", "create.query", "find.path", "find.query"):
        table, _, key = name.partition(".")
        value = _table(row, table).get(key) if key else row.get(table)
        if any(path.startswith("resource.") for path, _ in references(value)):
            yield f"{name}: names the resource, which is not known before it is made or found; use {{tenant.name}}"


def _output_faults(row: Mapping[str, Any], outputs: Mapping[str, Any]) -> Iterator[str]:
    if "url" in outputs:
        yield "outputs.url: is ours, the base URL of the resource; name yours otherwise"
    for name in _table(_table(row, "job"), "outputs"):
        if name not in outputs:
            yield f"job.outputs.{name}: no output of this step; add {name} to outputs, for the answers of the resource"
    for name in _strings(row.get("secret_outputs")):
        if name not in outputs:
            yield f"secret_outputs: {name} is no output; add it to outputs"


def _secret_in_urls(row: Mapping[str, Any]) -> Iterator[str]:
    urls = {
        "url": row.get("url"),
        "auth.token_url": _table(row, "auth").get("token_url"),
        **{f"{verb}.{part}": _table(row, verb).get(part) for verb in VERBS for part in ("path", "query")},
    }
    for name, value in urls.items():
        if any(path.startswith("secrets.") for path, _ in references(value)):
            yield name


def _recovery_faults(row: Mapping[str, Any]) -> Iterator[str]:
    """Yields the faults of a step without a way to see, after a lost answer, if the resource was made."""
    idempotent, holds = row.get("idempotent", "no"), row.get("unknown") == "hold"
    if "create" not in row:
        yield "create: is missing; describe the request that makes the resource"
    if "find" not in row and idempotent == "no" and not holds:
        yield (
            "find: is missing, and a repeated create may make a second resource; describe a search by {tenant.name}, "
            'or say idempotent = "key" or "name", or let a person decide by unknown = "hold"'
        )
    if "find" in row and holds:
        yield 'unknown: "hold" and find exclude each other; leave unknown out, since find answers the question'
    if idempotent == "key" and not row.get("idempotency_header"):
        yield 'idempotency_header: is missing; idempotent = "key" needs the name of the header, often "Idempotency-Key"'
    if row.get("undo") == "reverse" and "delete" not in row:
        yield 'delete: is missing; describe the request that removes the resource, or say undo = "nothing"'
    if idempotent == "name" and not _UNIQUE & {path for path, _ in references(_table(row, "create"))}:
        yield 'create: idempotent = "name" needs a name of ours in the request; write {tenant.name}'


def _verb_faults(row: Mapping[str, Any]) -> Iterator[str]:
    for verb in VERBS:
        table = _table(row, verb)
        method, path = table.get("method"), table.get("path", "")
        if isinstance(method, str) and method not in _METHODS:
            yield f"{verb}.method: must be {', '.join(_METHODS)} in capital letters"
        if isinstance(path, str) and path and not path.startswith("/") and not _is_whole_late(path):
            yield f"{verb}.path: must begin with / (it is put behind url), or be one {{resource.NAME}} with a URL"
        if "body" in table and "form" in table:
            yield f"{verb}.form: body and form exclude each other; leave one out"
        if ("body" in table or "form" in table) and table.get("method", "") == "GET":
            yield f"{verb}.body: a GET has no body; use query"
        yield from (f"{verb}.{fault}" for fault in _status_faults(table))
    for verb in ("read", "update", "delete"):
        if verb in row and not _addresses(_table(row, verb)):
            yield f"{verb}: names no resource; put {{resource.id}} or {{tenant.name}} into its path or query"


def _status_faults(table: Mapping[str, Any]) -> Iterator[str]:
    meant = [name for name in ("done", "absent", "retry", "refused") if isinstance(table.get(name), list)]
    for index, name in enumerate(meant):
        for other in meant[index + 1 :]:
            both = [status for status in table[name] if status in table[other]]
            if both:
                yield f"{other}: status {both[0]} is in {name} too; leave it in one of them"


def _is_whole_late(path: str) -> bool:
    found = list(references(path))
    return len(found) == 1 and found[0][0].startswith("resource.") and path.startswith("{") and path.endswith("}")


def _addresses(table: Mapping[str, Any]) -> bool:
    """True if a request names a resource, or has a fixed path (`PUT /config`)."""
    named = [path for part in ("path", "query", "body", "form") for path, _ in references(table.get(part))]
    return bool(named) or bool(table.get("path"))


def _listing_faults(row: Mapping[str, Any]) -> Iterator[str]:
    find = _table(row, "find")
    if not find:
        return
    match = _table(find, "match")
    if not _UNIQUE & {path for path, _ in references(match)}:
        yield (
            "find.match: must compare a field with a name of ours, or a stranger's resource would be taken for ours; "
            'write match = { FIELD = "{tenant.name}" }'
        )
    ways = [way for way in ("next", "page", "cursor") if way in find]
    if len(ways) > 1:
        yield f"find.{ways[1]}: {' and '.join(ways)} exclude each other; leave one"
    if ("cursor" in find) is not ("cursor_from" in find):
        yield "find.cursor: cursor (a parameter) and cursor_from (an expression) go together; write both"


def _work_faults(row: Mapping[str, Any]) -> Iterator[str]:
    if "failed" in row and "ready" not in row:
        yield "failed: needs ready beside it, or work under way could not be told from finished work; add ready"
    if "job" in row:
        if "ready" not in row:
            yield "job: needs ready, the condition for a finished job over its answer; add ready"
        if not any(path.startswith("resource.") for path, _ in references(_table(row, "job"))):
            yield "job.path: names no job; take the id of the job as an output and write {resource.NAME}"
    if "ready" in row and "job" not in row and "read" not in row and "find" not in row:
        yield "ready: nothing shows the resource again; describe read or find"


def _auth_faults(row: Mapping[str, Any]) -> Iterator[str]:
    auth = _table(row, "auth")
    kind = auth.get("type")
    if not isinstance(kind, str) or kind not in _AUTH:
        return
    for name in _AUTH[kind]:
        if name not in auth:
            yield f'auth.{name}: is missing; auth of type "{kind}" needs {", ".join(_AUTH[kind])}'
    known = {"type", *_AUTH[kind], *(("scope", "client_in") if kind == "client_credentials" else ())}
    for name in auth:
        if name not in known:
            yield f'auth.{name}: not used by auth of type "{kind}"; leave it out'
    if row.get("url_from", "event") != "operator" and any(path.startswith("secrets.") for path, _ in references(row)):
        yield (
            "url_from: {secrets.…} are the operator's and must not be sent to a URL that an event gives; write "
            'url_from = "operator", or take the credentials from the configuration'
        )


def _strings(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
