"""`lifecycle send`: signs and sends a webhook as Genesys would."""

import json
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from services.cli import environment, options
from services.cli.exits import CommandError, Exit
from services.core.url_redaction import redacted_url

_GUIDE = {
    "crmEndpoint": "https://acme.salesforce.com",
    "syncInterval": "PT5M",
    "featureFlags": ["voice_routing", "omnichannel_queue"],
}
"""The configuration of the guide's example."""

_OPTIONS: Final = {"orgId": "--org", "integrationId": "--integration", "tenantId": "--tenant"}
"""Field of the body to the option that sets it."""


def send(
    event: Annotated[str, typer.Argument(help="installed, uninstalled, enabled, disabled or configuration_updated.")],
    org: Annotated[str, typer.Option(help="orgId.")] = "98765432-1234-5678-9abc-def012345678",
    integration: Annotated[str, typer.Option(help="integrationId.")] = "a1b2c3d4-e5f6-7890-abcd-ef1234567890",
    tenant: Annotated[str, typer.Option(help="tenantId.")] = "tenant_acme_corp",
    configuration: Annotated[str, typer.Option(help="A JSON object.")] = json.dumps(_GUIDE),
    event_id: Annotated[str | None, typer.Option(help="metadata.eventId.")] = None,
    retry: Annotated[int, typer.Option(min=0, help="Number of earlier attempts.")] = 0,
    url: Annotated[str | None, typer.Option(help="The webhook URL. Default: the ingress of the running `up`.")] = None,
    endpoint: Annotated[str, typer.Option(help="Endpoint of the keyring whose secret signs.")] = "default",
    endpoints_file: Annotated[Path | None, typer.Option(help="The file that `lifecycle up` wrote.")] = None,
    unknown: Annotated[bool, typer.Option("--unknown", help="Do not tell the simulator's Genesys.")] = False,
    print_curl: Annotated[
        bool, typer.Option("--print-curl", help="Send nothing: print the curl line that would, good for 90 seconds.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as JSON.")] = False,
    state_dir: Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")] = None,
) -> None:
    """Sign and send one webhook, and make the simulator's Genesys agree with the event."""
    import httpx2

    from schemas.values import EventType
    from services.adapters.http_client import LOOPBACK
    from services.adapters.process.clock import now_us
    from services.cli import sender, show

    options.one_of(event, list(EventType), "EVENT", "event")
    if endpoints_file is not None and state_dir is not None:
        raise CommandError(
            Exit.UNUSABLE, "--state-dir: --endpoints-file says already where everything is; say only one"
        )
    _check_url(url)
    known = _endpoints(endpoints_file, state_dir)
    target = url or f"{_required(known, 'ingress', '--url')}/v1/genesys/lifecycle/{endpoint}"
    installed = sender.InstalledIntegration(org.lower(), integration.lower(), tenant, _object(configuration))
    now = now_us()
    raw = sender.body(EventType(event), installed, now, event_id=event_id, retry=retry)
    _check_body(raw)
    secret = _secret(Path(_required(known, "keyring", "--endpoints-file or KEYRING_FILE")), endpoint)
    headers = sender.headers(secret, raw, now)
    if print_curl:
        line = sender.curl(target, raw, headers)
        if as_json:
            show.as_json({"key": installed.key, "curl": line})
        else:
            print(line)
        return
    # Names the server of the present request, for the error below.
    asked = f"the simulator at {redacted_url(str(known.get('simulator')))}"
    try:
        # LOOPBACK without a transport: an HTTP proxy of the environment must not get requests to this machine.
        with httpx2.Client(timeout=sender.TIMEOUT_S, mounts=dict.fromkeys(LOOPBACK)) as client:
            if known.get("simulator") and not unknown:
                sender.tell_genesys(client, known["simulator"], EventType(event), installed)
            asked = f"the ingress at {redacted_url(target)}"
            answer = sender.read(client.post(target, content=raw, headers=headers))
    except httpx2.InvalidURL as error:
        raise CommandError(Exit.UNUSABLE, f"--url: {redacted_url(target)} is no URL: {error}") from None
    except httpx2.HTTPError as error:
        why = f"no answer within {sender.TIMEOUT_S:g} s" if isinstance(error, httpx2.TimeoutException) else str(error)
        why_not = why or type(error).__name__
        raise CommandError(Exit.UNREACHABLE, f"{asked}: {why_not} (`lifecycle doctor` says more)") from None
    if as_json:
        show.as_json({"key": installed.key, "status": answer.status, "answer": answer.body})
    else:
        print(f"{answer.status} {json.dumps(answer.body)}  {installed.key}")
    raise typer.Exit(Exit.OK if answer.accepted else Exit.REFUSED)


def _check_body(raw: bytes) -> None:
    """Refuses an unacceptable body if an option caused the fault; further refusals are left to the ingress.

    Raises:
        CommandError: the option, and the broken rule (UNUSABLE).
    """
    from schemas import webhook

    try:
        webhook.parse(raw)
    except webhook.Malformed as fault:
        if fault.field in _OPTIONS:
            raise CommandError(Exit.UNUSABLE, f"{_OPTIONS[fault.field]}: {fault.rule}") from None


def _check_url(url: str | None) -> None:
    """Refuses a --url without scheme or host.

    Raises:
        CommandError: the URL is no HTTP URL (UNUSABLE).
    """
    try:
        parts = urlsplit(url or "http://localhost")
        well = parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0
    except ValueError:
        well = False
    if not well:
        raise CommandError(Exit.UNUSABLE, "--url: must be an http or https URL with a host")


def _endpoints(endpoints_file: Path | None, state_dir: Path | None) -> dict[str, Any]:
    """Returns the locations of ingress, simulator and keyring by the file, the running `up`, or the environment."""
    path = endpoints_file or environment.state_dir(state_dir) / environment.ENDPOINTS
    if state_dir is not None:
        options.folder(state_dir)
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        if endpoints_file is not None:
            raise CommandError(Exit.UNUSABLE, f"--endpoints-file: {path}: no such file") from None
        own = environment.operator(state_dir)
        return {"keyring": own.get("KEYRING_FILE"), "simulator": own.get("SIMULATOR_URL")}
    except ValueError:
        raise CommandError(Exit.UNUSABLE, f"{path}: not JSON") from None
    environment.refuse_stale(found, path)
    return found


def _required(known: dict[str, Any], name: str, how: str) -> str:
    """Returns the address with this name.

    Raises:
        CommandError: the address is unknown (UNUSABLE).
    """
    if not known.get(name):
        raise CommandError(Exit.UNUSABLE, f"no {name} is known: no `lifecycle up` runs here; name it with {how}")
    return str(known[name])


def _object(text: str) -> dict[str, Any]:
    """Parses the JSON object of --configuration."""
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise CommandError(Exit.UNUSABLE, "--configuration: must be a JSON object")
    return value


def _secret(path: Path, endpoint: str) -> bytes:
    """Returns the current secret of an endpoint.

    Raises:
        CommandError: the keyring does not have the endpoint (UNUSABLE).
    """
    from services.adapters.secrets import keyring

    held = keyring.load(path).endpoints
    found = held.get(endpoint)
    if found is None:
        why = f"{path} has no endpoint {endpoint!r}{options.nearest(endpoint, held)}; it has {', '.join(sorted(held))}"
        raise CommandError(Exit.UNUSABLE, f"--endpoint: {why}")
    return keyring.raw(found.current.secret)
