"""`lifecycle status`, `restart` and `down`: the processes of a `lifecycle up`, started by any user on any terminal.

Rule: only `up` starts processes. `restart` ends one process and waits for the supervisor to start the next: ports,
the endpoints file and every promise of `up` hold meanwhile.
"""

# These commands share no socket with `up`: they read its process file, send signals, and watch the file and `/proc` for
# the effect. A process id belongs to the same process as before only if the start time is equal (process_file.py).

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
    from services.cli.show import Spinner

Json = Annotated[bool, typer.Option("--json", help="The result as JSON on standard output.")]
StateDir = Annotated[Path | None, typer.Option(help="State folder of `lifecycle up`.")]
Wait = Annotated[str, typer.Option("--timeout", help="Longest wait: 30s, 2m, at most 1h.")]

_POLL_S: Final = 0.1
"""Seconds between two looks at the processes."""
_KILL_AFTER_S: Final = 15.0
"""Seconds of patience with a process that was asked to end; afterwards it is killed, and the supervisor restarts it."""

_STOP_SIGNALS: Final = {"postgres": signal.SIGINT}
"""The signal of a clean stop where SIGTERM is not: SIGTERM would have PostgreSQL wait for its clients to disconnect."""

_ENGINES: Final = frozenset({"kafka", "postgres"})
"""Names of the processes that are engines, not services: probed by a client, since neither has a `/readyz`."""
_STYLES: Final = {"ready": "green", "not ready": "yellow", "down": "red"}


def status(as_json: Json = False, state_dir: StateDir = None) -> None:
    """Show age and readiness of each process of `lifecycle up`; ends with 1 if a process is not ready."""
    from services.cli import show

    folder, running = _find_up(state_dir)
    found = _states(folder, running)
    if as_json:
        show.as_json({"state_dir": str(folder), "pid": running.up.pid, "ready": running.ready, "processes": found})
    else:
        _print_status(folder, running, found)
    raise typer.Exit(Exit.OK if all(one["state"] == "ready" for one in found) and running.ready else Exit.DEVIATION)


def restart(
    service: Annotated[str, typer.Argument(metavar="SERVICE", help="A name listed by `lifecycle status`.")],
    timeout: Wait = "2m",
    as_json: Json = False,
    state_dir: StateDir = None,
) -> None:
    """End one process and wait until its successor is ready; the port and the endpoints file stay."""
    from services.cli import show

    timeout_s = options.span_us(timeout, "--timeout", "1h") / 1_000_000
    folder, running = _find_up(state_dir)
    _check_service(service, running)
    began, former = time.monotonic(), running.process_of(service)
    with show.Spinner() as spinner:
        after = _restart_and_wait(folder, service, running, began + timeout_s, spinner)
    took_s = time.monotonic() - began
    if as_json:
        former_pid = None if former is None else former.pid
        show.as_json({"service": service, "before": former_pid, "pid": after, "seconds": round(took_s, 1)})
    else:
        former_text = "it did not run" if former is None else f"{former.pid} ended"
        print(f"{service}: {former_text}, {after} is ready, {took_s:.1f} s")


def down(timeout: Wait = "2m", as_json: Json = False, state_dir: StateDir = None) -> None:
    """Stop all processes of `lifecycle up` and wait for their end; the data stays. Ends with 0 if nothing runs."""
    from services.cli import show
    from services.cli.local import process_file

    timeout_s = options.span_us(timeout, "--timeout", "1h") / 1_000_000
    folder = options.folder(environment.state_dir(state_dir))
    running, began = process_file.find_up(folder), time.monotonic()
    if running is None:
        # A killed `up` stops no process; the kernel sent each one the death signal when `up` ended. `down` only waits.
        remaining = {f"process {pid}": pid for pid in process_file.orphans(folder)}
    else:
        remaining = {name: one.pid for name, one in running.processes.items() if one.pid} | {"up": running.up.pid}
        # Only `up` gets a signal: it stops its processes in order, and would restart one that was signalled directly.
        _signal(running.up.pid, signal.SIGTERM, "up")
    with show.Spinner() as spinner:
        still_running = _wait_until_ended(remaining, began + timeout_s, spinner)
    if still_running:
        text = ", ".join(f"{name} (pid {remaining[name]})" for name in still_running)
        raise CommandError(
            Exit.DEVIATION, f"still running after {timeout_s:g} s: {text}; wait on, or end them with kill"
        )
    took_s = round(time.monotonic() - began, 1)
    if as_json:
        show.as_json({"state_dir": str(folder), "stopped": sorted(remaining), "seconds": took_s})
    elif running is None and not remaining:
        print(f"nothing runs in {folder}")
    else:
        print(f"stopped: {', '.join(remaining)} ({took_s} s); the data stays in {folder}")


def _check_service(service: str, running: "RunningUp") -> None:
    """Refuses the name of a process not run by this `up`.

    Raises:
        CommandError: UNREACHABLE for a process not started yet, UNUSABLE for any unknown name.
    """
    from services.cli.local.wiring import SERVICES

    if not running.ready and service in {*_ENGINES, *SERVICES} and service not in running.processes:
        raise CommandError(Exit.UNREACHABLE, f"`up` is still starting and has no {service} yet; see `lifecycle status`")
    options.one_of(service, running.processes, "SERVICE", "process of this `up`")


def _find_up(state_dir: Path | None) -> "tuple[Path, RunningUp]":
    """Returns the state folder and the `up` that runs on it.

    Raises:
        CommandError: the folder does not exist (UNUSABLE), or no `up` runs (UNREACHABLE).
    """
    from services.cli.local import process_file

    folder = options.folder(environment.state_dir(state_dir))
    found = process_file.find_up(folder)
    if found is None:
        raise CommandError(Exit.UNREACHABLE, f"nothing runs in {folder}; start it with `lifecycle up`")
    return folder, found


def _states(folder: Path, running: "RunningUp") -> list[dict[str, Any]]:
    """Returns state, reason, process id, age in seconds, number of deaths and log path of each process."""
    faults = _faults(folder, running)
    found = []
    for name, one in running.processes.items():
        process = running.process_of(name)
        state = "down" if process is None else "not ready" if name in faults else "ready"
        found.append({
            "service": name,
            "state": state,
            "why": "it ended; the supervisor starts it again" if process is None else faults.get(name),
            "pid": process and process.pid,
            "up_s": process and round(process.age_s),
            "deaths": one.deaths,
            "log": one.log,
        })  # fmt: skip
    return found


def _faults(folder: Path, running: "RunningUp", names: Collection[str] | None = None) -> Mapping[str, str]:
    """Returns the fault of each unready process, by name.

    Engines are probed only once `up` has reported everything ready: before, the environment file with the addresses
    does not exist.

    Args:
        folder: The state folder.
        running: The `up` of this folder.
        names: Processes to probe; None for all.
    """
    from services.cli.local import observe, readiness
    from services.cli.local.wiring import LocalPorts

    asked = [name for name in running.processes if names is None or name in names]
    faults: dict[str, str] = {}
    if observe.NAME in asked and (fault := observe.fault(folder)):
        faults[observe.NAME] = fault
    if services := [name for name in asked if name not in {*_ENGINES, observe.NAME}]:
        ports = LocalPorts(**json.loads((folder / "stack.json").read_text(encoding="utf-8"))["ports"])
        # From `stack.json`, written at the first start: during a start the endpoints file does not exist yet.
        faults |= readiness.unready_services(ports, services)
    if running.ready and (engines := [name for name in asked if name in _ENGINES]):
        faults |= readiness.unresponsive_engines(environment.environment_of_up(folder), engines)
    return faults


def _print_status(folder: Path, running: "RunningUp", found: list[dict[str, Any]]) -> None:
    """Prints the state of `up` and one line per process."""
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


def _restart_and_wait(folder: Path, name: str, running: "RunningUp", deadline: float, spinner: "Spinner") -> int:
    """Ends a process and returns the process id of its successor once the successor is ready.

    Args:
        folder: The state folder.
        name: Name of the process.
        running: The `up` of this folder, read before the restart.
        deadline: Latest instant of the monotonic clock, in seconds.
        spinner: Shows the present obstacle.

    Raises:
        CommandError: no successor was ready in time, or `up` ended meanwhile (UNREACHABLE); the process belongs to a
            different user (UNUSABLE).
    """
    from services.engines.child_process import last_lines

    former = running.process_of(name)
    if former is not None:
        _signal(former.pid, _STOP_SIGNALS.get(name, signal.SIGTERM), name)
    kill_at = time.monotonic() + _KILL_AFTER_S
    fault = "the supervisor has not started it again"
    while time.monotonic() < deadline:
        spinner(f"{name}: {fault}")
        time.sleep(_POLL_S)
        # Read anew in every round: only the file knows the id of the successor, and `up` itself may end meanwhile.
        folder, running = _find_up(folder)
        now = running.process_of(name)
        if now is None:
            continue
        if former is not None and now.began == former.began:
            fault = f"process {now.pid} is ending"
            # The stop signal had no effect. SIGKILL is safe here: the supervisor starts the next process in any case.
            if time.monotonic() > kill_at:
                _signal(now.pid, signal.SIGKILL, name)
            continue
        fault = _faults(folder, running, {name}).get(name, "")
        if not fault:
            return now.pid
    log = Path(running.processes[name].log)
    raise CommandError(Exit.UNREACHABLE, f"{name} is not ready: {fault}; its log {log} ends:\n{last_lines(log, 5)}")


def _wait_until_ended(remaining: Mapping[str, int], deadline: float, spinner: "Spinner") -> list[str]:
    """Waits until none of these processes runs; returns the names of those still running at the deadline."""
    from services.cli.local.process_file import process_info

    # An id may be reused while we wait, so the start time is compared as well.
    began = {name: process.began for name, pid in remaining.items() if (process := process_info(pid)) is not None}

    def runs(name: str) -> bool:
        process = process_info(remaining[name])
        return process is not None and process.began == began[name]

    while remaining_names := [name for name in began if runs(name)]:
        spinner(f"waiting for {', '.join(remaining_names)}")
        if time.monotonic() > deadline:
            return remaining_names
        time.sleep(_POLL_S)
    return []


def _signal(pid: int, number: signal.Signals, name: str) -> None:
    """Sends a signal to a process; an already ended process is no error.

    Raises:
        CommandError: the process belongs to a different user (UNUSABLE).
    """
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError:
        why = f"{name} (pid {pid}) is another user's; run this as that user, or as root"
        raise CommandError(Exit.UNUSABLE, why) from None
