"""The latest states of the sessions in use, in this process, within a byte budget."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from manent.domain.session import SessionState

MESSAGE_OVERHEAD_BYTES = 400


@dataclass(slots=True)
class _Entry:
    state: SessionState
    size_bytes: int


class LruContextCache:
    """Keeps what was used last and forgets the rest. Sizes are estimates: text, images, an allowance per message."""

    def __init__(self, *, budget_bytes: int) -> None:
        self._budget_bytes = budget_bytes
        self._entries: OrderedDict[tuple[str, str], _Entry] = OrderedDict()
        self._size_bytes = 0
        self.hits = self.misses = 0

    @property
    def size_bytes(self) -> int:
        """What is kept, by estimate."""
        return self._size_bytes

    def __len__(self) -> int:
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._size_bytes = 0

    async def get(self, tenant: str, session_id: str) -> SessionState | None:
        """See ``ContextCache.get``."""
        entry = self._entries.get((tenant, session_id))
        if entry is None:
            self.misses += 1
            return None
        self.hits += 1
        self._entries.move_to_end((tenant, session_id))
        return entry.state

    async def put(self, state: SessionState, *, before: SessionState | None = None) -> None:
        """See ``ContextCache.put``; histories share their storage, so that ``before`` costs nothing to keep either."""
        key = state.tenant, state.session_id
        known = self._entries.get(key)
        if known is not None and known.state.version >= state.version:
            return
        size_bytes = _grown_size(known, state)
        self._size_bytes += size_bytes - (known.size_bytes if known else 0)
        self._entries[key] = _Entry(state, size_bytes)
        self._entries.move_to_end(key)
        while self._size_bytes > self._budget_bytes and self._entries:
            _, dropped = self._entries.popitem(last=False)
            self._size_bytes -= dropped.size_bytes

    async def forget(self, tenant: str, session_id: str) -> None:
        """See ``ContextCache.forget``."""
        entry = self._entries.pop((tenant, session_id), None)
        if entry is not None:
            self._size_bytes -= entry.size_bytes


def _grown_size(known: _Entry | None, state: SessionState) -> int:
    """The size of ``state``, measuring only what is new where the conversation grew."""
    measured = len(known.state.messages) if known else 0
    if known is not None and measured <= len(state.messages):
        return known.size_bytes + _size(state, measured)
    return MESSAGE_OVERHEAD_BYTES + _size(state, 0)


def _size(state: SessionState, start: int) -> int:
    messages = state.messages
    if start == 0 and messages.unbuilt_bytes:  # they were just read, and may never be looked at
        return MESSAGE_OVERHEAD_BYTES * len(messages) + 4 * messages.unbuilt_bytes
    size_bytes = 0
    for message in messages[start:]:
        size_bytes += MESSAGE_OVERHEAD_BYTES
        for part in message.content:
            size_bytes += 4 * len(part.text)
        for image in message.images:
            size_bytes += len(image.data)
    return size_bytes
