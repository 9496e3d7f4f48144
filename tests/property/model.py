"""The rules of identity and merge once more, for one key, as plainly as they can be said: the ledger's yardstick.

Nothing here is fast, incremental or shared with the product. A history is a list of `Said`; a journal maps a uid to
every delivery of it that counts. All times are whole milliseconds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

RETRY = 20 * 60 * 1000
HOUR = 3_600_000
ORDER = {"uninstalled": 0, "enabled": 0, "disabled": 1, "installed": 2, "configuration_updated": 3}
SPEAKS_OF = {
    "installed": "installed",
    "uninstalled": "installed",
    "enabled": "enabled",
    "disabled": "enabled",
    "configuration_updated": "configuration",
}


class ModelDelivery(NamedTuple):
    """One delivery: what, when (signed), with which configuration, under which uid and hash, marked or not."""

    event: str
    at: int
    configuration: str
    uid: str
    f: str
    marked: bool


@dataclass
class ModelKey:
    """A key: journal, verdicts that are final, and the registers of what folded."""

    journal: dict[str, list[ModelDelivery]] = field(default_factory=dict)
    final: dict[str, str] = field(default_factory=dict)
    base: list[tuple[str, ModelDelivery]] = field(default_factory=list)
    folded_to: int | None = None
    flagged: bool = False

    def hear(self, said: ModelDelivery, now: int) -> bool:
        """Take one delivery in at log time `now`; False if it is too late to count."""
        self.age(now)
        if said.uid in self.final:
            return True
        if said.uid not in self.journal and self.folded_to is not None:
            near = said.at <= self.folded_to + RETRY and said.at < now - 24 * HOUR
            if said.at <= self.folded_to or near:
                return False
        self.journal.setdefault(said.uid, []).append(said)
        return True

    def age(self, now: int) -> None:
        """Make final what is 8 hours old, and fold what is 24 hours old."""
        verdicts = self.verdicts()
        self.final |= {said.uid: verdicts[said.uid] for said in self.counting() if said.at < now - 8 * HOUR}
        old = [said for said in self.counting() if said.uid in self.final and said.at < now - 24 * HOUR]
        if not old:
            return
        gone = {said.uid: self.journal.pop(said.uid) for said in old}
        self.base += [(self.final[said.uid], said) for said in old]
        # A tie that something newer, still in the journal, has settled is none: growing old alone raises no flag.
        folded = self._new([], {})
        held = registers(self._new(self.counting(), verdicts))
        self.flagged |= self._doubts(old, self.final, gone, [said if said in folded else None for said in held])
        self.folded_to = max([said.at for said in old] + ([] if self.folded_to is None else [self.folded_to]))
        self.final = {uid: verdict for uid, verdict in self.final.items() if uid not in gone}

    def counting(self) -> list[ModelDelivery]:
        """For each uid what counts: the body with the least (time, hash), at its least time, marked if always so."""
        rows = []
        for uid, told in self.journal.items():
            _, f = min((said.at, said.f) for said in told)
            same = [said for said in told if said.f == f]
            least = min(said.at for said in same)
            marked = all(said.marked for said in same)
            rows.append(ModelDelivery(same[0].event, least, same[0].configuration, uid, f, marked))
        return sorted(rows, key=version)

    def verdicts(self) -> dict[str, str]:
        """New, absorbed or ambiguous, for each uid."""
        rows = self.counting()
        verdicts: dict[str, str] = {}
        for index, said in enumerate(rows):
            verdicts[said.uid] = self.final.get(said.uid) or self._judge(said, rows, rows[:index], verdicts)
        return verdicts

    def _judge(
        self, said: ModelDelivery, rows: list[ModelDelivery], earlier: list[ModelDelivery], verdicts: dict[str, str]
    ) -> str:
        twins = [x for x in earlier if nameless(x) and x.f == said.f and said.at - x.at <= RETRY]
        if nameless(said) and twins:
            twin = twins[-1]
            others = [z for z in rows if z.uid != said.uid and twin.at <= z.at <= said.at]
            if verdicts[twin.uid] != "ambiguous" and not any(denies(z, said) for z in others):
                return "absorbed"
            return "ambiguous" if said.marked else "new"
        others = [z for z in rows if z.uid != said.uid and said.at - RETRY <= z.at <= said.at]
        if said.marked and any(denies(z, said) or denies_orphan(z, said) for z in others):
            return "ambiguous"
        return "new"

    def _new(self, rows: list[ModelDelivery], verdicts: dict[str, str]) -> list[ModelDelivery]:
        """Every event that counts: these, and what folded."""
        folded = [said for verdict, said in self.base if verdict == "new"]
        return folded + [said for said in rows if verdicts[said.uid] == "new"]

    def _doubts(
        self,
        rows: list[ModelDelivery],
        verdicts: dict[str, str],
        told: dict[str, list[ModelDelivery]],
        held: Sequence[ModelDelivery | None],
    ) -> bool:
        conflict = any(len({said.f for said in told[row.uid]}) > 1 for row in rows)
        ambiguous = any(verdicts[row.uid] == "ambiguous" for row in rows)
        installed, uninstalled = held[:2]
        both = installed is not None and uninstalled is not None and installed.at == uninstalled.at
        values: dict[tuple[str, int], set[str]] = {}
        for row in rows:
            if verdicts[row.uid] == "new":
                values.setdefault((SPEAKS_OF[row.event], row.at), set()).add(row.f)
        split = any(
            len(f) > 1 and at in {said.at for said in held if said is not None} for (_, at), f in values.items()
        )
        return conflict or ambiguous or both or split

    def state(self) -> tuple[bool | None, bool | None, str | None, bool]:
        """Installed, enabled, configuration, and whether any of it is in doubt."""
        rows, verdicts = self.counting(), self.verdicts()
        new = self._new(rows, verdicts)
        doubt = self.flagged or self._doubts(rows, verdicts, self.journal, registers(new))
        n, u, e, c = registers(new)
        if n is None and u is None:
            return None, None, None if c is None else c.configuration, doubt
        if n is None or (u is not None and version(u) > version(n)):
            return False, None, None, doubt
        enabled = True if e is None or (u is not None and version(e) < version(u)) else e.event == "enabled"
        counts = c is not None and (u is None or version(c) > version(u))
        return True, enabled, c.configuration if c is not None and counts else None, doubt


def version(said: ModelDelivery) -> tuple[int, int, str]:
    return said.at, ORDER[said.event], said.uid


def nameless(said: ModelDelivery) -> bool:
    """The sender gave neither id nor sequence."""
    return said.uid.startswith("f:")


def registers(
    new: list[ModelDelivery],
) -> tuple[ModelDelivery | None, ModelDelivery | None, ModelDelivery | None, ModelDelivery | None]:
    """The newest install, uninstall, enablement and configuration."""

    def newest(*events: str) -> ModelDelivery | None:
        return max((said for said in new if said.event in events), key=version, default=None)

    return (
        newest("installed"),
        newest("uninstalled"),
        newest("enabled", "disabled"),
        newest("installed", "configuration_updated"),
    )


def denies(z: ModelDelivery, y: ModelDelivery) -> bool:
    """Something between a retry and its first attempt that says otherwise."""
    if z.event == "uninstalled":
        return y.event != "uninstalled"
    if y.event == "installed":
        return False
    if y.event == "uninstalled":
        return z.event == "installed"
    if y.event == "configuration_updated":
        return z.event in ("installed", "configuration_updated") and z.configuration != y.configuration
    return SPEAKS_OF[z.event] == "enabled" and z.event != y.event


def denies_orphan(z: ModelDelivery, y: ModelDelivery) -> bool:
    """Without a first attempt, a configuration that came since speaks against an install as well."""
    return y.event == "installed" and z.event == "configuration_updated" and z.configuration != y.configuration
