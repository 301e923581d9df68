"""Ids from the operating system's randomness."""

from __future__ import annotations

import re

import pytest

from manent.app.system import RandomIds


def test_event_ids_sort_by_when_they_were_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of them grows at its end, whatever is random in them; a salt is random alone."""
    ids = RandomIds()
    made = []
    for now_ns in (1_700_000_000_000_000_000, 1_700_000_000_001_000_000, 1_800_000_000_000_000_000):
        monkeypatch.setattr("time.time_ns", lambda now_ns=now_ns: now_ns)
        made += [sorted(ids.event() for _ in range(100))]
    events = [event_id for some in made for event_id, _ in some]
    assert events == sorted(events)
    assert len(set(events)) == 300
    assert all(re.fullmatch("evt_[0-9a-f]{32}", event_id) for event_id in events)
    assert {len(salt) for some in made for _, salt in some} == {32}
    assert len({salt for some in made for _, salt in some}) == 300
