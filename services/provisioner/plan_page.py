"""Writes docs/plan.md, the reference page of plan keys and kinds, from the tables by which plans are checked.

`make plan-page` writes the page. `make check` compares only, and fails if the page differs. The texts below are the
texts of the page: after a change run `make plan-page`.
"""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from services.adapters.process.generated import write_or_compare
from services.core.rest.traits import RestTraits
from services.core.saga.plan import TENANT_NAMES
from services.core.saga.plan_forms import Form, PlanKey
from services.core.saga.plan_keys import STEP
from services.provisioner.kinds import TRAITS
from services.provisioner.plans import PLAN_SETTINGS

PAGE: Final = Path(__file__).parents[2] / "docs" / "plan.md"

_HEAD: Final = """# The plan: keys and kinds

<!-- Written by `make plan-page` from services/core/saga/plan_keys.py; `make check` refuses a page that differs. -->

`PLAN_FILE` names a TOML file with an ordered list of `[[step]]`. Steps are done in this order and undone from the end.
[services/provisioner/plan.toml](../services/provisioner/plan.toml) is the plan that is used where none is named.

The provisioner refuses to start with a plan that has an unknown key, a value of another type, a reference that leads
nowhere or a URL that holds a secret, and names the file, the step, the key and the nearest right one, each fault in a
sentence. `lifecycle plan check FILE` says the same beforehand, with the settings of its own environment. A plan may be
changed at any time: a life is finished with the plan it began with.

`lifecycle plan show FILE --configuration TENANT.json` prints each call that the plan would make for a tenant with that
configuration, without any engine; `--for KEY` does so for a living tenant. It calls nothing, names what is missing, and
hides every secret: all of a configuration but the names in `PUBLISHED_NAMES`.
"""

_TEXT: Final = """Text may name what is known when the step is done. A value that is one reference and nothing else
takes what it names as it is; in longer text it is written out. `{name?}` may be missing: alone it drops the key, in
text it is empty. What replaces a reference is never read for references itself.
"""


def page() -> str:
    """Returns the text of the page."""
    return "\n".join((_HEAD, *_keys("Keys of every step", "", STEP), *_kinds(), *_references()))


def _kinds() -> Iterator[str]:
    for name, kind in TRAITS.items():
        yield from _keys(f"Kind `{name}`", kind.meaning, kind.keys)
        outputs = [f"`{output}`" + (" (sealed)" if output in kind.secret_outputs else "") for output in kind.outputs]
        own = "those that the step declares, and " if isinstance(kind, RestTraits) else ""
        yield f"Outputs: {own}{', '.join(outputs) or 'those that the plan names'}.\n"


def _keys(title: str, meaning: str, keys: Sequence[PlanKey]) -> Iterator[str]:
    yield f"## {title}\n"
    if meaning:
        yield meaning + "\n"
    if not keys:
        yield "It has no keys of its own.\n"
        return
    yield from _table(("key", "value", "default", "meaning"), [row for key in keys for row in _rows(key, "")])


def _rows(key: PlanKey, above: str) -> Iterator[tuple[str, ...]]:
    name = above + key.name
    default = "required" if key.required else "none" if key.default is None else f"`{json.dumps(key.default)}`"
    without = f" It may not have {', '.join(f'`{name}`' for name in sorted(key.reserved))}." if key.reserved else ""
    yield f"`{name}`", _value(key), default, key.meaning + without
    for inner in key.keys:
        yield from _rows(inner, f"{name}.")


def _value(key: PlanKey) -> str:
    if key.form is Form.CHOICE:
        return " or ".join(f'`"{choice}"`' for choice in key.choices)
    limit = {
        Form.NAME: "lower-case letters, digits and `_`, a letter first, 40 at most",
        Form.BASE_URL: "URL without `?` and `#`",
        Form.PATH: "text that begins with `/`, without `?` and `#`",
        Form.NUMBER: f"number above 0, at most {key.most}",
        Form.DURATION: f"ISO 8601 duration of weeks to seconds, at most P{key.most // 86_400}D",
    }
    return limit.get(key.form, str(key.form))


def _references() -> Iterator[str]:
    yield "## References\n"
    yield _TEXT
    tenant = ", ".join(f"`{name}`" for name in sorted(TENANT_NAMES))
    settings = ", ".join(f"`{name}`" for name in PLAN_SETTINGS)
    rows: list[tuple[str, ...]] = [
        ("`{tenant.NAME}`", f"of the key and its life: {tenant}"),
        ("`{configuration.NAME}`, `{configuration}`", "what the customer configured, or all of it"),
        ("`{steps.STEP.OUTPUT}`", "an output of an earlier step, by the step's name"),
        ("`{settings.NAME}`", f"a setting of the installation, upper-case in the environment: {settings}"),
        ("`{resource.OUTPUT}`", "kind `rest`: an output of the step itself, once its resource is known"),
        (
            "`{secrets.NAME}`",
            "kind `rest`: a file in SECRETS_DIR, or a value in PLAN_SECRETS; read in the moment of a request",
        ),
    ]
    yield from _table(("reference", "stands for"), rows)


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    yield "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ("---",) * len(columns), *rows)) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Runs the program; returns 1 if a check finds a difference, else 0."""
    return write_or_compare({PAGE: page().rstrip() + "\n"}, arguments, "plan-page")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
