"""Which completions are open while the log is read in order: each is closed exactly once."""

from __future__ import annotations

from collections import Counter

from manent.domain.transparency import AuditedLog, CompletionMark, Finding

OPEN_MAX = 100_000
_NOTHING: Counter[str | None] = Counter()


class CompletionLedger:
    """Holds the completions that are open at a position, so memory grows with what runs at once, not with the log.

    An erased payload no longer says which completion it was; within its stream it stands for any.
    """

    def __init__(self, log: AuditedLog, *, after: int) -> None:
        self._log = log
        self._after = after
        self._open: dict[tuple[str, str], Counter[str | None]] = {}
        self._count = 0

    @property
    def open_count(self) -> int:
        """How many have no terminal event yet."""
        return self._count

    async def take(self, mark: CompletionMark) -> Finding | None:
        """Open or close a completion."""
        if not mark.opens:
            return await self._close(mark)
        if mark.completion_id is not None and self._stream(mark)[mark.completion_id]:
            return _finding(mark, f"completion {mark.completion_id} is requested a second time")
        if self._count >= OPEN_MAX:
            return _finding(mark, f"{self._count} completions are open at once, more than any server runs")
        self._add(mark)
        return None

    async def _close(self, mark: CompletionMark) -> Finding | None:
        if self._after and not self._stream(mark):
            await self._open_before(mark)
        stream = self._stream(mark)
        for candidate in (mark.completion_id, None) if mark.completion_id is not None else (*stream, None):
            if stream[candidate]:
                self._remove(mark, candidate)
                return None
        named = mark.completion_id or "whose payload was erased"
        return _finding(mark, f"it ends completion {named}, which is not open: never requested, or ended before")

    async def _open_before(self, mark: CompletionMark) -> None:
        """What was open in the stream where the verification began."""
        for earlier in await self._log.marks_before(mark.tenant, mark.stream_id, self._after):
            if earlier.opens:
                self._add(earlier)
            elif self._stream(earlier)[earlier.completion_id]:
                self._remove(earlier, earlier.completion_id)

    def _stream(self, mark: CompletionMark) -> Counter[str | None]:
        return self._open.get((mark.tenant, mark.stream_id), _NOTHING)

    def _add(self, mark: CompletionMark) -> None:
        self._open.setdefault((mark.tenant, mark.stream_id), Counter())[mark.completion_id] += 1
        self._count += 1

    def _remove(self, mark: CompletionMark, completion_id: str | None) -> None:
        stream = self._stream(mark)
        stream[completion_id] -= 1
        if not stream[completion_id]:
            del stream[completion_id]
        if not stream:
            del self._open[mark.tenant, mark.stream_id]
        self._count -= 1


def _finding(mark: CompletionMark, what: str) -> Finding:
    return Finding(position=mark.position, last_position=mark.position, what=what)
