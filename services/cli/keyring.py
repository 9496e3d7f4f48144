"""`lifecycle keyring`: creates, lists and changes the keyring file.

Rule: a secret is printed only for `--show-secret`; otherwise the output names the secret's location in the file.
"""

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from services.cli import environment, options
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from schemas.keyring import Keyring
    from schemas.values import Json as Object

keyring = typer.Typer(help="The file of secrets.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="Last part of the URL of webhooks or hints.")]
File = Annotated[Path | None, typer.Argument(help="Default: KEYRING_FILE, or that of the running `up`.")]
ShowSecret = Annotated[bool, typer.Option("--show-secret", help="Print the secret itself as well.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]

OVERLAP_MAX: Final = "24h"
"""Longest overlap of two valid secrets. The sender stops its retries after 20 minutes (docs/webhook.md)."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
"""A valid name of an endpoint; it is the last part of the webhook's URL."""
_OPTIONS: Final = {"orgs": "--org", "integrations": "--integration", "accounts": "--account"}
"""Field of an endpoint to the option that sets it."""


class Rotating(StrEnum):
    """The lists of `material`. `identity` is no list and never rotated: a journal depends on this key."""

    AUDIT = "audit"
    SEAL = "seal"
    OUTPUTS = "outputs"


@keyring.callback()
def group() -> None:
    """The file of secrets."""


@keyring.command()
def init(path: Annotated[Path | None, typer.Argument(help="Default: KEYRING_FILE.")] = None) -> None:
    """Make a keyring with one endpoint `default` and fresh key material; never replaces one."""
    from services.adapters.process.settings import Settings
    from services.cli import keyring_contents

    where = path or environment.section(Settings).keyring_file
    keyring_contents.init(where)
    print(f"{where}: made; the webhook of Genesys is signed with {_secret_path('default')}")


@keyring.command("list")
def show_all(path: File = None, as_json: Json = False, state_dir: StateDir = None) -> None:
    """List every endpoint with its bindings and the age and fingerprint of its secret; never a secret."""
    from services.adapters.process.clock import now_us
    from services.adapters.secrets import keyring as keyring_adapter
    from services.cli import keyring_text, show

    now, content = now_us(), keyring_adapter.load(_file(path, state_dir))
    names = sorted([*content.endpoints, *content.hints])
    found = [keyring_text.endpoint_json(name, content, now) for name in names]
    if as_json:
        show.as_json(found)
    else:
        keyring_text.print_endpoints(found, now)


@keyring.command()
def add(
    endpoint: Name,
    path: File = None,
    org: Annotated[
        list[str] | None, typer.Option(help="Organisation that the endpoint may speak for; repeatable. Default any.")
    ] = None,
    integration: Annotated[
        list[str] | None, typer.Option(help="Integration that the endpoint may speak for; repeatable. Default any.")
    ] = None,
    no_restamps: Annotated[
        bool, typer.Option("--no-restamps", help="This sender keeps `eventTimestamp` over its retries.")
    ] = False,
    hints: Annotated[
        bool, typer.Option("--hint", help="Take audits of Amazon EventBridge there, and no webhooks.")
    ] = False,
    account: Annotated[
        list[str] | None, typer.Option(help="With --hint: AWS account of the event bus; repeatable. Default any.")
    ] = None,
    authority: Annotated[
        str,
        typer.Option(
            metavar="api|event", help="With --hint: `event` lets an audit count as an event; Genesys is not asked."
        ),
    ] = "api",
    show_secret: ShowSecret = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Add an endpoint with a fresh secret; a running ingress takes it within a second."""
    from schemas.keyring import Authority
    from services.adapters.process.clock import now_us
    from services.cli import keyring_contents, keyring_file, show

    anybody = keyring_contents.ANYBODY
    if hints and (integration or no_restamps):
        raise CommandError(Exit.UNUSABLE, "--hint: excludes --integration and --no-restamps, which are of webhooks")
    if account and not hints:
        raise CommandError(Exit.UNUSABLE, "--account: needs --hint; a webhook comes from no AWS account")
    if authority not in set(Authority):
        raise CommandError(Exit.UNUSABLE, f"--authority: {authority!r} is neither api nor event")
    if authority != Authority.API and not hints:
        raise CommandError(Exit.UNUSABLE, "--authority: needs --hint; a webhook is always an event")
    if hints:
        section = "hints"
        made = keyring_contents.hint_endpoint(now_us(), org or anybody, account or anybody, Authority(authority))
    else:
        section = "endpoints"
        made = keyring_contents.endpoint(now_us(), org or anybody, integration or anybody, restamps=not no_restamps)
    _check_endpoint(endpoint, section, made)
    where = _file(path, state_dir)

    def edit(content: "Object", before: "Keyring") -> None:
        if keyring_contents.section_of(before, endpoint) is not None:
            raise CommandError(
                Exit.REFUSED, f"{where} has an endpoint {endpoint!r}; `lifecycle keyring rotate` renews it"
            )
        # Files of before hints have no such section.
        content.setdefault(section, {})[endpoint] = made

    after = keyring_file.change(where, edit)
    _print_result(where, endpoint, after, now_us(), show_secret=show_secret, as_json=as_json)
    if no_restamps:
        show.say("restart the ledger before the first delivery: it reads `restamps` when it starts")
    if authority == Authority.EVENT:
        show.say(
            f"whoever holds this secret can install and remove tenants of {' '.join(org or ())}: keep it as a password"
        )


@keyring.command()
def rotate(
    endpoint: Name,
    path: File = None,
    overlap: Annotated[
        str, typer.Option(help="How long the former secret stays valid: 30s, 90m, 24h, at most 24h; 0.")
    ] = "24h",
    yes: Annotated[bool, typer.Option("--yes", help="Even if a former secret, still valid, is cut off.")] = False,
    show_secret: ShowSecret = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Give an endpoint a fresh secret; the former secret stays valid for a while, and no delivery is refused."""
    from schemas.times import rfc3339
    from services.adapters.process.clock import now_us
    from services.cli import keyring_contents, keyring_file

    now, overlap_us = now_us(), options.span_us(overlap, "--overlap", OVERLAP_MAX)
    where = _file(path, state_dir)

    def edit(content: "Object", before: "Keyring") -> None:
        section = keyring_contents.section_of(before, endpoint)
        if section is None:
            raise _unknown_endpoint(where, endpoint, before)
        found = keyring_contents.held(before, endpoint)
        if found.previous is not None and keyring_contents.counts(found.previous, now) and not yes:
            until = rfc3339(found.previous.not_after)
            raise CommandError(Exit.REFUSED, f"{endpoint}: its previous secret counts until {until}; --yes cuts it off")
        content[section][endpoint] = keyring_contents.rotated(content[section][endpoint], now, overlap_us)

    after = keyring_file.change(where, edit)
    _print_result(where, endpoint, after, now, show_secret=show_secret, as_json=as_json)


@keyring.command()
def remove(
    endpoint: Name,
    path: File = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Remove an endpoint with its secrets: deliveries to its URL are refused with 401 within a second."""
    from services.adapters.secrets import keyring as keyring_adapter
    from services.cli import keyring_contents, keyring_file, keyring_text, show

    where = _file(path, state_dir)

    def check(before: "Keyring") -> str:
        section = keyring_contents.section_of(before, endpoint)
        if section is None:
            raise _unknown_endpoint(where, endpoint, before)
        # An ingress without endpoints would refuse every delivery, and does not even start.
        if len(before.endpoints) + len(before.hints) == 1:
            why = "is the last endpoint: without one no delivery is believed and no ingress starts"
            raise CommandError(Exit.REFUSED, f"{where}: {endpoint!r} {why}; `lifecycle keyring add` another first")
        return section

    def edit(content: "Object", before: "Keyring") -> None:
        del content[check(before)][endpoint]

    before = keyring_adapter.load(where)
    restamps = check(before) == "hints" or before.endpoints[endpoint].restamps
    if not yes:
        # Asked before the file is locked: an operator may think for minutes, and a locked file would block every other
        # change. So `edit` repeats the check on the file as it is then.
        keyring_text.confirm(where, endpoint, before)
    after = keyring_file.change(where, edit)
    left = sorted([*after.endpoints, *after.hints])
    if as_json:
        show.as_json({"file": str(where), "removed": endpoint, "endpoints": left})
    else:
        print(f"{where}: {endpoint} is removed; left: {', '.join(left)}")
    if not restamps:
        show.say(f"restart no ledger before it has read what {endpoint} delivered: it reads `restamps` when it starts")


@keyring.command("rotate-material")
def rotate_material(
    name: Annotated[Rotating, typer.Argument(help="A list of keys; its older keys are kept behind the new one.")],
    path: File = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Put a fresh key at the head of a list of `material`, before the older keys; `identity` is never rotated."""
    from services.cli import keyring_contents, keyring_file, show

    where = _file(path, state_dir)

    def edit(content: "Object", before: "Keyring") -> None:
        if before.material is None:
            raise CommandError(Exit.NOT_FOUND, f"{where} has no material")
        content["material"][name] = [keyring_contents.secret(), *content["material"][name]]

    after = keyring_file.change(where, edit)
    count = len(getattr(after.material, name))
    if as_json:
        show.as_json({"file": str(where), "secret_at": f"material.{name}[0]", "keys": count})
    else:
        print(f"{where}: material.{name}[0] is new, {count - 1} older kept")
    if name is Rotating.SEAL:
        show.say("the reconciler takes it at its next look; keep the older keys as long as the audit trail, 400 days")
    else:
        show.say("restart the ledger and every provisioner: they read `material` when they start")


def _file(path: Path | None, state_dir: Path | None) -> Path:
    """Returns the keyring file: as given, or of the `up` in the folder given, or KEYRING_FILE, or of a running `up`.

    Raises:
        CommandError: both a file and a folder were given, or no `up` runs in the folder (UNUSABLE).
    """
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings

    if path is not None and state_dir is not None:
        raise CommandError(Exit.UNUSABLE, "--state-dir: the FILE is named already; say only one")
    if path is not None:
        return path
    if state_dir is not None:
        return Path(environment.operator(state_dir)["KEYRING_FILE"])
    own = environment.section(Settings)
    return (
        own.keyring_file
        # `model_fields_set` separates a variable that is set from a default.
        if "keyring_file" in own.model_fields_set
        else read(environment.operator(), Settings).keyring_file
    )


def _check_endpoint(name: str, section: str, made: "Object") -> None:
    """Refuses an endpoint with an invalid field, by the name of the field's option.

    Raises:
        CommandError: the argument or option, and the broken rule (UNUSABLE).
    """
    from pydantic import ValidationError

    from schemas.keyring import Endpoint, HintEndpoint

    if _NAME.fullmatch(name) is None:
        raise CommandError(
            Exit.UNUSABLE, f"ENDPOINT: {name!r} is not 1 to 64 letters, digits, dots, dashes and underscores"
        )
    try:
        (HintEndpoint if section == "hints" else Endpoint).model_validate(made)
    except ValidationError as error:
        # `include_input=False`: an error must not quote a secret.
        fault = error.errors(include_input=False)[0]
        # Two fields that do not fit each other have no place: here that is an authority without names.
        option = _OPTIONS[str(fault["loc"][0])] if fault["loc"] else "--authority"
        raise CommandError(Exit.UNUSABLE, f"{option}: {fault['ctx']['error']}") from None


def _unknown_endpoint(where: Path, name: str, content: "Keyring") -> CommandError:
    """Returns the error for an endpoint not in the file, with the nearest names."""
    from services.cli.options import nearest

    names = [*content.endpoints, *content.hints]
    return CommandError(Exit.NOT_FOUND, f"{where} has no endpoint {name!r}{nearest(name, names)}")


def _print_result(where: Path, name: str, after: "Keyring", now_us: int, *, show_secret: bool, as_json: bool) -> None:
    """Prints location of the new secret and state of the former one; the secret itself only for `show_secret`."""
    from services.adapters.secrets.keyring import raw
    from services.cli import keyring_contents, keyring_text, show

    shown = keyring_text.endpoint_json(name, after, now_us)
    secret = raw(keyring_contents.held(after, name).current.secret).decode()
    section = keyring_contents.section_of(after, name) or ""
    if as_json:
        location = {"file": str(where), "secret_at": _secret_path(name, section)}
        show.as_json(shown | location | ({"secret": secret} if show_secret else {}))
        return
    former = keyring_text.previous_text(shown["previous"])
    use = "is proved by" if section == "hints" else "is signed with"
    print(f"{where}: {name} {use} {_secret_path(name, section)}; previous secret: {former}")
    if show_secret:
        print(secret)


def _secret_path(name: str, section: str = "endpoints") -> str:
    """Returns the path of an endpoint's secret in the file, in the notation of jq without the first dot."""
    key = f".{name}" if name.isidentifier() else f'["{name}"]'
    return f"{section}{key}.current.secret"
