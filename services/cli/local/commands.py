"""`lifecycle status`, `restart` and `down`: the processes of a `lifecycle up`, started by any user or terminal.

Rule: `up` stays the only one that starts processes. A restart ends one process and waits for the supervisor's next; so
ports, the endpoints file and everything else that `up` promises hold meanwhile.
"""

import json
import os
import signal
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from services.cli import environment, options
from services.cli.exits import CommandError, Exit

if TYPE_CHECKING:
    from services.cli.local.process_file import RunningUp
    from services.cli.show import Doing

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
Wait = Annotated[str, typer.Option("--timeout", help="How long to wait: 30s, 2m, at most 1h.")]

_LOOK_S: Final = 0.1
_PATIENCE_S: Final = 15.0
"""A process that was asked to end and runs on after this is killed: the supervisor starts the next in any case."""

_STOPS: Final = {"postgres": signal.SIGINT}
"""What asks a process to end; SIGTERM would have PostgreSQL wait for its clients."""

_ENGINES: Final = frozenset({"kafka", "postgres"})
_STYLES: Final = {"ready": "green", "not ready": "yellow", "down": "red"}


def status(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Show each process of `lifecycle up`: since when it runs and if it is ready; ends with 1 where one is not."""
    from services.cli import show

    folder, running = _found(state_dir)
    found = _states(folder, running)
    if as_json:
        show.as_json({"state_dir": str(folder), "pid": running.up.pid, "ready": running.ready, "processes": found})
    else:
        _tell_status(folder, running, found)
    raise typer.Exit(Exit.OK if all(one["state"] == "ready" for one in found) and running.ready else Exit.DEVIATION)


def restart(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="As `lifecycle status` names it.")],
    timeout: Wait = "2m",
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """End one process and wait until the supervisor's next one is ready; its port and the endpoints file stay."""
    from services.cli import show

    patience_s = options.span_us(timeout, "--timeout", "1h") / 1_000_000
    folder, running = _found(state_dir)
    _judge_service(service, running)
    began, before = time.monotonic(), running.seen(service)
    with show.Doing() as doing:
        after = _restarted(folder, service, running, began + patience_s, doing)
    took_s = time.monotonic() - began
    if as_json:
        former = None if before is None else before.pid
        show.as_json({"service": service, "before": former, "pid": after, "seconds": round(took_s, 1)})
    else:
        former_text = "it did not run" if before is None else f"{before.pid} ended"
        print(f"{service}: {former_text}, {after} is ready, {took_s:.1f} s")


def down(timeout: Wait = "2m", as_json: Json = False, state_dir: StateDir = None) -> None:
    """Stop everything that `lifecycle up` runs, and wait until it has; the data stays. Nothing to stop is no fault."""
    from services.cli import show
    from services.cli.local import process_file as hands

    patience_s = options.span_us(timeout, "--timeout", "1h") / 1_000_000
    folder = options.folder(environment.state_dir(state_dir))
    running, began = hands.find(folder), time.monotonic()
    if running is None:
        remaining = {f"process {pid}": pid for pid in hands.left(folder)}
    else:
        remaining = {name: one.pid for name, one in running.processes.items() if one.pid} | {"up": running.up.pid}
        _signal(running.up.pid, signal.SIGTERM, "up")
    with show.Doing() as doing:
        late = _gone(remaining, began + patience_s, doing)
    if late:
        text = ", ".join(f"{name} (pid {remaining[name]})" for name in late)
        raise CommandError(
            Exit.DEVIATION, f"still running after {patience_s:g} s: {text}; wait on, or end them with kill"
        )
    took_s = round(time.monotonic() - began, 1)
    if as_json:
        show.as_json({"state_dir": str(folder), "stopped": sorted(remaining), "seconds": took_s})
    elif running is None and not remaining:
        print(f"nothing runs in {folder}")
    else:
        print(f"stopped: {', '.join(remaining)} ({took_s} s); the data stays in {folder}")


def _judge_service(service: str, running: "RunningUp") -> None:
    """Refuse what this `up` does not run.

    Raises:
        Failure: UNREACHABLE for what is not started yet, UNUSABLE for anything else.
    """
    from services.cli.local.wiring import SERVICES

    if not running.ready and service in {*_ENGINES, *SERVICES} and service not in running.processes:
        raise CommandError(Exit.UNREACHABLE, f"`up` is still starting and has no {service} yet; see `lifecycle status`")
    options.one_of(service, running.processes, "SERVICE", "process of this `up`")


def _found(state_dir: Path | None) -> "tuple[Path, RunningUp]":
    """Returns the state folder and the `up` that runs on it.

    Raises:
        Failure: no such folder (UNUSABLE), or nothing runs there (UNREACHABLE).
    """
    from services.cli.local import process_file

    folder = options.folder(environment.state_dir(state_dir))
    found = process_file.find(folder)
    if found is None:
        raise CommandError(Exit.UNREACHABLE, f"nothing runs in {folder}; start it with `lifecycle up`")
    return folder, found


def _states(folder: Path, running: "RunningUp") -> list[dict[str, Any]]:
    """Returns state, reason, id, age in seconds, deaths and log of each process."""
    faults = _faults(folder, running)
    found = []
    for name, one in running.processes.items():
        seen = running.seen(name)
        state = "down" if seen is None else "not ready" if name in faults else "ready"
        found.append({
            "service": name,
            "state": state,
            "why": "it ended; the supervisor starts it again" if seen is None else faults.get(name),
            "pid": seen and seen.pid,
            "up_s": seen and round(seen.age_s),
            "deaths": one.deaths,
            "log": one.log,
        })  # fmt: skip
    return found


def _faults(folder: Path, running: "RunningUp", names: Collection[str] | None = None) -> Mapping[str, str]:
    """Returns the reason for each process that is not ready; engines are asked once everything was ready."""
    from services.cli.local import readiness
    from services.cli.local.wiring import LocalPorts

    asked = [name for name in running.processes if names is None or name in names]
    faults: dict[str, str] = {}
    if services := [name for name in asked if name not in _ENGINES]:
        ports = LocalPorts(**json.loads((folder / "stack.json").read_text(encoding="utf-8"))["ports"])
        faults |= readiness.unready(ports, services)
    if running.ready and (engines := [name for name in asked if name in _ENGINES]):
        faults |= readiness.silent(environment.left_by_up(folder), engines)
    return faults


def _tell_status(folder: Path, running: "RunningUp", found: list[dict[str, Any]]) -> None:
    from services.cli import show, wording

    since = wording.span(round(running.up.age_s * 1_000_000))
    print(f"{'up' if running.ready else 'starting'} since {since} (pid {running.up.pid}), {folder}")
    if not found:
        return
    show.listing(
        ("service", "state", "pid", "since", "ended"),
        [
            show.ListingRow(
                cells=(
                    one["service"],
                    one["state"],
                    str(one["pid"] or "-"),
                    "-" if one["up_s"] is None else wording.span(one["up_s"] * 1_000_000),
                    str(one["deaths"] or "-"),
                ),
                styles={1: _STYLES[one["state"]]},
                note=one["why"] or "",
            )
            for one in found
        ],
    )


def _restarted(folder: Path, name: str, running: "RunningUp", deadline: float, doing: "Doing") -> int:
    """Ends a process and returns the id of the next one once that is ready.

    Raises:
        Failure: none was ready in time, or `up` ended meanwhile.
    """
    from services.engines.child_process import last_lines

    before = running.seen(name)
    if before is not None:
        _signal(before.pid, _STOPS.get(name, signal.SIGTERM), name)
    kill_at = time.monotonic() + _PATIENCE_S
    fault = "the supervisor has not started it again"
    while time.monotonic() < deadline:
        doing(f"{name}: {fault}")
        time.sleep(_LOOK_S)
        folder, running = _found(folder)
        now = running.seen(name)
        if now is None:
            continue
        if before is not None and now.began == before.began:
            fault = f"process {now.pid} is ending"
            if time.monotonic() > kill_at:
                _signal(now.pid, signal.SIGKILL, name)
            continue
        fault = _faults(folder, running, {name}).get(name, "")
        if not fault:
            return now.pid
    log = Path(running.processes[name].log)
    raise CommandError(Exit.UNREACHABLE, f"{name} is not ready: {fault}; its log {log} ends:\n{last_lines(log, 5)}")


def _gone(remaining: Mapping[str, int], deadline: float, doing: "Doing") -> list[str]:
    """Waits until none of these processes runs; returns the names of those that still do at the deadline."""
    from services.cli.local.process_file import look

    began = {name: seen.began for name, pid in remaining.items() if (seen := look(pid)) is not None}

    def runs(name: str) -> bool:
        seen = look(remaining[name])
        return seen is not None and seen.began == began[name]

    while left := [name for name in began if runs(name)]:
        doing(f"waiting for {', '.join(left)}")
        if time.monotonic() > deadline:
            return left
        time.sleep(_LOOK_S)
    return []


def _signal(pid: int, number: signal.Signals, name: str) -> None:
    """Send a signal to a process that may end at any moment.

    Raises:
        Failure: it is somebody else's.
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        why = f"{name} (pid {pid}) is another user's; run this as that user, or as root"
        raise CommandError(Exit.UNUSABLE, why) from None
