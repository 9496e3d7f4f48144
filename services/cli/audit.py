"""`lifecycle audit`: verify the audit trail by its seals, and export it for a verification elsewhere."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from services.cli import environment
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from schemas.stored import StoredRecord
    from services.adapters.process.settings import Settings

audit = typer.Typer(help="The audit trail: its verification by the seals, and its export.", no_args_is_help=True)
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]


@audit.command()
def verify(
    file: Annotated[
        Path | None, typer.Option(help="Verify this file of `lifecycle audit export`; needs the keyring, and no Kafka.")
    ] = None,
    known: Annotated[
        Path | None, typer.Option(help="Output of an earlier --json: its newest seals must still be in the trail.")
    ] = None,
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Verify every record by its MAC and every sealed range by its seal; ends with 1 for a finding."""
    from schemas.stored import Misread
    from services.adapters.process.clock import now_us
    from services.adapters.secrets import keyring
    from services.cli import audit_text, show
    from services.operations import audit as trail

    settings = environment.settings_of_operator(state_dir) if file is None else _offline_settings(state_dir)
    material = keyring.material(settings.keyring_file)
    seals = {} if known is None else audit_text.known_seals(known)
    if file is not None:
        try:
            # Ages count from the newest record of the file, which may be of last year.
            found = trail.verify(_exported(file), material, settings, seals, now_us(), None)
        except Misread as fault:
            raise CommandError(Exit.UNUSABLE, f"--file: {file}: {fault}") from None
    else:
        with environment.require_kafka(settings):
            records = _whole_trail(settings, "verifying")
            found = trail.verify(records, material, settings, seals, now_us(), now_us())
    if as_json:
        show.as_json(audit_text.report_json(found))
    else:
        audit_text.print_report(found)
    raise typer.Exit(Exit.DEVIATION if found.findings else Exit.OK)


@audit.command()
def export(
    file: Annotated[Path, typer.Argument(help="File to write; replaced only when the export is complete.")],
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """Write the whole trail to a file, a JSON object a line: partition, offset, at, key, headers and value."""
    from schemas.stored import exported
    from services.cli import files, options, show, wording

    where = options.writable(file, "FILE")
    settings = environment.settings_of_operator(state_dir)
    count = 0

    def lines() -> Iterator[str]:
        nonlocal count
        for record in _whole_trail(settings, "exporting"):
            count += 1
            yield exported(record) + "\n"

    with environment.require_kafka(settings):
        files.replace_lines(where, lines())
    if as_json:
        show.as_json({"file": str(where), "records": count})
    else:
        print(f"{where}: {wording.counted(count, 'record')}; verify it with `lifecycle audit verify --file {where}`")


def _offline_settings(state_dir: Path | None) -> "Settings":
    """Returns the settings for work without Kafka: of our environment if it names a keyring, else of a running `up`."""
    from services.adapters.process.environment import read
    from services.adapters.process.settings import Settings

    own = environment.section(Settings)
    # `model_fields_set` separates a variable that is set from a default.
    is_ours = state_dir is None and "keyring_file" in own.model_fields_set
    return own if is_ours else read(environment.operator(state_dir), Settings)


def _whole_trail(settings: "Settings", what: str) -> "Iterator[StoredRecord]":
    """Yields the trail in Kafka, with progress."""
    from services.cli import show
    from services.operations.audit import present_trail

    with show.Progress() as progress:

        def on_progress(done: int, of: int) -> None:
            if of:  # an empty trail has no progress
                progress(what, done, of)

        yield from present_trail(settings, on_progress)


def _exported(file: Path) -> "Iterator[StoredRecord]":
    """Yields the records of an exported file.

    Raises:
        CommandError: the file cannot be read (UNUSABLE).
        Misread: a line is no exported record.
    """
    from schemas.stored import imported
    from schemas.topics import AUDIT

    try:
        opened = file.open("rb")
    except OSError as error:
        raise CommandError(Exit.UNUSABLE, f"--file: {file}: {error.strerror}") from None
    with opened as lines:
        yield from imported(lines, AUDIT.name)
