"""Completions are closed exactly once, also where payloads were erased and where reading began in the middle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from manent.domain.transparency import CompletionMark
from manent.domain.usecases import completion_ledger
from manent.domain.usecases.completion_ledger import CompletionLedger

Step = tuple[str, str | None]


def marks(steps: Sequence[Step], stream_id: str = "session-s") -> list[CompletionMark]:
    """``open`` and ``close`` of completions, None where the payload was erased."""
    return [
        CompletionMark(
            position=number, tenant="acme", stream_id=stream_id, opens=what == "open", completion_id=completion_id
        )
        for number, (what, completion_id) in enumerate(steps, start=1)
    ]


@dataclass
class Past:
    """A log of which only what came before is asked."""

    before: Sequence[CompletionMark] = ()

    async def marks_before(self, tenant: str, stream_id: str, position: int) -> Sequence[CompletionMark]:
        """See ``AuditedLog.marks_before``."""
        return [one for one in self.before if one.stream_id == stream_id and one.position <= position]


async def wrong(steps: Sequence[Step], *, before: Sequence[Step] = ()) -> tuple[list[int], int]:
    """Positions that are wrong, and how many completions stay open."""
    ledger = CompletionLedger(Past(marks(before)), after=len(before))  # type: ignore[arg-type]  # only the past is asked
    found = [await ledger.take(mark) for mark in marks(steps)]
    return [finding.position for finding in found if finding is not None], ledger.open_count


@pytest.mark.parametrize(
    ("steps", "positions", "left"),
    [
        ([("open", "a"), ("close", "a")], [], 0),
        ([("open", "a"), ("open", "b"), ("close", "a")], [], 1),
        ([("close", "a")], [1], 0),
        ([("open", "a"), ("close", "a"), ("close", "a")], [3], 0),
        ([("open", "a"), ("open", "a")], [2], 1),
        ([("open", "a"), ("close", "b")], [2], 1),
        ([("open", None), ("close", "a")], [], 0),
        ([("open", "a"), ("close", None)], [], 0),
        ([("open", None), ("close", None), ("close", None)], [3], 0),
    ],
)
async def test_each_completion_is_closed_once(steps: Sequence[Step], positions: list[int], left: int) -> None:
    """What closes nothing, or again, is wrong; an erased payload stands for any completion of its stream."""
    assert await wrong(steps) == (positions, left)


async def test_what_was_open_where_reading_began_may_be_closed() -> None:
    """Behind a checkpoint the past is asked, and only what it left open may end."""
    past: list[Step] = [("open", "a"), ("close", "a"), ("open", "b")]
    assert await wrong([("close", "b")], before=past) == ([], 0)
    assert await wrong([("close", "a")], before=past) == ([1], 1)


async def test_the_ledger_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More completions than any server runs at once are a finding, not a need for more memory."""
    monkeypatch.setattr(completion_ledger, "OPEN_MAX", 2)
    assert await wrong([("open", "a"), ("open", "b"), ("open", "c")]) == ([3], 2)
