#!/usr/bin/env python3
"""Keeps a workspace for each tenant: a folder below WORKSPACES with a file that tells whose it is.

An example of a step of kind `script`; docs/own-steps-in-code.md explains it line by line. It needs Python and nothing
else. What makes it safe to repeat, to interrupt and to run late:

- The workspace is named by `name`, which is made of key and generation. A repeated create finds it and changes nothing.
- The file is written beside its place and moved there, so nobody ever reads half of it.
- The file keeps the `epoch`. A call with a smaller one is of a worker that lost its lease, and changes nothing.
"""

import fcntl
import json
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import Any

DONE, ABSENT, RETRY, REFUSED, OPERATOR_REFUSED = 0, 210, 211, 212, 213


def main() -> int:
    """Answers one call: JSON on standard input, an exit status and JSON on standard output."""
    call = json.load(sys.stdin)
    root = Path(os.environ["WORKSPACES"])
    if not root.is_dir():
        return answer(OPERATOR_REFUSED, reason="the folder WORKSPACES does not exist")
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return VERBS[call["verb"]](call, root / call["name"])


def create_or_update(call: dict[str, Any], folder: Path) -> int:
    """Makes the workspace as asked, if it is not so already."""
    region = call["inputs"].get("region", "here")
    if region not in {"here", "there"}:
        return answer(REFUSED, reason=f"no region of this name: {region}")
    known = read_file(folder)
    if known is not None and known["epoch"] > call["epoch"]:
        return answer(RETRY, reason="a newer worker was here")
    if known is None and call["verb"] == "update":
        return ABSENT
    token = known["token"] if known else secrets.token_urlsafe(24)
    folder.mkdir(exist_ok=True)
    wanted = {"key": call["key"], "enabled": call["enabled"], "region": region, "token": token, "epoch": call["epoch"]}
    partial = folder / ".partial"
    partial.write_text(json.dumps(wanted))
    partial.replace(folder / "workspace.json")
    print("workspace written", file=sys.stderr)
    return answer(DONE, outputs={"path": str(folder), "token": token})


def read(call: dict[str, Any], folder: Path) -> int:
    """Looks the workspace up, and tells the first field that is not as asked."""
    known = read_file(folder)
    if known is None:
        return ABSENT
    wanted = {"enabled": call["enabled"], "region": call["inputs"].get("region", "here")}
    differs = next((name for name, value in wanted.items() if known[name] != value), None)
    return answer(DONE, outputs={"path": str(folder), "token": known["token"]}, differs=differs)


def delete(call: dict[str, Any], folder: Path) -> int:
    """Removes the workspace."""
    if not folder.exists():
        return ABSENT
    known = read_file(folder)
    if known is not None and known["epoch"] > call["epoch"]:
        return answer(RETRY, reason="a newer worker was here")
    shutil.rmtree(folder)
    return answer(DONE)


def read_file(folder: Path) -> dict[str, Any] | None:
    """The file of a workspace; None where there is none."""
    try:
        found: dict[str, Any] = json.loads((folder / "workspace.json").read_text())
    except FileNotFoundError:
        return None
    return found


def answer(status: int, **fields: object) -> int:
    """Writes the answer; returns the exit status."""
    json.dump(fields, sys.stdout)
    return status


VERBS = {"create": create_or_update, "update": create_or_update, "read": read, "delete": delete}

if __name__ == "__main__":
    sys.exit(main())
