"""The messages of a conversation as an immutable sequence that grows in constant time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import is_
from typing import overload

from manent.domain.messages import Message


class _Storage:
    """Messages in a list that only grows, and where their ids are, as far as it was looked through."""

    __slots__ = ("_build", "_known", "_messages", "_seen", "unbuilt_bytes")

    def __init__(self, messages: list[Message], build: Callable[[], list[Message]] | None, unbuilt_bytes: int) -> None:
        self._messages = messages
        self._build = build
        self._known: dict[str, int] = {}
        self._seen = 0
        self.unbuilt_bytes = unbuilt_bytes

    @property
    def messages(self) -> list[Message]:
        """The list; made now if nobody looked at it before."""
        if self._build is not None:
            self._messages, self._build, self.unbuilt_bytes = self._build(), None, 0
        return self._messages

    def find(self, message_id: str) -> int | None:
        """The index of the message with this id; of equal ids the first."""
        messages = self.messages
        for index in range(self._seen, len(messages)):
            self._known.setdefault(messages[index].message_id, index)
        self._seen = len(messages)
        return self._known.get(message_id)


class History(Sequence[Message]):
    """An immutable sequence of messages whose successors share its storage.

    ``extended`` writes behind the end of the shared list if nobody did so before, and copies otherwise; a history
    never looks beyond its own length, so no history ever changes. A fold over n events is O(n) instead of the
    O(n²) that tuples would cost: it matters for sessions of 100,000 messages.
    """

    __slots__ = ("_length", "_storage")

    def __init__(self, messages: Iterable[Message] = ()) -> None:
        held = list(messages)
        self._storage = _Storage(held, None, 0)
        self._length = len(held)

    @classmethod
    def deferred(cls, length: int, build: Callable[[], list[Message]], *, size_bytes: int) -> History:
        """A history whose ``length`` messages are made by ``build``, which cannot fail, when one is looked at.

        ``size_bytes`` is what they take as ``build`` has them.
        """
        return cls._view(_Storage([], build, size_bytes), length)

    @classmethod
    def _view(cls, storage: _Storage, length: int) -> History:
        view = cls.__new__(cls)
        view._storage = storage  # noqa: SLF001 (its own class)
        view._length = length  # noqa: SLF001 (its own class)
        return view

    @property
    def unbuilt_bytes(self) -> int:
        """The size of messages that nobody looked at yet; 0 where they are made."""
        return self._storage.unbuilt_bytes

    @property
    def _shared(self) -> list[Message]:
        return self._storage.messages

    def extended(self, *messages: Message) -> History:
        """This history with ``messages`` at its end; where the very same were put there before, it is that one's."""
        shared, length = self._shared, self._length + len(messages)
        behind = shared[self._length : length]
        if len(behind) == len(messages) and all(map(is_, behind, messages)):
            return self._view(self._storage, length)
        at_end = len(shared) == self._length
        storage = self._storage if at_end else _Storage(shared[: self._length], None, 0)
        storage.messages.extend(messages)
        return self._view(storage, length)

    def truncated(self, length: int) -> History:
        """The first ``length`` messages."""
        return self._view(self._storage, min(length, self._length))

    def index_of(self, message_id: str) -> int | None:
        """Where the message with this id is, or None: a look-up once every message was looked at one time.

        Successors share what was learned as they share the messages.
        """
        index = self._storage.find(message_id)
        return index if index is not None and index < self._length else None

    def shared_length(self, other: History) -> int:
        """How many messages both begin with, the very same objects; quick where they share their storage."""
        length = min(self._length, other._length)
        if self._storage is other._storage:
            return length
        pairs = zip(islice(self._shared, length), other._shared, strict=False)
        return next((index for index, (one, another) in enumerate(pairs) if one is not another), length)

    def __len__(self) -> int:
        return self._length

    @overload
    def __getitem__(self, index: int) -> Message: ...
    @overload
    def __getitem__(self, index: slice) -> list[Message]: ...
    def __getitem__(self, index: int | slice) -> Message | list[Message]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._length)
            return self._shared[start:stop] if step == 1 else [self._shared[i] for i in range(start, stop, step)]
        if not -self._length <= index < self._length:
            raise IndexError(f"message {index} of {self._length}")
        return self._shared[index if index >= 0 else self._length + index]

    def __iter__(self) -> Iterator[Message]:
        return islice(self._shared, self._length)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, History):
            return NotImplemented
        return self._length == other._length and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]  # a list is inside: equal by value, never a key

    def __repr__(self) -> str:
        return f"History({list(self)!r})"
