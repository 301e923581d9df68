"""Ids from the operating system's randomness."""

from __future__ import annotations

import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from manent.app.system import RandomIds


def test_ids_sort_by_when_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of them grows at its end, whatever is random in them; a salt is random alone."""
    ids = RandomIds()
    made = []
    for now_ns in (1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000):
        monkeypatch.setattr("time.time_ns", lambda now_ns=now_ns: now_ns)
        made += sorted(ids.new("evt_") for _ in range(100))
    assert made == sorted(made)
    assert len(set(made)) == 300
    assert all(re.fullmatch("evt_[0-9a-f]{32}", event_id) for event_id in made)
    salts = {ids.salt() for _ in range(300)}
    assert len(salts) == 300
    assert {len(salt) for salt in salts} == {32}


def test_no_two_threads_get_the_same() -> None:
    """Bytes are fetched many at a time, and each is handed out once."""
    ids = RandomIds()
    with ThreadPoolExecutor(8) as threads:
        made = list(threads.map(lambda _: [ids.new("") for _ in range(500)], range(16)))
    assert len({one for some in made for one in some}) == 16 * 500
    assert all(0 <= ids.seed() < 2**31 for _ in range(100))


def test_a_fork_does_not_repeat_its_parent() -> None:
    """What was fetched before is not handed out by both."""
    program = (
        "import os; from manent.app.system import RandomIds; ids = RandomIds(); ids.new(''); r, w = os.pipe(); "
        "child = os.fork(); one = ids.new('').encode(); "
        "(os.write(w, one), os._exit(0)) if child == 0 else print(os.read(r, 32) != one)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "True\n"
