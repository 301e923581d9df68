"""Where a reader of a streamed completion stands: the ids of its events, and how to go on behind one of them.

Deltas that gathered while the client was slow are joined, so that an event is not a delta. An id says of which deltas
its batch was made, which of the batch's events it is, and how many characters the client has with it: whatever the
readers' speeds, whoever encodes those deltas again finds the same event, and sees whether they are the same deltas.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Self

from manent.adapters.http.errors import RequestRefused

WRITTEN = re.compile(r"([0-9]{1,9})-([0-9]{1,9})\.([0-9]{1,6})\.([0-9]{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cursor:
    """Behind event number ``events`` of the batch of deltas ``start`` to below ``end``; the client has ``chars``."""

    start: int = 0
    end: int = 0
    events: int = 0
    chars: int = 0

    @classmethod
    def read(cls, written: str, *, param: str = "Last-Event-ID") -> Self:
        """The cursor that an id is; ``param`` is what the client calls it.

        Raises:
            RequestRefused: it is none.
        """
        match = WRITTEN.fullmatch(written)
        if match is None or int(match[1]) > int(match[2]):
            raise RequestRefused(
                "invalid_value",
                f"{param} is {written[:80]!r}; it must be the id of an event of this stream, such as 3-5.1.42",
                param=param,
            )
        start, end, events, chars = map(int, match.groups())
        return cls(start=start, end=end, events=events, chars=chars)

    def __str__(self) -> str:
        return f"{self.start}-{self.end}.{self.events}.{self.chars}"


class Chunk(NamedTuple):
    """One event of a stream, however it is sent: where a reader stands who has it, and what it says, in JSON."""

    cursor: Cursor
    data: bytes
