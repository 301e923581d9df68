"""What the log, the clients and the memory say of a soak, together."""

from __future__ import annotations

import json
import sqlite3
import statistics
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak.clients import Tally
from tests.support.commands import manent

TERMINAL = ("CompletionGenerated", "CompletionFailed", "CompletionCancelled")
GROWTH_MAX = 1.15
MEGABYTE = 1_000_000


@dataclass
class Samples:
    """The server's memory over time: seconds, bytes."""

    taken: list[tuple[float, int]] = field(default_factory=list)

    def add(self, at_s: float, size_bytes: int) -> None:
        """One more."""
        self.taken.append((at_s, size_bytes))

    def quarter(self, number: int) -> float:
        """The median of a quarter of the time, from 0, in bytes."""
        length = max(1, len(self.taken) // 4)
        part = self.taken[number * length : (number + 1) * length] or self.taken[-1:]
        return statistics.median(size_bytes for _, size_bytes in part)


@dataclass
class Verdict:
    """Whether everything held, and the report."""

    passed: bool
    lines: list[str]


def judge(home: Path, tally: Tally, samples: Samples, *, stopped: int) -> Verdict:
    """Read the log of a server that has stopped, and compare it with what its clients saw."""
    requested, ended = _completions(home)
    without_end = [found for found in requested if found not in ended]
    twice = [found for found, kinds in ended.items() if sum(kinds.values()) != 1]
    lost = [found for found in tally.whole if not ended.get(found, Counter())["CompletionGenerated"]]
    verified = manent("log", "verify", "--json", home=home)
    sound = verified.returncode == 0 and json.loads(verified.stdout)["sound"]
    growth = samples.quarter(3) / samples.quarter(1)
    kinds = sum((kinds for kinds in ended.values()), Counter[str]())
    checks = {
        f"{len(requested)} requests accepted, {len(without_end)} without a terminal event": not without_end,
        f"{len(twice)} with more than one": not twice,
        f"{len(tally.whole)} answers seen whole, {len(lost)} of them not in the log": not lost and bool(tally.whole),
        f"the log verifies: {'yes' if sound else verified.stdout + verified.stderr}": sound,
        f"memory: {samples.quarter(1) / MEGABYTE:.0f} MB in the second quarter of the time, "
        f"{samples.quarter(3) / MEGABYTE:.0f} MB in the last ({growth:.2f} times, at most {GROWTH_MAX})": growth
        <= GROWTH_MAX,
        f"the server drained and ended with {stopped}": stopped == 0,
    }
    lines = [str(tally), "in the log: " + ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))]
    lines += [f"{'ok ' if holds else 'NOT'} {words}" for words, holds in checks.items()]
    return Verdict(passed=all(checks.values()), lines=lines)


def _completions(home: Path) -> tuple[set[str], dict[str, Counter[str]]]:
    """The ids of the requests in the log, and of each terminal event its types."""
    requested: set[str] = set()
    ended: dict[str, Counter[str]] = {}
    with closing(sqlite3.connect(home / "manent.db")) as database:
        rows = database.execute(
            "SELECT h.type, p.payload FROM event_headers AS h JOIN event_payloads AS p ON p.position = h.position "
            "WHERE h.type LIKE 'Completion%'"
        )
        for kind, payload in rows:
            completion_id = json.loads(payload)["completion_id"]
            if kind == "CompletionRequested":
                requested.add(completion_id)
            elif kind in TERMINAL:
                ended.setdefault(completion_id, Counter())[kind] += 1
    return requested, ended
